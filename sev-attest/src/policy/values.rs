//! Values of policy files and flags.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor, value};

use crate::hex_bytes::HexBytes;
use crate::report::FirmwareVersion;
use crate::tcb::Tcb;

/// Least value of each component of a TCB; `None` asks for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcbMinimum {
    /// Firmware configuration (Turin only).
    pub fmc: Option<u8>,
    /// Boot loader.
    pub boot_loader: Option<u8>,
    /// TEE.
    pub tee: Option<u8>,
    /// SNP firmware.
    pub snp: Option<u8>,
    /// Microcode.
    pub microcode: Option<u8>,
}

impl TcbMinimum {
    /// Each component with its name, its minimum and its value in `tcb`.
    #[must_use]
    pub fn compared(&self, tcb: Tcb) -> [(&'static str, Option<u8>, Option<u8>); 5] {
        [
            ("fmc", self.fmc, tcb.fmc),
            ("boot_loader", self.boot_loader, Some(tcb.boot_loader)),
            ("tee", self.tee, Some(tcb.tee)),
            ("snp", self.snp, Some(tcb.snp)),
            ("microcode", self.microcode, Some(tcb.microcode)),
        ]
    }

    /// These minima, and those of `other` where there are none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            fmc: self.fmc.or(other.fmc),
            boot_loader: self.boot_loader.or(other.boot_loader),
            tee: self.tee.or(other.tee),
            snp: self.snp.or(other.snp),
            microcode: self.microcode.or(other.microcode),
        }
    }

    /// The minimum of the component of that name.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<u8> {
        match name {
            "fmc" => self.fmc,
            "boot_loader" => self.boot_loader,
            "tee" => self.tee,
            "snp" => self.snp,
            "microcode" => self.microcode,
            _ => None,
        }
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for TcbMinimum {
    type Err = String;

    /// `boot_loader=4,tee=0,snp=24,microcode=219`, each part once, in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut minimum = Self::default();
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .ok_or("expected boot_loader=4,tee=0,snp=24,microcode=219")?;
            let slot = match name.trim() {
                "fmc" => &mut minimum.fmc,
                "boot_loader" | "bootloader" | "bl" => &mut minimum.boot_loader,
                "tee" => &mut minimum.tee,
                "snp" => &mut minimum.snp,
                "microcode" | "ucode" => &mut minimum.microcode,
                other => return Err(format!("{other:?} is no component of a TCB")),
            };
            let value = value
                .trim()
                .parse()
                .map_err(|_| format!("{value:?} is not 0 to 255"))?;
            if slot.replace(value).is_some() {
                return Err(format!("{name:?} is given twice"));
            }
        }
        Ok(minimum)
    }
}

/// An ABI version, `1.55`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbiVersion {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for AbiVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.');
        let parts = parts.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (major, minor) = parts.ok_or("expected an ABI version, as 1.55")?;
        Ok(Self { major, minor })
    }
}

impl FromStr for FirmwareVersion {
    type Err = String;

    /// `1.55.29`: ABI major and minor version, build.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[major, minor, build]) => Ok(Self {
                major,
                minor,
                build,
            }),
            _ => Err("expected a firmware version with build, as 1.55.29".to_owned()),
        }
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let value = T::deserialize(value::StrDeserializer::new(text))?;
                Ok(OneOrMany(vec![value]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                let value = T::deserialize(value::I64Deserializer::new(number))?;
                Ok(OneOrMany(vec![value]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let value = T::deserialize(value::U64Deserializer::new(number))?;
                Ok(OneOrMany(vec![value]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                if values.is_empty() {
                    return Err(de::Error::custom(
                        "an empty list expects nothing: leave it out",
                    ));
                }
                Ok(OneOrMany(values))
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A chip id in hex: 64 bytes, or Turin's 8, which have zeros after them in a report.
///
/// # Errors
/// For anything else.
pub fn chip_id(text: &str) -> Result<HexBytes<64>, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match digits.len() {
        16 => format!("{digits}{}", "0".repeat(112)).parse(),
        _ => digits
            .parse()
            .map_err(|error| format!("{error}, or 16 of Turin's")),
    }
}
