//! Long operations as streams: progress, then the outcome.

use std::{future::Future, time::Duration};

use crn_api_types::{ProgressView, Update};
use futures::{Stream, stream};
use tokio::{sync::watch, task::JoinHandle};

use super::OpError;

/// Progress is told at most this often.
const PACE: Duration = Duration::from_millis(100);

/// Where a long operation reports to.
#[derive(Debug, Clone)]
pub struct Reporter(watch::Sender<Option<ProgressView>>);

impl Reporter {
    /// Tells how far it is. Never waits.
    pub fn report(&self, progress: disk::Progress) {
        self.0.send_replace(Some(ProgressView {
            done: progress.done.bytes(),
            total: progress.total.map(|total| total.bytes()),
        }));
    }
}

struct Job<T> {
    progress: watch::Receiver<Option<ProgressView>>,
    task: Aborting<T>,
    ended: bool,
}

/// Ends the task when nobody listens any more.
struct Aborting<T>(JoinHandle<Result<T, OpError>>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` and tells its progress and outcome. It is given up when the
/// stream is dropped.
pub(super) fn updates<T, F>(
    work: impl FnOnce(Reporter) -> F,
) -> impl Stream<Item = Update<T>> + Send + 'static
where
    T: Send + 'static,
    F: Future<Output = Result<T, OpError>> + Send + 'static,
{
    let (sender, progress) = watch::channel(None);
    let task = Aborting(tokio::spawn(work(Reporter(sender))));
    stream::unfold(
        Job {
            progress,
            task,
            ended: false,
        },
        |mut job| async move {
            if job.ended {
                return None;
            }
            let update = job.next().await;
            Some((update, job))
        },
    )
}

impl<T> Job<T> {
    async fn next(&mut self) -> Update<T> {
        loop {
            tokio::select! {
                biased;
                outcome = &mut self.task.0 => {
                    self.ended = true;
                    return match outcome {
                        Ok(Ok(done)) => Update::Done(done),
                        Ok(Err(e)) => Update::Error(e.0),
                        Err(e) => Update::Error(OpError::internal(e.to_string()).0),
                    };
                }
                step = next_progress(&mut self.progress) => {
                    if let Some(progress) = step {
                        return Update::Progress(progress);
                    }
                }
            }
        }
    }
}

/// The next progress, not sooner than [`PACE`] allows; never again once the
/// sender is gone, for the outcome is about to come.
async fn next_progress(
    progress: &mut watch::Receiver<Option<ProgressView>>,
) -> Option<ProgressView> {
    if progress.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(PACE).await;
    *progress.borrow_and_update()
}

#[cfg(test)]
mod tests {
    use disk::{ByteSize, Progress};
    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_then_outcome() {
        let stream = updates(|reporter| async move {
            for done in 0..5 {
                let (done, total) = (ByteSize::from_bytes(done), Some(ByteSize::from_bytes(5)));
                reporter.report(Progress { done, total });
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            Ok::<_, OpError>("image")
        });
        let steps: Vec<_> = stream.collect().await;
        let (last, before) = steps.split_last().unwrap();
        assert_eq!(*last, Update::Done("image"));
        assert!(before.len() >= 3, "{before:?}");
        assert!(
            before
                .iter()
                .all(|s| matches!(s, Update::Progress(p) if p.total == Some(5)))
        );
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_given_up() {
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let stream = updates(|_| async move {
            let _held = held;
            std::future::pending::<Result<(), OpError>>().await
        });
        tokio::task::yield_now().await;
        drop(stream);
        assert!(gone.await.is_err());
    }

    #[tokio::test]
    async fn failures_and_panics_are_told() {
        let failing = updates(|_| async { Err::<(), _>(OpError::conflict("no")) });
        let steps: Vec<_> = failing.collect().await;
        let error = OpError::conflict("no").0;
        assert_eq!(steps, [Update::Error(error)]);
    }
}
