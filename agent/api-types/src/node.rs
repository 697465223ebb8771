//! The node at a glance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{NodeWarning, Phase};

/// What instances and volumes take of a node, or what it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Totals {
    /// Instances.
    pub instances: u64,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Root disks and volumes, MiB.
    pub disk_mib: u64,
}

/// The node at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeStatus {
    /// The agent's version.
    pub version: String,
    /// The agent's process id.
    pub pid: u32,
    /// Seconds since the agent was started.
    pub uptime_seconds: u64,
    /// What guests run on: `kvm` or `tcg`.
    pub accel: String,
    /// Why guests run on that.
    pub accel_reason: String,
    /// The node's IPv6 prefix.
    pub prefix: String,
    /// Instances by phase.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u64>))]
    pub phases: BTreeMap<Phase, u64>,
    /// What has been promised.
    pub used: Totals,
    /// What there is.
    pub capacity: Totals,
    /// What an operator should look at.
    #[serde(default)]
    pub warnings: Vec<NodeWarning>,
}
