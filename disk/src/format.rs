//! The formats of images and disks.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Format of an image or disk. QEMU is always told which; nothing is guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// A plain disk: byte n of the file is byte n of the disk.
    Raw,
}

/// A word that is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no image format: qcow2 and raw are known")]
pub struct FormatError(String);

impl Format {
    /// The format's name as QEMU spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "qcow2" => Ok(Format::Qcow2),
            "raw" => Ok(Format::Raw),
            other => Err(FormatError(other.chars().take(32).collect())),
        }
    }
}
