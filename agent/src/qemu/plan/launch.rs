//! What a command line depends on.

use std::path::PathBuf;

use super::protection::Protection;
use crate::qemu::confine::Confinement;

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
    /// The machine type with its version.
    pub machine: String,
    /// What keeps the host out, and how it boots.
    pub protection: Protection,
    /// The root overlay, QCOW2.
    pub root: PathBuf,
    /// The base image under it.
    pub base: (PathBuf, DiskFormat),
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
    /// The serial console's log. Of a confidential guest it is written only if its owner
    /// asks: the host reads it.
    pub console_log: Option<PathBuf>,
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
