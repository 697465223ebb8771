//! What operations show: the shapes of the API's answers.
//!
//! They are read as well as written (the command line is a client), and new
//! fields may be added at any time: readers ignore what they do not know.

use std::collections::BTreeMap;

use crn_api_types::Owner;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    capacity::Totals,
    db::{InstanceRow, VolumeRow, VolumeState, rfc3339},
    life::{Desired, Failure, Phase, StopReason, Then},
    node::Node,
    spec::Firmware,
    tasks::Status,
};

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Whose it is: `operator`, or a tenant's address.
    #[schema(value_type = String)]
    pub owner: Owner,
    /// Name, unique among its owner's instances.
    pub name: String,
    /// Hostname in the guest.
    pub hostname: String,
    /// `preparing`, `starting`, `running`, `stopping`, `stopped`, `backing-off`,
    /// `failed` or `deleting`.
    pub phase: String,
    /// The phase with its step: `preparing.image`.
    pub step: String,
    /// What is wanted of it.
    pub desired: Desired,
    /// The guest's SSH server has answered since this start.
    pub ready: bool,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Root disk, MiB.
    pub disk_mib: u64,
    /// The image as it was named.
    pub image: String,
    /// The image's digest, once it is known: `sha256:` and 64 digits. It stays
    /// what it is, whatever the name means later.
    pub image_digest: Option<String>,
    /// Firmware.
    pub firmware: Firmware,
    /// The guest's IPv6 address.
    pub ipv6: String,
    /// The guest's IPv6 network.
    pub ipv6_network: String,
    /// The guest's IPv4 address (behind NAT), where the node gives any.
    pub ipv4: Option<String>,
    /// The guest's MAC address.
    pub mac: String,
    /// Ports that are open from outside.
    pub ports: Vec<String>,
    /// Attached volumes.
    pub volumes: Vec<AttachedVolume>,
    /// QEMU's process id.
    pub pid: Option<i32>,
    /// What QEMU was started with: `kvm` or `tcg`.
    pub accel: Option<String>,
    /// When QEMU was started, RFC 3339.
    pub started_at: Option<String>,
    /// Seconds since then.
    pub uptime_seconds: Option<u64>,
    /// Restarts in a row after crashes.
    pub restarts: u32,
    /// Progress of the image's download.
    pub progress: Option<ProgressView>,
    /// When the present stage of a stop runs out of time, RFC 3339.
    pub stage_ends_at: Option<String>,
    /// The guest is paused because a disk failed, for lack of space perhaps.
    pub paused: bool,
    /// Something the operator should know.
    pub warning: Option<String>,
    /// What went wrong last, in the phases `failed`, `backing-off` and on the way there.
    pub failure: Option<Failure>,
    /// When it is started again, RFC 3339, in the phase `backing-off`.
    pub next_start_at: Option<String>,
    /// Why it is stopped.
    pub stop_reason: Option<StopReason>,
    /// RFC 3339.
    pub created_at: String,
    /// Last change of the phase, RFC 3339.
    pub changed_at: String,
}

/// A volume of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachedVolume {
    /// Name.
    pub name: String,
    /// Where the guest mounts it.
    pub mount: Option<String>,
    /// Size, MiB.
    pub size_mib: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Name, unique among its owner's volumes.
    pub name: String,
    /// 16 hexadecimal digits: the disk's serial number in the guest.
    pub id: String,
    /// Whose it is: `operator`, or a tenant's address.
    #[schema(value_type = String)]
    pub owner: Owner,
    /// Size, MiB.
    pub size_mib: u64,
    /// Whether its file is there.
    pub state: VolumeState,
    /// Name of the instance that it is attached to.
    pub instance: Option<String>,
    /// Where that guest mounts it.
    pub mount: Option<String>,
    /// RFC 3339.
    pub created_at: String,
}

/// An image: one in the store, or one that could be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// Name, as `--image` takes it.
    pub name: String,
    /// It is in the store.
    pub stored: bool,
    /// `sha256:` and 64 digits of the file.
    pub digest: Option<String>,
    /// `qcow2` or `raw`.
    pub format: Option<String>,
    /// Bytes that a guest sees.
    pub virtual_size: Option<u64>,
    /// Bytes of the file.
    pub file_size: Option<u64>,
    /// Where it came from, or would come from.
    pub source: String,
    /// How many instances are layered over it.
    pub instances: u64,
    /// RFC 3339.
    pub added_at: Option<String>,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgressView {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

impl From<disk::Progress> for ProgressView {
    fn from(p: disk::Progress) -> Self {
        Self {
            done: p.done.bytes(),
            total: p.total.map(disk::ByteSize::bytes),
        }
    }
}

/// The node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// The agent's version.
    pub version: String,
    /// The agent's process id.
    pub pid: u32,
    /// Seconds since the agent was started.
    pub uptime_seconds: u64,
    /// What guests run on: `kvm` or `tcg`.
    pub accel: String,
    /// Why.
    pub accel_reason: String,
    /// The node's IPv6 prefix.
    pub prefix: String,
    /// Instances by phase.
    pub phases: BTreeMap<String, u64>,
    /// What has been promised.
    pub used: Totals,
    /// What there is.
    pub capacity: Totals,
}

fn seconds_since(at: OffsetDateTime) -> Option<u64> {
    u64::try_from((OffsetDateTime::now_utc() - at).whole_seconds()).ok()
}

impl InstanceView {
    /// From what is recorded, what the task knows, and the instance's volumes.
    #[must_use]
    pub fn new(
        node: &Node,
        row: &InstanceRow,
        live: Option<&Status>,
        volumes: &[VolumeRow],
    ) -> Self {
        // The task is ahead of a record that was read before.
        let phase = live.map_or(&row.phase, |s| &s.phase);
        let process = row.process.as_ref().filter(|_| phase.may_have_qemu());
        let failure = match phase {
            Phase::Failed { failure } | Phase::BackingOff { failure, .. } => Some(failure.clone()),
            Phase::Stopping {
                then: Then::BackOff { failure },
                ..
            } => Some(failure.clone()),
            _ => None,
        };
        let next_start_at = match phase {
            Phase::BackingOff { until, .. } => Some(rfc3339(*until)),
            _ => None,
        };
        let stop_reason = match phase {
            Phase::Stopped { reason } => Some(*reason),
            _ => None,
        };
        let guest = node.net.guest(row);
        Self {
            id: row.id.to_string(),
            owner: row.owner.clone(),
            name: row.name.to_string(),
            hostname: row.spec.hostname.clone(),
            phase: phase.word().to_owned(),
            step: phase.path().to_owned(),
            desired: row.wish.desired,
            ready: live.is_some_and(|s| s.ready),
            vcpus: row.spec.vcpus,
            memory_mib: row.spec.memory.0.into(),
            disk_mib: row.spec.disk.0.into(),
            image: row.spec.image.to_string(),
            image_digest: row.image.as_ref().map(|d| format!("sha256:{d}")),
            firmware: row.spec.firmware,
            ipv6: row.network.guest().to_string(),
            ipv6_network: row.network.to_string(),
            ipv4: guest.ipv4.as_ref().map(|v4| v4.guest.to_string()),
            mac: guest.mac.to_string(),
            ports: row.spec.ports.iter().map(ToString::to_string).collect(),
            volumes: volumes
                .iter()
                .map(|v| AttachedVolume {
                    name: v.name.to_string(),
                    mount: v.mount.clone(),
                    size_mib: v.mib,
                })
                .collect(),
            pid: live.and_then(|s| s.pid),
            accel: process.map(|p| p.accel.clone()),
            started_at: process.map(|p| rfc3339(p.launched_at)),
            uptime_seconds: process.and_then(|p| seconds_since(p.launched_at)),
            restarts: row.restarts,
            progress: live
                .and_then(|s| s.progress)
                .map(|(done, total)| ProgressView { done, total }),
            stage_ends_at: live.and_then(|s| s.stage_ends_at.clone()),
            paused: live.is_some_and(|s| s.paused),
            warning: live.and_then(|s| s.warning.clone()),
            failure,
            next_start_at,
            stop_reason,
            created_at: rfc3339(row.created_at),
            changed_at: rfc3339(row.changed_at),
        }
    }
}
