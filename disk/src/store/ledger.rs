//! What is known of a running download, and when it is written down.

use std::{
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    blocking::blocking,
    partial::{Partial, Record},
};
use crate::error::Error;

/// The record of a running download. Dropped, it is saved to the last byte, where there is a
/// runtime to do it; the file stays held until then.
pub(super) struct Ledger {
    state: Mutex<State>,
    partial: Partial,
    file: Arc<File>,
}

pub(super) struct State {
    pub(super) record: Record,
    /// Whether the record on disk says less.
    unsaved: bool,
    saved_at: Instant,
}

impl Ledger {
    /// `record` is what is on disk, or says that nothing has arrived.
    pub(super) fn new(record: Record, partial: Partial, file: Arc<File>) -> Self {
        let state = State {
            record,
            unsaved: false,
            saved_at: Instant::now(),
        };
        Ledger {
            state: Mutex::new(state),
            partial,
            file,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `n` more bytes of a piece are written. Gives the water mark.
    pub(super) fn advance(&self, index: usize, n: u64) -> u64 {
        let mut state = self.state();
        state.record.plan.advance(index, n);
        state.unsaved = true;
        state.record.plan.water_mark()
    }

    /// Saves the record if it is not saved and `every` has passed since it was.
    pub(super) async fn save_after(&self, every: Duration) -> Result<(), Error> {
        let record = {
            let mut state = self.state();
            if !state.unsaved || state.saved_at.elapsed() < every {
                return Ok(());
            }
            state.unsaved = false;
            state.saved_at = Instant::now();
            state.record.clone()
        };
        let (partial, file) = (self.partial.clone(), self.file.clone());
        blocking(&self.partial.part, move || partial.save(&file, &record)).await
    }

    /// Forgets the record, so that nothing is saved any more.
    pub(super) fn close(self) {
        self.state().unsaved = false;
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let record = {
            let state = self.state();
            state.unsaved.then(|| state.record.clone())
        };
        if let (Some(record), Ok(runtime)) = (record, tokio::runtime::Handle::try_current()) {
            let (partial, file) = (self.partial.clone(), self.file.clone());
            runtime.spawn_blocking(move || {
                // What cannot be saved is fetched again.
                let _ = partial.save(&file, &record);
            });
        }
    }
}
