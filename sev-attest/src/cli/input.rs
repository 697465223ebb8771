//! Files and standard input of the commands.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::formats::{self, Bundle, FormatError, MAX_INPUT};
use crate::policy::{Policy, PolicyError};

/// Most files that are read from a directory of certificates.
const MAX_FILES: usize = 4096;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A file can't be read or written.
    #[error("{name}: {source}")]
    File {
        /// The file, or `standard input`.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// An input was refused.
    #[error("{name}: {source}")]
    Input {
        /// The file, or `standard input`.
        name: String,
        /// Why.
        source: FormatError,
    },
    /// A policy file was refused.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// Arguments that don't fit together.
    #[error("{0}")]
    Usage(String),
    /// The answer could not be written.
    #[error("standard output: {0}")]
    Output(io::Error),
}

/// Name of an input in messages; `-` is standard input.
pub(super) fn name(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// A whole file, or standard input for `-`, of at most `max` bytes.
pub(super) fn read(path: &Path, max: usize) -> Result<Vec<u8>, CliError> {
    let read = || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        if path.as_os_str() == "-" {
            io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
        } else {
            File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        }
        if bytes.len() > max {
            return Err(io::Error::other(format!("longer than {max} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| CliError::File {
        name: name(path),
        source,
    })
}

/// A policy file.
pub(super) fn policy(path: &Path) -> Result<Policy, CliError> {
    let text = String::from_utf8(read(path, MAX_INPUT)?)
        .map_err(|_| CliError::Usage(format!("{}: not UTF-8", name(path))))?;
    Policy::from_toml(&text).map_err(|source| CliError::Policy {
        path: path.to_owned(),
        source,
    })
}

/// Writes a new file, or an existing one on request.
pub(super) fn write_new(path: &Path, force: bool, text: &str) -> Result<(), CliError> {
    let mut options = File::options();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| CliError::File {
        name: name(path),
        source: match source.kind() {
            io::ErrorKind::AlreadyExists => {
                io::Error::other("exists already: give --force to replace it")
            }
            _ => source,
        },
    })
}

/// Certificates and revocation lists of a file, or of all files of a directory. In a directory,
/// what is neither is passed over, with a note where it could have been one; a file given by its
/// name must be one.
pub(super) fn certificates(path: &Path, notes: &mut Vec<String>) -> Result<Bundle, CliError> {
    let failed = |source| CliError::File {
        name: name(path),
        source,
    };
    if path.as_os_str() == "-" || !path.metadata().map_err(failed)?.is_dir() {
        let bytes = read(path, MAX_INPUT)?;
        return formats::read_certificates(&bytes).map_err(|source| CliError::Input {
            name: name(path),
            source,
        });
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.is_file() {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(failed(io::Error::other(format!(
                "more than {MAX_FILES} files"
            ))));
        }
    }
    // The same choice on every machine.
    files.sort();
    let mut bundle = Bundle::default();
    for file in files {
        let bytes = match read(&file, MAX_INPUT) {
            Ok(bytes) => bytes,
            Err(error) => {
                notes.push(format!("passed over: {error}"));
                continue;
            }
        };
        match formats::read(&bytes) {
            Ok(formats::Input::Certificates(inner)) => bundle.extend(inner),
            // An extended report brings its own; revocation lists in it are its host's choice.
            Ok(formats::Input::Report(evidence)) => {
                bundle.certificates.extend(evidence.bundle.certificates);
            }
            Err(error) if bytes.starts_with(&[0x30]) || formats::pem::looks_like(&bytes) => {
                notes.push(format!("passed over: {}: {error}", file.display()));
            }
            Err(_) => {}
        }
    }
    Ok(bundle)
}
