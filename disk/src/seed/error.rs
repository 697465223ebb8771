//! Errors and warnings of the seed.

use std::fmt;

use super::iso9660::IsoError;

/// Why no seed can be written. Nothing is ever written halfway: a seed is built in memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// Not a host name.
    #[error("host name {value:?} is refused: {reason}")]
    Hostname {
        /// What was given, shortened.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a public key that `authorized_keys` can carry.
    #[error("SSH key {value:?} is refused: {reason}; expected one line as in an id_*.pub file")]
    SshKey {
        /// The beginning of what was given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a place where a volume can be mounted.
    #[error("mount point {value:?} is refused: {reason}")]
    MountPoint {
        /// What was given, shortened.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not an instance id.
    #[error("instance id {value:?} must be 1 to 64 of A-Z a-z 0-9 . _ -")]
    InstanceId {
        /// What was given, shortened.
        value: String,
    },
    /// Not a serial number that finds its way to `/dev/disk/by-id`.
    #[error("volume serial {value:?} must be 1 to 20 of A-Z a-z 0-9 _ -")]
    Serial {
        /// What was given, shortened.
        value: String,
    },
    /// Two volumes that a guest could take for one another.
    #[error("volumes {first} and {second} cannot be in one VM: {reason}")]
    Volumes {
        /// Serial of one.
        first: String,
        /// Serial of the other.
        second: String,
        /// What they share.
        reason: &'static str,
    },
    /// A list is too long.
    #[error("{count} {what} are too many, at most {limit}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// Network parameters that no guest can use.
    #[error("network configuration is refused: {reason}")]
    Network {
        /// What is wrong with it.
        reason: String,
    },
    /// The user's cloud-init data.
    #[error("cloud-init user data is refused{}: {reason}", At(.part))]
    UserData {
        /// Number of the part, from 1, if there are several.
        part: Option<usize>,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The seed does not fit in an image.
    #[error("seed image cannot be written: {0}")]
    Iso(#[from] IsoError),
}

/// Something the user asked for that will not be as they may expect. The seed is good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SeedWarning {
    /// There is no key, so nobody can log in over SSH unless the user data arranges it.
    NoSshKey,
    /// A key of the user's cloud-config is replaced by the agent's value.
    Overridden {
        /// Number of the part, from 1.
        part: usize,
        /// Top-level key.
        key: String,
        /// The value that holds, as YAML.
        ours: String,
    },
    /// A key that cloud-init does not read from user data.
    Ignored {
        /// Number of the part, from 1.
        part: usize,
        /// Top-level key.
        key: String,
    },
    /// A key with which cloud-init may not come to apply the agent's settings.
    Undermines {
        /// Number of the part, from 1.
        part: usize,
        /// Top-level key.
        key: String,
    },
    /// A template is rendered in the guest: what of it loses cannot be told here. The agent's
    /// settings are applied after it and hold; but if it makes `ssh_authorized_keys`, `mounts` or
    /// `fs_setup` anything but a list, cloud-init does not come to the agent's entries.
    Unchecked {
        /// Number of the part, from 1.
        part: usize,
    },
}

impl fmt::Display for SeedWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSshKey => f.write_str("no SSH key: login over SSH may be impossible"),
            Self::Overridden { part, key, ours } => write!(
                f,
                "cloud-init user data, part {part}: `{key}` is set by the agent to {ours}; the \
                 user's value is not used"
            ),
            Self::Ignored { part, key } => write!(
                f,
                "cloud-init user data, part {part}: cloud-init does not read `{key}` from user data"
            ),
            Self::Undermines { part, key } => write!(
                f,
                "cloud-init user data, part {part}: with `{key}` changed, keys, host name or \
                 volumes may not be set up"
            ),
            Self::Unchecked { part } => write!(
                f,
                "cloud-init user data, part {part} is a template and cannot be checked here; \
                 what it sets loses against the agent's settings"
            ),
        }
    }
}

struct At<'a>(&'a Option<usize>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(part) => write!(f, " (part {part})"),
            None => Ok(()),
        }
    }
}

/// The beginning of hostile text, short enough for a log line.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 48;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
