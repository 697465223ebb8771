//! Points in time, to the second.

use std::fmt;
use std::time::Duration;

use der::DateTime;

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// Now, by this machine's clock. Not for browsers: `std` has no clock there.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |duration| duration.as_secs()))
    }

    /// Reads RFC 3339 with `Z` or an offset, as `2026-01-31T12:00:00Z`; fractions of a second are
    /// dropped.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (date, rest) = (text.get(..19)?, bytes.get(19..)?);
        if !matches!(bytes[10], b'T' | b't' | b' ') {
            return None;
        }
        let local: DateTime = format!("{}T{}Z", date.get(..10)?, date.get(11..)?)
            .parse()
            .ok()?;
        let zone = match rest {
            [b'.', fraction @ ..] => {
                let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
                (digits > 0).then(|| &fraction[digits..])?
            }
            _ => rest,
        };
        let local = local.unix_duration().as_secs();
        match zone {
            b"Z" | b"z" => Some(Self(local)),
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let number = |a: &u8, b: &u8| {
                    (a.is_ascii_digit() && b.is_ascii_digit())
                        .then(|| u64::from(a - b'0') * 10 + u64::from(b - b'0'))
                };
                let (hours, minutes) = (number(h1, h2)?, number(m1, m2)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let offset = hours * 3600 + minutes * 60;
                if *sign == b'+' {
                    local.checked_sub(offset).map(Self)
                } else {
                    local.checked_add(offset).map(Self)
                }
            }
            _ => None,
        }
    }

    /// Seconds since `earlier`; zero where that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} s after 1970", self.0),
        }
    }
}

impl From<x509_cert::time::Time> for UnixTime {
    fn from(time: x509_cert::time::Time) -> Self {
        Self(time.to_unix_duration().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-31T12:00:00Z", Some(1_769_860_800)),
            ("2026-01-31t12:00:00.25z", Some(1_769_860_800)),
            ("2026-01-31 14:30:00+02:30", Some(1_769_860_800)),
            ("2026-01-31T11:00:00-01:00", Some(1_769_860_800)),
            ("2026-02-30T12:00:00Z", None),
            ("2026-01-31T25:00:00Z", None),
            ("2026-01-31T12:00:00", None),
            ("2026-01-31", None),
            ("2026-01-31T12:00:00.Z", None),
            ("2026-01-31T12:00:00+2:30", None),
            ("2026-01-31T12:00:00Zx", None),
            ("2026-01-31Ä12:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(
                UnixTime::from_rfc3339(text),
                expected.map(UnixTime),
                "{text}"
            );
        }
        assert_eq!(UnixTime(1_769_860_800).to_string(), "2026-01-31T12:00:00Z");
    }
}
