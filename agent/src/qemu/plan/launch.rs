//! What a command line depends on.

use std::path::PathBuf;

use super::boot::Boot;
use crate::qemu::confine::Confinement;

/// The accelerator, already decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The kernel's.
    Kvm,
    /// Emulation.
    Tcg,
}

/// All that the host's processor offers to guests. Of KVM alone.
pub const CPU_OF_KVM: &str = "host";
/// All that QEMU's emulation offers.
pub const CPU_OF_TCG: &str = "max";

impl Accelerator {
    /// The CPU model that new guests get.
    #[must_use]
    pub fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => CPU_OF_KVM,
            Self::Tcg => CPU_OF_TCG,
        }
    }

    /// As QEMU calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// A format that a disk is known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// QCOW2.
    Qcow2,
    /// Plain bytes.
    Raw,
}

impl DiskFormat {
    pub(super) fn driver(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// A volume as QEMU sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDisk {
    /// 16 hexadecimal digits: serial number, part of the nodes' names.
    pub id: String,
    /// Its file, QCOW2.
    pub path: PathBuf,
}

/// Everything that the command line depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// Marks the process as this node's and this instance's: `crn:<node>:<id>`.
    pub marker: String,
    /// SMBIOS UUID: the first 16 bytes of the id.
    pub uuid: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// KVM or TCG.
    pub accel: Accelerator,
    /// The machine type with its version.
    pub machine: String,
    /// The CPU model.
    pub cpu: String,
    /// With KVM the guest may run guests of its own.
    pub nested: bool,
    /// BIOS, or UEFI with these files (code, variables).
    pub boot: Boot,
    /// The root overlay, QCOW2.
    pub root: PathBuf,
    /// The base image under it.
    pub base: (PathBuf, DiskFormat),
    /// The cloud-init seed.
    pub seed: Option<PathBuf>,
    /// It has a watchdog.
    pub watchdog: bool,
    /// Volumes attached from the start.
    pub volumes: Vec<VolumeDisk>,
    /// The guest's MAC address.
    pub mac: String,
    /// The MTU of the guest's link, bytes.
    pub mtu: u32,
    /// Directory of the sockets.
    pub run_dir: PathBuf,
    /// The serial console's log.
    pub console_log: PathBuf,
    /// User and group that QEMU runs as.
    pub uid: u32,
    /// In a network namespace of its own.
    pub isolate_network: bool,
    /// The file that takes the process into its cgroup, if there is one.
    pub cgroup_procs: Option<PathBuf>,
    /// The longest file that QEMU may write, bytes.
    pub largest_file: Option<u64>,
    /// What it is shut in by.
    pub confinement: Confinement,
}
