//! Requests to a live instance, and the job that serves one of them beside whatever
//! else the task does ([`super::serve`]).
//!
//! One at a time: requests change the same records and the same QEMU. A job that is
//! not wanted any more is aborted. That is safe at every point, because what it does
//! begins with the record and is repeated from there; whoever asked is told.

use std::collections::VecDeque;

use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::tasks::{Command, Reply, TaskError};

/// Requests that may wait for the one before them. More wait outside.
const QUEUE: usize = 64;

/// What a job is for.
pub(super) enum Purpose {
    /// Somebody waits for the answer.
    Request(Reply<()>),
    /// QEMU is made to have the volumes of the record.
    MatchVolumes,
    /// QEMU said that a device is gone.
    DeviceGone,
}

/// A job that is going on.
pub(super) struct Job {
    /// Until it is done.
    pub(super) purpose: Option<Purpose>,
    pub(super) task: JoinHandle<Result<(), TaskError>>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is to be done next to the volumes, in the order in which it came.
pub(super) enum Request {
    /// A caller's.
    Command(Command),
    /// QEMU said that the device of this volume is gone.
    DeviceGone(String),
}

/// Whether QEMU has the volumes of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matched {
    /// As far as is known.
    Yes,
    /// To be found out, and to be mended.
    Due,
    /// It could not be done; the next tick tries again.
    AfterTick,
}

/// The requests and the job.
pub(super) struct Jobs {
    pub(super) queue: VecDeque<Request>,
    pub(super) running: Option<Job>,
    pub(super) matched: Matched,
}

impl Jobs {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            running: None,
            matched: Matched::Yes,
        }
    }

    /// Whether another request may come in.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE
    }

    pub(super) fn push(&mut self, request: Request) {
        if self.has_room() {
            self.queue.push_back(request);
        } else {
            // Only what QEMU says comes here unasked: it is asked instead.
            self.matched = Matched::Due;
        }
    }

    /// Waits for the end of the job; for ever, if there is none. Cancel-safe.
    pub(super) async fn done(&mut self) -> (Purpose, Result<(), TaskError>) {
        let result = match &mut self.running {
            Some(job) => (&mut job.task).await,
            None => return std::future::pending().await,
        };
        let result = result.unwrap_or_else(|e| {
            let message = format!("the request was cut off: {e}");
            Err(TaskError::Io(std::io::Error::other(message)))
        });
        match self.running.as_mut().and_then(|job| job.purpose.take()) {
            Some(purpose) => {
                self.running = None;
                (purpose, result)
            }
            None => std::future::pending().await,
        }
    }

    pub(super) fn start(
        &mut self,
        purpose: Purpose,
        future: impl Future<Output = Result<(), TaskError>> + Send + 'static,
    ) {
        self.running = Some(Job {
            purpose: Some(purpose),
            task: tokio::spawn(future.in_current_span()),
        });
    }
}
