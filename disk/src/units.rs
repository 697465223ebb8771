//! Sizes: bytes, MiB and GiB as types, so that no number changes its unit on the way.
//!
//! Units are binary: `20G` is 20 GiB, as in QEMU and `qemu-img`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size in bytes.
///
/// Displays in the largest unit that is exact ("20 GiB", "513 B") and parses the same, and also
/// `20G`, `512M`, `1.5G` is refused: sizes are exact. Serialised as a number of bytes;
/// deserialised from that or from a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// A size in MiB (2^20 bytes).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MiB(pub u32);

/// A size in GiB (2^30 bytes).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GiB(pub u32);

/// A size that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no size: expected a whole number and a unit, like 20G, 512M or 1 TiB")]
pub struct SizeError {
    text: String,
}

const UNITS: [(&str, u32); 6] = [
    ("EiB", 60),
    ("PiB", 50),
    ("TiB", 40),
    ("GiB", 30),
    ("MiB", 20),
    ("KiB", 10),
];

impl ByteSize {
    /// No bytes.
    pub const ZERO: ByteSize = ByteSize(0);

    /// `n` bytes.
    #[must_use]
    pub const fn from_bytes(n: u64) -> Self {
        ByteSize(n)
    }

    /// `n` MiB.
    #[must_use]
    pub const fn from_mib(n: u32) -> Self {
        ByteSize((n as u64) << 20)
    }

    /// `n` GiB.
    #[must_use]
    pub const fn from_gib(n: u32) -> Self {
        ByteSize((n as u64) << 30)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whole MiB, rounded up.
    #[must_use]
    pub const fn mib_ceil(self) -> u64 {
        self.0.div_ceil(1 << 20)
    }

    /// Sum, unless it overflows.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(n) => Some(ByteSize(n)),
            None => None,
        }
    }

    /// Difference, unless it is negative.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(n) => Some(ByteSize(n)),
            None => None,
        }
    }

    /// Product, unless it overflows.
    #[must_use]
    pub const fn checked_mul(self, n: u64) -> Option<Self> {
        match self.0.checked_mul(n) {
            Some(n) => Some(ByteSize(n)),
            None => None,
        }
    }

    /// Sum, at most the largest size.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        ByteSize(self.0.saturating_add(other.0))
    }

    /// Difference, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        ByteSize(self.0.saturating_sub(other.0))
    }
}

impl From<MiB> for ByteSize {
    fn from(n: MiB) -> Self {
        ByteSize::from_mib(n.0)
    }
}

impl From<GiB> for ByteSize {
    fn from(n: GiB) -> Self {
        ByteSize::from_gib(n.0)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

impl fmt::Display for GiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GiB", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError {
            text: text.chars().take(64).collect(),
        };
        let text = text.trim();
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: u64 = digits.parse().map_err(|_| error())?;
        let unit = unit.trim_start();
        let shift = if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
            0
        } else {
            UNITS
                .iter()
                .find(|(name, _)| {
                    unit.eq_ignore_ascii_case(name)
                        || name
                            .get(..1)
                            .is_some_and(|letter| unit.eq_ignore_ascii_case(letter))
                })
                .map(|&(_, shift)| shift)
                .ok_or_else(error)?
        };
        1_u64
            .checked_shl(shift)
            .and_then(|u| number.checked_mul(u))
            .map(ByteSize)
            .ok_or_else(error)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes or a size like \"20G\"")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(n))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<ByteSize, E> {
                u64::try_from(n)
                    .map(ByteSize)
                    .map_err(|_| E::custom("a size is not negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_what_people_write() {
        for (text, bytes) in [
            ("20G", Some(20 << 30)),
            ("20 GiB", Some(20 << 30)),
            ("20gib", Some(20 << 30)),
            ("512m", Some(512 << 20)),
            (" 1 TiB ", Some(1 << 40)),
            ("4096", Some(4096)),
            ("4096 B", Some(4096)),
            ("15E", Some(15 << 60)),
            ("16E", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("G", None),
            ("-1G", None),
            ("+1G", None),
            ("1.5G", None),
            ("1GB", None),
            ("1 G iB", None),
            ("0x10", None),
            ("٣G", None),
        ] {
            assert_eq!(
                text.parse::<ByteSize>().ok().map(ByteSize::bytes),
                bytes,
                "{text:?}"
            );
        }
    }

    #[test]
    fn serde_takes_numbers_and_strings() {
        let sizes: Vec<ByteSize> = serde_json::from_str(r#"[512, "20G"]"#).unwrap();
        assert_eq!(sizes, [ByteSize::from_bytes(512), ByteSize::from_gib(20)]);
        assert_eq!(serde_json::to_string(&sizes).unwrap(), "[512,21474836480]");
        for bad in ["-1", "1.5", "\"1.5G\"", "null", "[]"] {
            assert!(serde_json::from_str::<ByteSize>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(n: u64, shift in 0_u32..64) {
            let size = ByteSize::from_bytes(n >> shift << shift);
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<ByteSize>();
        }
    }
}
