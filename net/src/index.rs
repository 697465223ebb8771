//! The number from which a guest's names and addresses on this host follow.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A guest's slot on this host, 0 to 65,535: its tap's name, MAC address and IPv4 network follow
/// from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuestIndex(pub u32);

impl fmt::Display for GuestIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
