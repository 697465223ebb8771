//! The time that an event carries.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// When the peer says that something happened, by the host's wall clock. QEMU sends -1 in both
/// fields where it could not read the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Microseconds in the second.
    pub microseconds: i64,
}

impl Default for Timestamp {
    /// QEMU's value for "unknown".
    fn default() -> Self {
        Self {
            seconds: -1,
            microseconds: -1,
        }
    }
}

impl Timestamp {
    /// The time, unless unknown or malformed.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.seconds).ok()?;
        let micros = u32::try_from(self.microseconds)
            .ok()
            .filter(|&m| m < 1_000_000)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, micros * 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let at = |seconds, microseconds| {
            Timestamp {
                seconds,
                microseconds,
            }
            .to_system_time()
        };
        assert_eq!(
            at(1, 500_000),
            Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500))
        );
        assert_eq!(at(-1, -1), None);
        assert_eq!(at(1, 1_000_000), None);
        assert!(at(i64::MAX, 999_999).is_some());
    }
}
