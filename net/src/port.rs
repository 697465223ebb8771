//! Ports that are open from outside.

use std::{collections::BTreeSet, fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// Its number in the IPv6 "next header" field.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One open port, or a range of them: `22`, `443/tcp`, `53/udp`, `8000-8010/tcp`.
///
/// Without a protocol it is TCP; written out it always has one.
///
/// ```
/// let rule: net::PortRule = "22".parse()?;
/// assert_eq!(rule.to_string(), "22/tcp");
/// # Ok::<(), net::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRule {
    proto: Proto,
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortRule {
    /// One port.
    #[must_use]
    pub fn port(proto: Proto, port: NonZeroU16) -> Self {
        Self {
            proto,
            first: port,
            last: port,
        }
    }

    /// The ports from `first` to `last`, both included; `None` when they are the wrong way round.
    #[must_use]
    pub fn range(proto: Proto, first: NonZeroU16, last: NonZeroU16) -> Option<Self> {
        (first <= last).then_some(Self { proto, first, last })
    }

    /// The protocol.
    #[must_use]
    pub fn proto(self) -> Proto {
        self.proto
    }

    /// The first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first.get()
    }

    /// The last port; the first one, when it is alone.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last.get()
    }

    /// Whether it is one port alone.
    #[must_use]
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether it opens a port.
    #[must_use]
    pub fn opens(self, proto: Proto, port: u16) -> bool {
        self.proto == proto && (self.first()..=self.last()).contains(&port)
    }
}

impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            write!(f, "{}/{}", self.first, self.proto)
        } else {
            write!(f, "{}-{}/{}", self.first, self.last, self.proto)
        }
    }
}

impl FromStr for PortRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let no = |why| Error::NotAPort {
            text: text.chars().take(64).collect(),
            why,
        };
        let (ports, proto) = match text.split_once('/') {
            None => (text, Proto::Tcp),
            Some((ports, "tcp")) => (ports, Proto::Tcp),
            Some((ports, "udp")) => (ports, Proto::Udp),
            Some(_) => return Err(no("the protocol is neither tcp nor udp")),
        };
        let port = |digits: &str| {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(no("a port is a number"));
            }
            digits
                .parse()
                .map_err(|_| no("a port is between 1 and 65535"))
        };
        let Some((first, last)) = ports.split_once('-') else {
            return Ok(Self::port(proto, port(ports)?));
        };
        Self::range(proto, port(first)?, port(last)?)
            .ok_or_else(|| no("the range ends before it begins"))
    }
}

impl TryFrom<String> for PortRule {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<PortRule> for String {
    fn from(rule: PortRule) -> Self {
        rule.to_string()
    }
}

/// The same ports as rules that neither overlap nor touch.
pub(crate) fn disjoint(rules: &BTreeSet<PortRule>) -> BTreeSet<PortRule> {
    let mut merged: Vec<PortRule> = Vec::with_capacity(rules.len());
    // Ordered by protocol, then by the first port.
    for &rule in rules {
        match merged.last_mut() {
            Some(before)
                if before.proto == rule.proto
                    && rule.first() <= before.last().saturating_add(1) =>
            {
                before.last = before.last.max(rule.last);
            }
            _ => merged.push(rule),
        }
    }
    merged.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts() {
        for (text, expected) in [
            ("22", Some("22/tcp")),
            ("443/tcp", Some("443/tcp")),
            ("53/udp", Some("53/udp")),
            ("8000-8010/tcp", Some("8000-8010/tcp")),
            ("8000-8010", Some("8000-8010/tcp")),
            ("7-7/udp", Some("7/udp")),
            ("1", Some("1/tcp")),
            ("65535", Some("65535/tcp")),
            ("0", None),
            ("65536", None),
            ("", None),
            ("/tcp", None),
            ("22/", None),
            ("22/sctp", None),
            ("22/TCP", None),
            ("22/tcp/udp", None),
            ("-1", None),
            ("+22", None),
            (" 22", None),
            ("22 ", None),
            ("9-8", None),
            ("1-2-3", None),
            ("0-8", None),
            ("8-", None),
            ("99999999999999999999", None),
            ("٢٢", None),
        ] {
            let rule = text.parse::<PortRule>().map(|r| r.to_string()).ok();
            assert_eq!(rule.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_stays_short() {
        let error = "x"
            .repeat(10_000)
            .parse::<PortRule>()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("a port is a number") && error.len() < 300,
            "{error}"
        );
    }

    pub(crate) fn any_rule() -> impl Strategy<Value = PortRule> {
        (
            any::<bool>(),
            1u16..,
            prop_oneof![Just(0u16), 0u16..50, any::<u16>()],
        )
            .prop_map(|(tcp, first, more)| {
                let n = |p| NonZeroU16::new(p).unwrap();
                let proto = if tcp { Proto::Tcp } else { Proto::Udp };
                PortRule::range(proto, n(first), n(first.saturating_add(more))).unwrap()
            })
    }

    proptest! {
        #[test]
        fn text_and_json_come_back(rule in any_rule()) {
            prop_assert_eq!(rule.to_string().parse::<PortRule>().unwrap(), rule);
            let json = serde_json::to_string(&rule).unwrap();
            prop_assert_eq!(serde_json::from_str::<PortRule>(&json).unwrap(), rule);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,24}") {
            if let Ok(rule) = text.parse::<PortRule>() {
                prop_assert!(rule.first() > 0 && rule.first() <= rule.last());
            }
        }

        #[test]
        fn disjoint_rules_open_the_same_and_never_touch(
            rules in prop::collection::btree_set(any_rule(), 0..20),
            probes in prop::collection::vec(any::<u16>(), 50),
        ) {
            let merged: Vec<_> = disjoint(&rules).into_iter().collect();
            let edges = rules.iter().flat_map(|r| {
                [r.first(), r.last(), r.first() - 1, r.last().saturating_add(1)]
            });
            for port in probes.into_iter().chain(edges) {
                for proto in [Proto::Tcp, Proto::Udp] {
                    let open = |mut r: std::slice::Iter<'_, PortRule>| r.any(|r| r.opens(proto, port));
                    let all: Vec<_> = rules.iter().copied().collect();
                    prop_assert_eq!(open(all.iter()), open(merged.iter()));
                }
            }
            for pair in merged.windows(2) {
                prop_assert!(
                    pair[0].proto() != pair[1].proto()
                        || u32::from(pair[0].last()) + 1 < u32::from(pair[1].first())
                );
            }
        }
    }
}
