//! Names and numbers that identify things, parsed once where input enters.
//!
//! Invariant: a value of one of these types is safe to use in a file name, a
//! command line and a log line; nothing downstream checks it again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name or an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 lower-case hexadecimal digits.
    #[error("{0:?} is not an instance id (64 lower-case hexadecimal digits)")]
    InstanceId(String),
    /// A name that would be taken for the beginning of an id.
    #[error("{0:?} is not a name: six or more hexadecimal digits alone look like an id")]
    LooksLikeId(String),
    /// Not usable as a name.
    #[error(
        "{0:?} is not a name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    Name(String),
}

/// An instance's identity: 64 hexadecimal digits, the form of a message's item hash,
/// so that an instance asked for by a message keeps the message's own name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

impl InstanceId {
    /// A fresh random identity for an instance that no message asked for.
    ///
    /// # Errors
    /// When the kernel's random source cannot be read.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex::encode(bytes)))
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 16 digits: names of run files, unique among a node's instances
    /// (the database sees to it). Unix socket paths are limited to 107 bytes.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..16).unwrap_or(&self.0)
    }

    /// The hostname that the network's guests have when nobody named them:
    /// base32 (RFC 4648, lower case, no padding) of the 32 bytes.
    #[must_use]
    pub fn hostname(&self) -> String {
        let bytes = hex::decode(&self.0).unwrap_or_default();
        data_encoding::BASE32_NOPAD
            .encode(&bytes)
            .to_ascii_lowercase()
    }
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let ok = s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if ok {
            Ok(Self(s.to_owned()))
        } else {
            Err(IdError::InstanceId(clip(s)))
        }
    }
}

impl TryFrom<String> for InstanceId {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// Fewer digits of an id name nothing.
pub const MIN_PREFIX: usize = 6;

/// A name that a person gave to an instance or a volume: an RFC 1123 label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// A name for something new: also none that could be taken for the digits of
    /// something else's id. Older records may have such names.
    ///
    /// # Errors
    /// [`IdError`].
    pub fn of_new(text: &str) -> Result<Self, IdError> {
        let name: Self = text.parse()?;
        let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
        if digits && text.len() >= MIN_PREFIX {
            return Err(IdError::LooksLikeId(clip(text)));
        }
        Ok(name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let ok = (1..=63).contains(&s.len())
            && s.bytes().all(inner)
            && !s.starts_with('-')
            && !s.ends_with('-');
        if ok {
            Ok(Self(s.to_owned()))
        } else {
            Err(IdError::Name(clip(s)))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// At most 80 characters of foreign text, for an error message.
pub(crate) fn clip(s: &str) -> String {
    let mut out: String = s.chars().take(80).collect();
    if out.len() < s.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for good in ["a", "web-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "../x",
            "a\n",
            "ä",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn new_names_are_no_digits_of_an_id() {
        for good in ["abcde", "abcdefg", "2026-11-28", "12345", "deadbeef-"] {
            assert_eq!(Name::of_new(good).is_ok(), good.parse::<Name>().is_ok());
        }
        for bad in ["abcdef", "123456", "0123456789abcdef", &"a".repeat(63)] {
            assert!(bad.parse::<Name>().is_ok(), "{bad}: older records have it");
            assert_eq!(Name::of_new(bad), Err(IdError::LooksLikeId(bad.into())));
        }
    }

    #[test]
    fn hostname_is_the_base32_of_the_id() {
        // RFC 4648, section 10: "fooba" is MZXW6YTB.
        let id: InstanceId = format!("{}{}", hex::encode("fooba"), "00".repeat(27))
            .parse()
            .unwrap();
        assert!(id.hostname().starts_with("mzxw6ytb"));
        assert_eq!(id.hostname().len(), 52);
    }

    #[test]
    fn ids_are_64_lower_case_digits() {
        assert!("a".repeat(64).parse::<InstanceId>().is_ok());
        for bad in [
            "A".repeat(64),
            "a".repeat(63),
            format!("{}/", "a".repeat(63)),
        ] {
            assert!(bad.parse::<InstanceId>().is_err());
        }
    }
}
