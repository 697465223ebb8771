//! Instances: requests and views.

use serde::{Deserialize, Serialize};

use crate::{Desired, Failure, Owner, Phase, ProgressView, Step, StopReason, Warning};

/// What the guest's firmware is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF, with variables of the instance's own.
    Uefi,
}

/// A request for an instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// A label (RFC 1123), unique among its owner's instances; also the hostname.
    /// Not six or more hexadecimal digits alone, which look like an id. Without one
    /// the instance is named by its id, and its hostname is the id in base32.
    #[cfg_attr(feature = "openapi", schema(example = "my-web-server"))]
    pub name: Option<String>,
    /// Virtual CPUs.
    #[serde(default = "one")]
    pub vcpus: u64,
    /// Memory in MiB.
    #[serde(default = "default_memory")]
    pub memory_mib: u64,
    /// Size of the root disk in MiB; at least the image's.
    #[serde(default = "default_disk")]
    pub disk_mib: u64,
    /// A catalogue name or `sha256:` and 64 digits.
    #[cfg_attr(feature = "openapi", schema(example = "debian:12"))]
    pub image: String,
    /// OpenSSH public keys for root.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Ports open from outside: `22`, `443/tcp`, `53/udp`; 22 alone unless given.
    #[cfg_attr(feature = "openapi", schema(example = json!(["22", "443"])))]
    pub allowed_ports: Option<Vec<String>>,
    /// Volumes to attach; those that do not exist are created.
    #[serde(default)]
    pub volumes: Vec<VolumeRequest>,
    /// The user's own cloud-init user data.
    pub cloud_init: Option<String>,
    /// Firmware.
    #[serde(default)]
    pub firmware: Firmware,
    /// Give it a watchdog (i6300esb): a guest that has set it going and then hangs is
    /// reset.
    #[serde(default)]
    pub watchdog: bool,
    /// Start it once it is prepared.
    #[serde(default = "yes")]
    pub start: bool,
}

/// A volume in a [`CreateRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeRequest {
    /// The volume's name.
    pub name: String,
    /// Where the guest mounts it; only attached when absent.
    #[cfg_attr(feature = "openapi", schema(example = "/data"))]
    pub mount: Option<String>,
    /// Size in MiB if it has to be created.
    pub size_mib: Option<u64>,
}

fn one() -> u64 {
    1
}
fn default_memory() -> u64 {
    1024
}
fn default_disk() -> u64 {
    10_240
}
fn yes() -> bool {
    true
}

/// How an instance is to be stopped, restarted or deleted.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct StopOptions {
    /// Do not ask the guest first: skip the power button.
    pub force: bool,
}

/// A change of the open ports.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PortChange {
    /// Exactly these are open, before `allow` and `deny` apply.
    #[cfg_attr(feature = "openapi", schema(example = json!(["22", "443"])))]
    pub set: Option<Vec<String>>,
    /// These are opened: `80`, `53/udp`, `8000-8010`.
    pub allow: Vec<String>,
    /// These are closed; each must be a rule as it was opened.
    pub deny: Vec<String>,
}

/// The open ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ports {
    /// Rules, sorted.
    pub ports: Vec<String>,
}

/// A volume of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachedVolume {
    /// Name.
    pub name: String,
    /// Where the guest mounts it.
    pub mount: Option<String>,
    /// Size, MiB.
    pub size_mib: u64,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceView {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Whose it is: `operator`, or a tenant's address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub owner: Owner,
    /// Name, unique among its owner's instances.
    pub name: String,
    /// Hostname in the guest.
    pub hostname: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// The phase with its step.
    pub step: Step,
    /// What is wanted of it.
    pub desired: Desired,
    /// The guest's SSH server answers. It is asked about once a minute.
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
    /// It has a watchdog.
    pub watchdog: bool,
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
    /// QEMU's machine type with its version, once it was started. It stays what it is
    /// when QEMU is upgraded.
    #[cfg_attr(feature = "openapi", schema(example = "pc-q35-10.0"))]
    pub machine: Option<String>,
    /// The CPU model, once it was started: `host` (all that the processor offers; `max`
    /// stands in for it without KVM) or `max`.
    pub cpu_model: Option<String>,
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
    /// What an operator should know though it goes on, each kind at most once.
    pub warnings: Vec<Warning>,
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
