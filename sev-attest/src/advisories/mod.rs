//! AMD's security bulletins, and what they mean for a report.
//!
//! A [`Table`] says for each bulletin and silicon which numbers and bits of a report tell that a
//! fault is fixed. [`Table::assess`] holds a report against it. The built-in table is dated and
//! names the source of each row; a table in a file of the same form can take its place.

mod assess;
mod list;
mod signature;

use std::str::FromStr;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{self, Deserializer};

pub use assess::{Assessment, Attested, Standing};
pub use signature::{SignatureFailure, Signer};

use crate::product::Silicon;

/// Longest table that is read, in bytes.
pub const MAX_TABLE: usize = 1 << 20;

static BUILT_IN: LazyLock<Table> = LazyLock::new(|| {
    // A test reads it: an empty table stands for one that can't be read, and is never released.
    Table::from_toml(include_str!("table.toml"))
        .map(|table| table.signed_by(Signer::BuiltIn))
        .unwrap_or_default()
});

/// A day, as `2026-02-10`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Date(String);

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let midnight = crate::time::UnixTime::from_rfc3339(&format!("{text}T00:00:00Z"));
        match (text.len(), midnight) {
            (10, Some(_)) => Ok(Self(text.to_owned())),
            _ => Err(format!("{text:?} is no date: expected one as 2026-02-10")),
        }
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A table of bulletins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Table {
    /// Who made it, by his own word.
    pub issuer: String,
    /// When it was made.
    pub date: Date,
    /// The bulletins.
    #[serde(rename = "advisory", default)]
    pub advisories: Vec<Advisory>,
    /// Who signed it.
    #[serde(skip)]
    pub signer: Signer,
}

/// A bulletin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Advisory {
    /// AMD's name of it, as `AMD-SB-3019`.
    pub bulletin: String,
    /// The attack's name, where it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// When it was published.
    pub date: Date,
    /// The CVEs.
    pub cves: Vec<String>,
    /// What the attacker gets.
    pub gives: String,
    /// Where the numbers are from.
    pub source: String,
    /// What it means on which silicon.
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

/// What a bulletin means on some silicon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Row {
    /// The silicon.
    pub silicon: Vec<Silicon>,
    /// Least FMC.
    #[serde(default)]
    pub fmc: Option<u8>,
    /// Least boot loader.
    #[serde(default)]
    pub boot_loader: Option<u8>,
    /// Least TEE.
    #[serde(default)]
    pub tee: Option<u8>,
    /// Least SNP firmware.
    #[serde(default)]
    pub snp: Option<u8>,
    /// Least microcode.
    #[serde(default)]
    pub microcode: Option<u8>,
    /// The bit of the mitigation vectors that must be set.
    #[serde(default)]
    pub mitigation: Option<u8>,
    /// The platform's alias check must be complete.
    #[serde(default)]
    pub alias_check_complete: bool,
    /// The platform's IOMMU must be write safe.
    #[serde(default)]
    pub iommu_write_safe: bool,
    /// The platform must hide ciphertexts.
    #[serde(default)]
    pub ciphertext_hiding: bool,
    /// SMT that is off fixes it too.
    #[serde(default)]
    pub or_smt_off: bool,
    /// What the row is worth.
    pub status: RowStatus,
    /// How sure the numbers are.
    pub confidence: Confidence,
    /// What else there is to say.
    #[serde(default)]
    pub note: Option<String>,
}

impl Row {
    /// The least value of each component, by its name in policy files.
    #[must_use]
    pub fn minima(&self) -> [(&'static str, Option<u8>); 5] {
        [
            ("fmc", self.fmc),
            ("boot_loader", self.boot_loader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("microcode", self.microcode),
        ]
    }

    fn says_something(&self) -> bool {
        self.minima().iter().any(|(_, minimum)| minimum.is_some())
            || self.mitigation.is_some()
            || self.alias_check_complete
            || self.iommu_write_safe
            || self.ciphertext_hiding
    }
}

/// What a row is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum RowStatus {
    /// Its numbers tell.
    #[serde(rename = "active")]
    Active,
    /// No report shows whether the fault is fixed, or no number was published.
    #[serde(rename = "not attestable")]
    NotAttestable,
    /// AMD took the numbers back.
    #[serde(rename = "withdrawn")]
    Withdrawn,
    /// Sources contradict each other.
    #[serde(rename = "disputed")]
    Disputed,
    /// There is no fix.
    #[serde(rename = "no fix")]
    NoFix,
}

impl RowStatus {
    /// The name, as in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NotAttestable => "not attestable",
            Self::Withdrawn => "withdrawn",
            Self::Disputed => "disputed",
            Self::NoFix => "no fix",
        }
    }
}

/// How sure a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Confidence {
    /// Written by AMD.
    #[serde(rename = "amd")]
    Amd,
    /// Quoted by two or more.
    #[serde(rename = "two quotes")]
    TwoQuotes,
    /// Quoted by one.
    #[serde(rename = "one quote")]
    OneQuote,
    /// Conflicting or inferred.
    #[serde(rename = "unclear")]
    Unclear,
}

impl Confidence {
    /// The name, as in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::TwoQuotes => "two quotes",
            Self::OneQuote => "one quote",
            Self::Unclear => "unclear",
        }
    }
}

/// Why a table was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Too long.
    #[error("longer than {MAX_TABLE} bytes")]
    TooLong,
    /// Not TOML, an unknown key, or a value that does not fit.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A row that would be fixed on every platform.
    #[error("{bulletin}: an active row names neither a least version nor a bit")]
    Empty {
        /// The bulletin.
        bulletin: String,
    },
    /// A mitigation bit that no vector has.
    #[error("{bulletin}: a mitigation vector has bits 0 to 63, not {bit}")]
    Bit {
        /// The bulletin.
        bulletin: String,
        /// The bit.
        bit: u8,
    },
}

impl Table {
    /// The table that is part of the program.
    #[must_use]
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// Reads a table. Unknown keys are refused, and active rows that ask for nothing.
    ///
    /// # Errors
    /// For anything but a table, with line and column.
    pub fn from_toml(text: &str) -> Result<Self, TableError> {
        if text.len() > MAX_TABLE {
            return Err(TableError::TooLong);
        }
        let table: Self = toml::from_str(text)?;
        for advisory in &table.advisories {
            let bulletin = || advisory.bulletin.clone();
            for row in &advisory.rows {
                if row.status == RowStatus::Active && !row.says_something() {
                    return Err(TableError::Empty {
                        bulletin: bulletin(),
                    });
                }
                if let Some(bit) = row.mitigation.filter(|bit| *bit > 63) {
                    return Err(TableError::Bit {
                        bulletin: bulletin(),
                        bit,
                    });
                }
            }
        }
        Ok(table)
    }

    /// The same table, signed by somebody.
    #[must_use]
    pub fn signed_by(mut self, signer: Signer) -> Self {
        self.signer = signer;
        self
    }

    /// Whose table this is, in words.
    #[must_use]
    pub fn whose(&self) -> String {
        let Self {
            issuer,
            date,
            signer,
            ..
        } = self;
        match signer {
            Signer::BuiltIn => format!("the built-in table of {date}"),
            Signer::Nobody => format!("a table of {issuer}, {date}, signed by nobody"),
            Signer::Key(digest) => {
                let key = hex::encode(digest);
                format!("a table of {issuer}, {date}, signed by the key {key}")
            }
        }
    }

    /// The bulletin of that name, with or without `AMD-` or `AMD-SB-` before it; or of that CVE or
    /// attack.
    pub fn find<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Advisory> {
        let name = name.to_ascii_uppercase();
        let number = name
            .trim_start_matches("AMD-")
            .trim_start_matches("SB-")
            .to_owned();
        self.advisories.iter().filter(move |advisory| {
            advisory.bulletin.trim_start_matches("AMD-SB-") == number
                || advisory.cves.contains(&name)
                || advisory
                    .name
                    .as_ref()
                    .is_some_and(|it| it.to_ascii_uppercase() == name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_is_read_and_sound() {
        let table = Table::from_toml(include_str!("table.toml")).unwrap();
        assert!(table.advisories.len() > 20);
        assert_eq!(Table::built_in().advisories, table.advisories);
        let mut seen = Vec::new();
        for advisory in &table.advisories {
            assert!(advisory.date <= table.date, "{}", advisory.bulletin);
            assert!(!advisory.rows.is_empty() && !advisory.source.is_empty());
            for row in &advisory.rows {
                for silicon in &row.silicon {
                    let key = (advisory.bulletin.clone(), *silicon);
                    assert!(!seen.contains(&key), "twice: {key:?}");
                    seen.push(key);
                }
                let told = row.status != RowStatus::Active;
                assert!(!told || row.note.is_some(), "{}: why?", advisory.bulletin);
            }
        }
        assert_eq!(table.find("3019").count(), 1);
        assert_eq!(table.find("amd-sb-3019").count(), 1);
        assert_eq!(table.find("CVE-2024-56161").count(), 1);
        assert_eq!(table.find("badram").count(), 1);
        assert_eq!(table.find("9999").count(), 0);
    }

    #[test]
    fn slips_in_a_table_are_refused() {
        let head = "issuer = \"x\"\ndate = \"2026-01-01\"\n";
        let advisory = "[[advisory]]\nbulletin = \"X-1\"\ndate = \"2026-01-01\"\ncves = []\n\
                        gives = \"\"\nsource = \"\"\n[[advisory.row]]\nconfidence = \"amd\"\n";
        for (rest, expected) in [
            (
                "silicon = [\"Milan\"]\nstatus = \"active\"",
                "neither a least version",
            ),
            (
                "silicon = [\"Milan\"]\nstatus = \"active\"\nmitigation = 64",
                "0 to 63",
            ),
            ("silicon = [\"Rome\"]\nstatus = \"active\"\nsnp = 1", "Rome"),
            (
                "silicon = [\"Milan\"]\nstatus = \"fixed\"\nsnp = 1",
                "fixed",
            ),
            (
                "silicon = [\"Milan\"]\nstatus = \"active\"\nsnp = 1\nsmp = 2",
                "smp",
            ),
            (
                "silicon = [\"Milan\"]\nstatus = \"active\"\nsnp = 256",
                "256",
            ),
        ] {
            let text = format!("{head}{advisory}{rest}\n");
            let error = Table::from_toml(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{rest}: {error}");
        }
        assert!(Table::from_toml("issuer = \"x\"\ndate = \"soon\"\n").is_err());
        assert!(Table::from_toml(&format!("{head}{}", " ".repeat(MAX_TABLE))).is_err());
        for text in ["2026-02-10", "2025-12-31"] {
            assert_eq!(text.parse::<Date>().unwrap().to_string(), text);
        }
        for text in [
            "2026-13-01",
            "2026-1-1",
            "today",
            "2026-02-10T00:00:00Z",
            "",
        ] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }
}
