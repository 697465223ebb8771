//! Report data on the command line: digits, a nonce, or a file.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::input::{self, CliError};
use crate::formats::MAX_INPUT;
use crate::hex_bytes::HexBytes;

/// Shortest nonce that is accepted, in bytes.
const MIN_NONCE: usize = 8;

/// What the report data is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// These bytes.
    Bytes(HexBytes<64>),
    /// The bytes of a file, `least` at least, with zeros after them.
    File { path: PathBuf, least: usize },
}

impl Given {
    /// The bytes, read where they are in a file.
    pub(super) fn bytes(&self) -> Result<HexBytes<64>, CliError> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::File { path, least } => {
                let bytes = input::read(path, MAX_INPUT)?;
                padded(&bytes, *least).ok_or_else(|| {
                    let wanted = match *least {
                        64 => "64 bytes".to_owned(),
                        least => format!("{least} to 64 bytes"),
                    };
                    let (name, len) = (input::name(path), bytes.len());
                    CliError::Usage(format!("{name}: expected {wanted}, not {len}"))
                })
            }
        }
    }
}

/// 64 bytes in hex, or a file of 64 bytes after an `@`.
pub(super) fn report_data(text: &str) -> Result<Given, String> {
    match text.strip_prefix('@') {
        Some(path) => Ok(Given::File {
            path: path.into(),
            least: 64,
        }),
        None => {
            let bytes = text.parse().map_err(or_file)?;
            Ok(Given::Bytes(bytes))
        }
    }
}

/// A nonce in hex, or a file with one after an `@`.
pub(super) fn nonce(text: &str) -> Result<Given, String> {
    if let Some(path) = text.strip_prefix('@') {
        return Ok(Given::File {
            path: path.into(),
            least: MIN_NONCE,
        });
    }
    let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text))
        .map_err(|_| or_file("expected hexadecimal digits, two for each byte".to_owned()))?;
    let data = padded(&bytes, MIN_NONCE).ok_or_else(|| {
        let len = bytes.len();
        format!("a nonce has {MIN_NONCE} to 64 bytes, not {len}")
    })?;
    Ok(Given::Bytes(data))
}

fn or_file(error: String) -> String {
    format!("{error}; or a file of the bytes themselves, as @FILE")
}

/// With zeros after them; `None` where there are too few or too many.
fn padded(bytes: &[u8], least: usize) -> Option<HexBytes<64>> {
    let mut data = [0; 64];
    if bytes.len() < least {
        return None;
    }
    data.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(HexBytes(data))
}

/// How a file becomes report data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Hash {
    /// The bytes themselves, 64 at most
    None,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// The report data that `path` stands for.
    pub(super) fn of_file(self, path: &Path) -> Result<HexBytes<64>, CliError> {
        let bytes = input::read(path, MAX_INPUT)?;
        let hash = match self {
            Self::None => {
                let path = path.to_owned();
                return Given::File {
                    path,
                    least: MIN_NONCE,
                }
                .bytes();
            }
            Self::Sha256 => Sha256::digest(&bytes).to_vec(),
            Self::Sha384 => Sha384::digest(&bytes).to_vec(),
            Self::Sha512 => Sha512::digest(&bytes).to_vec(),
        };
        // no hash is longer
        Ok(padded(&hash, 0).unwrap_or(HexBytes([0; 64])))
    }

    /// What to say where the hash of `path` is not the report data, but its bytes are.
    pub(super) fn hint(self, path: &Path, report_data: &[u8; 64]) -> Option<String> {
        // standard input is gone
        if self == Self::None || path.as_os_str() == "-" {
            return None;
        }
        let bytes = input::read(path, 64).ok()?;
        let same = padded(&bytes, MIN_NONCE)?.0 == *report_data;
        let name = path.display();
        same.then(|| {
            format!(
                "{name} is the report data itself, not something that was hashed: \
                 --nonce @{name}, or --report-data-hash none"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_files() {
        let file = |least| Given::File {
            path: "a b.bin".into(),
            least,
        };
        assert_eq!(report_data("@a b.bin"), Ok(file(64)));
        assert_eq!(nonce("@a b.bin"), Ok(file(8)));
        let ones = Given::Bytes(HexBytes([0x11; 64]));
        assert_eq!(report_data(&"11".repeat(64)), Ok(ones.clone()));
        assert_eq!(nonce(&format!("0x{}", "11".repeat(64))), Ok(ones));
        for (text, said) in [
            ("request-file.txt", "digits, not 16; or a file"),
            ("00", "expected 128 hexadecimal digits, not 2; or a file"),
        ] {
            let error = report_data(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        for (text, said) in [
            ("nonce.bin", "as @FILE"),
            ("00", "8 to 64 bytes, not 1"),
            (&"00".repeat(65), "not 65"),
        ] {
            let error = nonce(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
