//! When a download that failed is tried again.

use std::time::Duration;

use super::tuning::Tuning;
use crate::error::Error;

/// Counts failures without progress, and pauses between them.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failures: u32,
    best: u64,
}

impl Retries {
    /// Waits before the next attempt, or gives up. `done` is how far the last one came.
    pub(super) async fn pause(
        &mut self,
        tuning: &Tuning,
        error: Error,
        after: Option<Duration>,
        done: u64,
    ) -> Result<(), Error> {
        match self.next_pause(tuning, after, done) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => Err(Error::GaveUp {
                attempts: self.failures,
                last: Box::new(error),
            }),
        }
    }

    fn next_pause(
        &mut self,
        tuning: &Tuning,
        after: Option<Duration>,
        done: u64,
    ) -> Option<Duration> {
        if done > self.best {
            self.best = done;
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures >= tuning.attempts {
            return None;
        }
        let doubled = tuning
            .backoff
            .saturating_mul(1 << (self.failures - 1).min(16));
        Some(
            doubled
                .min(tuning.max_backoff)
                .max(after.unwrap_or_default()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_progress_forgives() {
        let tuning = Tuning {
            attempts: 4,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(3),
            ..Tuning::default()
        };
        let mut retries = Retries::default();
        let mut pause = |after, done| {
            retries
                .next_pause(&tuning, after, done)
                .map(|pause| pause.as_secs())
        };
        assert_eq!(pause(None, 0), Some(1));
        assert_eq!(pause(Some(Duration::from_secs(60)), 0), Some(60));
        assert_eq!(pause(None, 10), Some(1));
        assert_eq!(pause(None, 10), Some(2));
        assert_eq!(pause(None, 9), Some(3));
        assert_eq!(pause(None, 10), None);
    }
}
