//! Time limits and numbers of downloads.

use std::time::Duration;

use crate::units::ByteSize;

/// Time limits and numbers of downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Longest time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest time without a byte from the server.
    pub idle_timeout: Duration,
    /// Failures in a row, without a byte in between, after which a download gives up.
    pub attempts: u32,
    /// Pause after the first failure; doubled after each further one.
    pub backoff: Duration,
    /// Longest such pause.
    pub max_backoff: Duration,
    /// Longest `Retry-After` that is obeyed; a server that wants more ends the download.
    pub max_retry_after: Duration,
    /// Most connections for one download.
    pub connections: usize,
    /// Bytes that one request asks for; a smaller file is one request. Files above 4096 of them
    /// have larger pieces.
    pub piece: ByteSize,
    /// Longest time between two records of how far a download is, which is what a crash loses.
    pub save_every: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            attempts: 8,
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(120),
            connections: 4,
            piece: ByteSize::from_mib(16),
            save_every: Duration::from_secs(3),
        }
    }
}
