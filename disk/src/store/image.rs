//! What the store says of images and of long operations on them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{digest::Sha256, inspect::ImageInfo, units::ByteSize};

/// How far a long operation is. Never goes back, except when a download starts afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub done: ByteSize,
    /// Bytes in all, where known.
    pub total: Option<ByteSize>,
}

impl Progress {
    pub(crate) fn new(done: u64, total: Option<u64>) -> Self {
        Progress {
            done: ByteSize::from_bytes(done),
            total: total.map(ByteSize::from_bytes),
        }
    }
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Its name.
    pub digest: Sha256,
    /// Its file, absolute if the store's root is.
    pub path: PathBuf,
    /// What it is.
    pub info: ImageInfo,
}
