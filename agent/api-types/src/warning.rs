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
    /// Its image cannot be had at the moment; it is tried again and again.
    ImageUnavailable,
    /// The guest's SSH server answered before, and does not any more.
    NotAnswering,
    /// The guest's kernel panicked, and it has not rebooted since.
    GuestPanicked,
    /// What of the user's cloud-init data loses against the agent's, or may undo it.
    UserData,
}

impl WarningKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NotLimited,
        Self::MonitorSilent,
        Self::Paused,
        Self::DiskDamaged,
        Self::NoNetwork,
        Self::Unkillable,
        Self::CleanUp,
        Self::ImageUnavailable,
        Self::NotAnswering,
        Self::GuestPanicked,
        Self::UserData,
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
    /// Since when, RFC 3339; since the agent's last start at most.
    pub since: String,
}

/// What a warning about the node as a whole is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeWarningKind {
    /// The configured uplink does not exist; it is taken up when it comes.
    UplinkMissing,
    /// There is no default route, or none over the configured uplink.
    NoUplink,
    /// Another firewall drops what guests need.
    OtherFirewall,
    /// A setting of the host's network could not be written.
    NetworkSetting,
    /// Instances have addresses outside of the node's prefix, which was changed.
    OtherPrefix,
    /// A part of the network could not be compared or repaired.
    NetworkRepair,
    /// Instances have warnings of one kind.
    Instances,
}

/// Something an operator should know about the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeWarning {
    /// What it is about.
    pub kind: NodeWarningKind,
    /// A sentence for people.
    pub message: String,
}
