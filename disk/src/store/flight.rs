//! Several pulls of one image at once are one download.
//!
//! The download runs in a task of its own; every caller watches it. When the last caller stops
//! waiting, the task is aborted; what has arrived stays for the next pull.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::watch, task::AbortHandle};

use super::image::{Progress, StoredImage};
use crate::{digest::Digest, error::Error, format::Format};

/// What makes two downloads the same.
pub(super) type Key = (Digest, Option<Format>);
type Outcome = Option<Result<StoredImage, Error>>;

/// Running downloads and imports.
#[derive(Default)]
pub(super) struct Flights {
    by_key: Mutex<HashMap<Key, Weak<Flight>>>,
    imports: AtomicUsize,
}

/// A running download; aborted when dropped.
pub(super) struct Flight {
    progress: watch::Receiver<Progress>,
    outcome: watch::Receiver<Outcome>,
    task: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts an import while it lives.
pub(super) struct ImportGuard<'a>(&'a AtomicUsize);

impl Drop for ImportGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Flights {
    fn map(&self) -> MutexGuard<'_, HashMap<Key, Weak<Flight>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn import(&self) -> ImportGuard<'_> {
        self.imports.fetch_add(1, Ordering::AcqRel);
        ImportGuard(&self.imports)
    }

    /// Whether files in `tmp/` may be in use.
    pub(super) fn busy(&self) -> bool {
        self.imports.load(Ordering::Acquire) > 0
            || self.map().values().any(|flight| flight.strong_count() > 0)
    }

    /// The running download for `key`, or the one that `start` makes.
    pub(super) fn join<F>(
        &self,
        key: Key,
        start: impl FnOnce(watch::Sender<Progress>) -> F,
    ) -> Arc<Flight>
    where
        F: Future<Output = Result<StoredImage, Error>> + Send + 'static,
    {
        let mut map = self.map();
        map.retain(|_, flight| flight.strong_count() > 0);
        // A download that has ended but is still watched has an old answer.
        if let Some(flight) = map.get(&key).and_then(Weak::upgrade)
            && flight.outcome.borrow().is_none()
            && !flight.task.is_finished()
        {
            return flight;
        }
        let (progress_sender, progress) = watch::channel(Progress::default());
        let (outcome_sender, outcome) = watch::channel(None);
        let download = start(progress_sender);
        let task = tokio::spawn(async move {
            let result = download.await;
            outcome_sender.send_replace(Some(result));
        });
        let flight = Arc::new(Flight {
            progress,
            outcome,
            task: task.abort_handle(),
        });
        map.insert(key, Arc::downgrade(&flight));
        flight
    }
}

impl Flight {
    /// Waits for the download, reporting its progress.
    pub(super) async fn wait(
        &self,
        url: &str,
        report: impl Fn(Progress),
    ) -> Result<StoredImage, Error> {
        let (mut progress, mut outcome) = (self.progress.clone(), self.outcome.clone());
        loop {
            if let Some(result) = outcome.borrow_and_update().clone() {
                let last = *progress.borrow_and_update();
                report(last);
                return result;
            }
            tokio::select! {
                changed = progress.changed() => match changed {
                    Ok(()) => {
                        let now = *progress.borrow_and_update();
                        report(now);
                    }
                    // The download is over; only its outcome is left to come.
                    Err(_) if outcome.changed().await.is_err() => {
                        return Err(Error::Interrupted { url: url.to_owned() });
                    }
                    Err(_) => (),
                },
                changed = outcome.changed() => if changed.is_err() {
                    return Err(Error::Interrupted { url: url.to_owned() });
                },
            }
        }
    }
}
