//! When to ask again, and when to stop: decided here, without a clock or a network.

use std::time::{Duration, SystemTime};

/// How often and for how long a request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Requests at most, the first included.
    pub attempts: u32,
    /// Wait before the second request, doubled for each one after it.
    pub first_wait: Duration,
    /// Longest wait chosen by back-off; what the server asks for is not cut to it.
    pub longest_wait: Duration,
    /// Time for everything that a client asks for, requests and the waits between them, from its
    /// first request on. A server that asks to wait for longer ends the attempts.
    pub total_time: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(16),
            total_time: Duration::from_secs(60),
        }
    }
}

/// What came of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status and, when the server said so, the wait that it asks for.
    Status(u16, Option<Duration>),
    /// No complete answer: connection refused or lost, time out, body cut short.
    Broken,
}

/// What to do after a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask again after this time.
    Wait(Duration),
    /// Asking again would give the same answer.
    Final,
    /// The attempts are used up.
    Exhausted,
    /// The server asks for a wait that the limit does not allow.
    TooLong(Duration),
}

impl RetryPolicy {
    /// What to do after request number `attempt` (from 1) ended with `outcome`, `elapsed` after the
    /// first one began. `jitter` in 0..=255 spreads the clients of a service that comes back:
    /// a back-off is between half and the whole of its step.
    #[must_use]
    pub fn next(&self, attempt: u32, outcome: Outcome, elapsed: Duration, jitter: u8) -> Next {
        let asked = match outcome {
            Outcome::Status(429 | 500 | 502 | 503 | 504, asked) => asked,
            Outcome::Status(..) => return Next::Final,
            Outcome::Broken => None,
        };
        if attempt >= self.attempts {
            return Next::Exhausted;
        }
        let left = self.total_time.saturating_sub(elapsed);
        if let Some(asked) = asked {
            return if asked > left {
                Next::TooLong(asked)
            } else {
                Next::Wait(asked)
            };
        }
        let doublings = attempt.saturating_sub(1).min(31);
        let step = self
            .first_wait
            .saturating_mul(1 << doublings)
            .min(self.longest_wait);
        let wait = step / 2 + step.mul_f64(f64::from(jitter) / 510.0);
        if wait > left {
            Next::Exhausted
        } else {
            Next::Wait(wait)
        }
    }
}

/// The wait that a `Retry-After` header asks for at `now`: seconds or an HTTP date (RFC 9110,
/// section 10.2.3). A date gone by asks for none; anything else is as if the header were absent.
#[must_use]
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // more digits than a u64 has is still a wait, and longer than any limit
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 4,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(3),
        total_time: Duration::from_secs(10),
    };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn waits_grow_to_a_limit_and_end() {
        let broken = |attempt, waited| POLICY.next(attempt, Outcome::Broken, waited, 255);
        assert_eq!(broken(1, seconds(0)), Next::Wait(seconds(1)));
        assert_eq!(broken(2, seconds(1)), Next::Wait(seconds(2)));
        assert_eq!(broken(3, seconds(3)), Next::Wait(seconds(3)));
        assert_eq!(broken(4, seconds(6)), Next::Exhausted);
        assert_eq!(broken(3, seconds(8)), Next::Exhausted);
        let half = POLICY.next(2, Outcome::Broken, seconds(0), 0);
        assert_eq!(half, Next::Wait(seconds(1)));
        // no overflow however long it has gone on
        let patient = RetryPolicy {
            attempts: u32::MAX,
            ..POLICY
        };
        assert_eq!(
            patient.next(4_000_000_000, Outcome::Broken, seconds(0), 255),
            Next::Wait(seconds(3))
        );
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        for status in [429, 500, 502, 503, 504] {
            let next = POLICY.next(1, Outcome::Status(status, None), seconds(0), 255);
            assert_eq!(next, Next::Wait(seconds(1)), "{status}");
        }
        for status in [301, 302, 400, 401, 403, 404, 410, 501] {
            let next = POLICY.next(1, Outcome::Status(status, None), seconds(0), 255);
            assert_eq!(next, Next::Final, "{status}");
        }
    }

    #[test]
    fn the_servers_wish_counts_up_to_the_limit() {
        let asked = |wait, waited| {
            let outcome = Outcome::Status(429, Some(seconds(wait)));
            POLICY.next(1, outcome, seconds(waited), 0)
        };
        assert_eq!(asked(0, 0), Next::Wait(seconds(0)));
        assert_eq!(asked(7, 0), Next::Wait(seconds(7)));
        assert_eq!(asked(10, 0), Next::Wait(seconds(10)));
        assert_eq!(asked(10, 1), Next::TooLong(seconds(10)));
        assert_eq!(asked(u64::MAX, 0), Next::TooLong(seconds(u64::MAX)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + seconds(784_111_777); // 1994-11-06 08:49:37
        for (value, expected) in [
            ("0", Some(seconds(0))),
            (" 120 ", Some(seconds(120))),
            ("99999999999999999999999", Some(seconds(u64::MAX))),
            ("Sun, 06 Nov 1994 08:49:57 GMT", Some(seconds(20))),
            ("Sun, 06 Nov 1994 08:49:17 GMT", Some(seconds(0))),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now), expected, "{value:?}");
        }
    }
}
