//! What is not as it should be and cannot be put right from here.

use std::fmt;

use crate::{address::Prefix, index::GuestIndex, obstacle::Obstacle};

/// Something that a comparison found and could not repair. The next comparison looks again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The configured uplink does not exist.
    UplinkMissing {
        /// Its name.
        name: String,
    },
    /// There is no default route, or none over the configured uplink.
    NoDefaultRoute {
        /// The configured uplink.
        uplink: Option<String>,
    },
    /// Another firewall drops what guests need.
    Obstacle(Obstacle),
    /// A setting under `/proc/sys` that could not be written.
    Setting {
        /// Its file.
        path: String,
        /// Why not.
        why: String,
    },
    /// Guests whose addresses are not of the node's prefix: it was changed since they were made.
    OtherPrefix {
        /// The node's prefix.
        prefix: Prefix,
        /// The guests.
        guests: Vec<GuestIndex>,
    },
    /// A part of the comparison that failed.
    Failed {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl Problem {
    /// A word for programs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UplinkMissing { .. } => "uplink-missing",
            Self::NoDefaultRoute { .. } => "no-uplink",
            Self::Obstacle(_) => "other-firewall",
            Self::Setting { .. } => "network-setting",
            Self::OtherPrefix { .. } => "other-prefix",
            Self::Failed { .. } => "network-repair",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UplinkMissing { name } => write!(
                f,
                "the configured uplink {name} does not exist: guests do not reach the internet, and \
                 are not reached from it, until it comes"
            ),
            Self::NoDefaultRoute { uplink: None } => write!(
                f,
                "there is no default route, and no uplink is configured: guests do not reach the \
                 internet"
            ),
            Self::NoDefaultRoute { uplink: Some(name) } => write!(
                f,
                "there is no default route over the uplink {name}: guests do not reach the internet"
            ),
            Self::Obstacle(obstacle) => write!(f, "another firewall is in the way: {obstacle}"),
            Self::Setting { path, why } => write!(f, "{path} cannot be set: {why}"),
            Self::OtherPrefix { prefix, guests } => write!(
                f,
                "{} guest(s) have addresses outside of the node's prefix {prefix}, which was changed \
                 since: each gets one of it when it is started next (instance restart)",
                guests.len()
            ),
            Self::Failed { what, why } => write!(f, "{what}: {why}"),
        }
    }
}
