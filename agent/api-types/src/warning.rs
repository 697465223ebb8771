//! What an operator should know about an instance that goes on all the same.

use serde::{Deserialize, Serialize};

/// What a warning is about. An instance has at most one of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// The host cannot enforce some of its limits (cgroup controllers are missing).
    NotLimited,
    /// QEMU's monitor does not answer: the guest runs, and cannot be changed.
    MonitorSilent,
    /// The guest is paused: a disk failed, for lack of space perhaps. It is resumed
    /// as soon as that works.
    Paused,
    /// QEMU found one of the disks damaged.
    DiskDamaged,
    /// The guest has no network: its tap is gone and could not be made again.
    NoNetwork,
    /// QEMU does not end, not even by SIGKILL.
    Unkillable,
    /// What a QEMU left behind cannot be removed; it is tried again and again.
    CleanUp,
}

impl WarningKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NotLimited,
        Self::MonitorSilent,
        Self::Paused,
        Self::DiskDamaged,
        Self::NoNetwork,
        Self::Unkillable,
        Self::CleanUp,
    ];
}

/// Something an operator should know about an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// What it is about.
    pub kind: WarningKind,
    /// A sentence for people.
    pub message: String,
}
