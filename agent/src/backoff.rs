//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// Pauses that double from one attempt to the next, up to a longest.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// However often it failed.
    pub longest: Duration,
}

impl Backoff {
    /// From `first` to `longest` seconds.
    #[must_use]
    pub const fn seconds(first: u64, longest: u64) -> Self {
        Self {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
        }
    }

    /// The pause after so many failures in a row, from 1.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1));
        let pause = factor.and_then(|f| self.first.checked_mul(f));
        pause.map_or(self.longest, |p| p.min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (backoff, pauses) in [
            (Backoff::seconds(1, 300), [1, 2, 4, 128, 256, 300, 300, 300]),
            (
                Backoff::seconds(5, 600),
                [5, 10, 20, 600, 600, 600, 600, 600],
            ),
            (Backoff::seconds(3, 3), [3; 8]),
        ] {
            let failures = [1, 2, 3, 8, 9, 10, 33, u32::MAX];
            let found = failures.map(|n| backoff.after(n).as_secs());
            assert_eq!(found, pauses, "{backoff:?}");
        }
        assert_eq!(Backoff::seconds(5, 600).after(0).as_secs(), 5);
    }
}
