//! What a store allows.

use std::time::Duration;

use super::tuning::Tuning;
use crate::units::ByteSize;

/// What a store allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Largest image file.
    pub max_image_size: ByteSize,
    /// Space on the file system that the store leaves free.
    pub reserve: ByteSize,
    /// Unfinished downloads older than this are removed by a sweep.
    pub keep_partial: Duration,
    /// Time limits and numbers of the downloads.
    pub tuning: Tuning,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            max_image_size: ByteSize::from_gib(256),
            reserve: ByteSize::from_mib(256),
            keep_partial: Duration::from_secs(7 * 24 * 3600),
            tuning: Tuning::default(),
        }
    }
}
