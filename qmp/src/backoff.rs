//! Connecting to a peer that is not there yet, or no longer.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::Qmp;
use crate::config::Config;
use crate::error::Error;
use crate::ring::Events;

/// How long to wait between attempts, and for how long to go on.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// Before the second attempt; doubled before each further one. 50 ms.
    pub first: Duration,
    /// The longest wait between two attempts. 2 s.
    pub max: Duration,
    /// No attempt starts later than this after the first. 30 s.
    pub give_up_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            max: Duration::from_secs(2),
            give_up_after: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The waits, without end.
    pub fn waits(&self) -> impl Iterator<Item = Duration> + use<> {
        let max = self.max;
        std::iter::successors(Some(self.first.min(max)), move |wait| {
            Some(wait.saturating_mul(2).min(max))
        })
    }
}

impl Qmp {
    /// [`Qmp::connect`], tried again while the error [is transient](Error::is_transient): the
    /// socket does not exist yet, its owner went away, or it serves another client. Returns the
    /// last error when `backoff` is used up.
    pub async fn connect_retrying(
        path: &Path,
        config: &Config,
        backoff: &Backoff,
    ) -> Result<(Self, Events), Error> {
        let start = Instant::now();
        let mut waits = backoff.waits();
        loop {
            let error = match Self::connect(path, config).await {
                Ok(connected) => return Ok(connected),
                Err(error) => error,
            };
            let wait = waits.next().unwrap_or(backoff.max);
            if !error.is_transient() || start.elapsed().saturating_add(wait) > backoff.give_up_after
            {
                return Err(error);
            }
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let waits = |first, max| -> Vec<u128> {
            let backoff = Backoff {
                first: Duration::from_millis(first),
                max: Duration::from_millis(max),
                ..Backoff::default()
            };
            backoff.waits().take(5).map(|w| w.as_millis()).collect()
        };
        assert_eq!(waits(50, 300), [50, 100, 200, 300, 300]);
        assert_eq!(waits(500, 300), [300; 5]);
    }
}
