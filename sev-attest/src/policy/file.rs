//! Policy files: TOML, strict.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::values::{AbiVersion, OneOrMany};
use super::{
    AdvisoryRules, FirmwareRules, FloorSet, Floors, GuestPolicyRules, MitigationRules,
    PlatformRules, Policy, RequireAdvisories, TcbMinimum, TcbRules,
};
use crate::hex_bytes::HexBytes;
use crate::product::{Product, Silicon};
use crate::report::SigningKey;

/// Longest policy file that is read, in bytes. `measure` writes some 130 for each digest.
pub(super) const MAX_POLICY: usize = 4 << 20;

/// A policy file with every key and its default, for `sev-attest policy init`.
pub const TEMPLATE: &str = include_str!("template.toml");

/// Why a policy file was refused; with line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Too long.
    #[error("longer than {MAX_POLICY} bytes")]
    TooLong,
    /// Not TOML, an unknown key, or a value that does not fit.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// `require_advisories` is no date.
    #[error("require_advisories: {0}")]
    Date(String),
}

impl Policy {
    /// Reads a policy file. Unknown keys are refused: an expectation with a slip in its name must
    /// not go unchecked.
    ///
    /// # Errors
    /// For anything but a policy, with line and column.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY {
            return Err(PolicyError::TooLong);
        }
        let file = toml::from_str::<File>(text)?;
        let require = match &file.require_advisories {
            None | Some(Require::All(false)) => RequireAdvisories::None,
            Some(Require::All(true)) => RequireAdvisories::All,
            Some(Require::Until(day)) => day.parse().map_err(PolicyError::Date)?,
        };
        let mut policy = Self::from(file);
        policy.advisories.require = require;
        Ok(policy)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    measurement: OneOrMany<HexBytes<48>>,
    any_guest: bool,
    report_data: Option<HexBytes<64>>,
    any_time: bool,
    host_data: OneOrMany<Pin<32>>,
    family_id: Option<Pin<16>>,
    image_id: Option<Pin<16>>,
    id_key_digest: OneOrMany<Pin<48>>,
    author_key_digest: OneOrMany<Pin<48>>,
    vmpl: OneOrMany<Vmpl>,
    min_guest_svn: Option<u32>,
    signing_key: Option<Text<Key>>,
    csp_id: OneOrMany<String>,
    product: OneOrMany<Text<ProductName>>,
    chip_id: OneOrMany<Text<Chip>>,
    allow_masked_chip_id: bool,
    max_certificate_age_days: Option<u32>,
    require_crl: bool,
    guest_policy: GuestPolicyFile,
    platform: PlatformRules,
    allow_unknown_bits: bool,
    tcb: TcbRules,
    floor_set: Option<FloorSet>,
    floor: BTreeMap<FloorKey, TcbMinimum>,
    require_advisories: Option<Require>,
    firmware: FirmwareFile,
    mitigations: MitigationRules,
}

/// Bytes in hex, or `none` for zeros.
#[derive(Debug)]
struct Pin<const N: usize>(HexBytes<N>);

impl<'de, const N: usize> Deserialize<'de> for Pin<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HexBytes::or_none(&text)
            .map(Self)
            .map_err(de::Error::custom)
    }
}

fn pins<const N: usize>(pins: OneOrMany<Pin<N>>) -> Vec<HexBytes<N>> {
    pins.0.into_iter().map(|pin| pin.0).collect()
}

/// A silicon as the key of a table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
struct FloorKey(Silicon);

/// `true`, or a day.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Require {
    All(bool),
    Until(String),
}

/// A guest's VMPL.
#[derive(Debug)]
struct Vmpl(u32);

impl<'de> Deserialize<'de> for Vmpl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            vmpl @ 0..=3 => Ok(Self(vmpl)),
            other => Err(de::Error::custom(format!("VMPL {other} is none of 0 to 3"))),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GuestPolicyFile {
    debug: Bit,
    migration_agent: Bit,
    smt: Bit,
    single_socket: Bit,
    cxl: Bit,
    mem_aes_256_xts: Bit,
    rapl_disabled: Bit,
    ciphertext_hiding: Bit,
    page_swap_disabled: Bit,
    min_abi: Option<Text<AbiVersion>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FirmwareFile {
    min_current: Option<Text<crate::report::FirmwareVersion>>,
    min_committed: Option<Text<crate::report::FirmwareVersion>>,
    allow_provisional: bool,
}

/// `true`, `false` or `"any"`.
#[derive(Debug, Default, Clone, Copy)]
enum Bit {
    /// Not in the file.
    #[default]
    Default,
    Any,
    Is(bool),
}

impl Bit {
    fn or(self, default: Option<bool>) -> Option<bool> {
        match self {
            Self::Default => default,
            Self::Any => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<'de> Deserialize<'de> for Bit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BitVisitor;

        impl Visitor<'_> for BitVisitor {
            type Value = Bit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"any\"")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Bit, E> {
                Ok(Bit::Is(value))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bit, E> {
                match text {
                    "any" => Ok(Bit::Any),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(BitVisitor)
    }
}

/// A value written as text.
#[derive(Debug, Clone)]
struct Text<T>(T);

impl<'de, T: FromStr<Err = String>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

#[derive(Debug, Clone)]
struct Key(SigningKey);

impl FromStr for Key {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        SigningKey::from_name(text)
            .map(Self)
            .ok_or_else(|| "expected \"VCEK\" or \"VLEK\"".to_owned())
    }
}

#[derive(Debug, Clone)]
struct Chip(HexBytes<64>);

impl FromStr for Chip {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        super::chip_id(text).map(Self)
    }
}

#[derive(Debug, Clone)]
struct ProductName(Product);

impl FromStr for ProductName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Product::from_name(text)
            .map(Self)
            .ok_or_else(|| "expected \"Milan\", \"Genoa\" or \"Turin\"".to_owned())
    }
}

impl From<File> for Policy {
    fn from(file: File) -> Self {
        let default = Self::default();
        let bits = file.guest_policy;
        let default_bits = GuestPolicyRules::default();
        Self {
            measurement: file.measurement.0,
            any_guest: file.any_guest,
            report_data: file.report_data,
            any_time: file.any_time,
            host_data: pins(file.host_data),
            family_id: file.family_id.map(|pin| pin.0),
            image_id: file.image_id.map(|pin| pin.0),
            id_key_digest: pins(file.id_key_digest),
            author_key_digest: pins(file.author_key_digest),
            vmpl: match file.vmpl.0.as_slice() {
                [] => default.vmpl,
                some => some.iter().map(|vmpl| vmpl.0).collect(),
            },
            min_guest_svn: file.min_guest_svn,
            guest_policy: GuestPolicyRules {
                debug: bits.debug.or(default_bits.debug),
                migration_agent: bits.migration_agent.or(default_bits.migration_agent),
                smt: bits.smt.or(None),
                single_socket: bits.single_socket.or(None),
                cxl: bits.cxl.or(None),
                mem_aes_256_xts: bits.mem_aes_256_xts.or(None),
                rapl_disabled: bits.rapl_disabled.or(None),
                ciphertext_hiding: bits.ciphertext_hiding.or(None),
                page_swap_disabled: bits.page_swap_disabled.or(None),
                min_abi: bits.min_abi.map(|text| text.0),
            },
            platform: file.platform,
            allow_unknown_bits: file.allow_unknown_bits,
            tcb: file.tcb,
            floors: {
                let own = file.floor.into_iter().map(|(key, floor)| (key.0, floor));
                let set = file.floor_set.map(FloorSet::floors).unwrap_or_default();
                Floors(own.collect()).or(set)
            },
            advisories: AdvisoryRules::default(),
            firmware: FirmwareRules {
                min_current: file.firmware.min_current.map(|text| text.0),
                min_committed: file.firmware.min_committed.map(|text| text.0),
                allow_provisional: file.firmware.allow_provisional,
            },
            mitigations: file.mitigations,
            chip_id: file.chip_id.0.into_iter().map(|chip| chip.0.0).collect(),
            allow_masked_chip_id: file.allow_masked_chip_id,
            signing_key: file.signing_key.map(|text| text.0.0),
            csp_id: file.csp_id.0,
            product: file.product.0.into_iter().map(|text| text.0.0).collect(),
            max_certificate_age: file
                .max_certificate_age_days
                .map(|days| Duration::from_secs(u64::from(days) * 86_400)),
            require_crl: file.require_crl,
            allow_foreign_root: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_is_the_default() {
        assert_eq!(Policy::from_toml(TEMPLATE).unwrap(), Policy::default());
        assert_eq!(Policy::from_toml("").unwrap(), Policy::default());
    }

    /// Each commented-out key of the template is a valid one.
    #[test]
    fn template_examples_are_valid() {
        let text: String = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix("#") {
                Some(example) if example.contains(" = ") && !example.starts_with(' ') => example,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let policy = Policy::from_toml(&text).unwrap();
        assert_ne!(policy, Policy::default());
        assert!(!policy.measurement.is_empty() && !policy.tcb.committed.is_empty());
    }

    #[test]
    fn slips_are_refused_with_their_line() {
        for (text, expected) in [
            ("vmpl = 0\nmeasurements = []", "line 2"),
            ("measurement = \"00\"", "expected 96 hexadecimal digits"),
            ("measurement = []", "empty list"),
            ("[guest_policy]\ndebug = 1", "line 2"),
            ("[guest_policy]\ndebug = \"maybe\"", "any"),
            ("[tcb.reported]\nsnp = 256", "line 2"),
            ("[tcb.reported]\nbootloader = 1", "boot_loader"),
            ("vmpl = 4", "VMPL 4"),
            ("product = \"Rome\"", "Milan"),
            ("allow_foreign_root = true", "unknown field"),
            ("[firmware]\nmin_current = \"1.55\"", "1.55.29"),
            ("chip_id = \"zz\"", "hexadecimal"),
            ("measurement = \"none\"", "hexadecimal"),
            ("floor_set = \"strictest\"", "recommended"),
            ("[floor.Rome]\nsnp = 1", "Milan-X"),
            ("[floor.Milan]\nsmp = 1", "smp"),
            ("require_advisories = \"soon\"", "no date"),
        ] {
            let error = Policy::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
