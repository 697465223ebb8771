//! A copy of a disk that somebody waits for.

use std::sync::{Arc, atomic::AtomicBool};

/// How a copy that goes on in a thread of its own is followed, and ended early.
pub struct Copying {
    /// Set when nobody waits for it any more.
    pub stop: Arc<AtomicBool>,
    /// Told how far it is.
    pub tell: Box<dyn FnMut(disk::Progress) + Send + Sync>,
}

impl std::fmt::Debug for Copying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").finish_non_exhaustive()
    }
}
