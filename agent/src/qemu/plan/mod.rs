//! QEMU's command line: a pure function of an instance and of the host's facts.
//!
//! Nothing of the host is named to QEMU that it would have to open: disks, flash, the
//! tap, sockets and logs arrive as descriptors with fixed numbers, which the
//! plan hands out. So QEMU can run as a user who may open nothing. What it knows by
//! path alone (a kernel, `/dev/sev`) is placed in its private root. Formats are
//! always given, never guessed. Sources: qemu(1), docs/interop/qemu-qmp-ref.

mod accelerator;
mod arguments;
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "no instance is launched so yet")
)]
mod boot;
mod control;
mod disks;
mod launch;
mod machine;
mod network;
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "no instance is launched so yet")
)]
mod protection;
mod virtio;

use std::path::PathBuf;

use self::arguments::Builder;
#[cfg(any(test, feature = "testing"))]
pub use self::protection::Sev;
pub use self::{
    accelerator::{Accelerator, CPU_OF_KVM, CPU_OF_TCG},
    arguments::{FIRST_FD, FdSource, PlacedFile, PlannedFd},
    boot::{Boot, DirectKernel},
    control::socket,
    disks::{HOTPLUG_FDSET, volume_device, volume_nodes},
    launch::{DiskFormat, Launch, VolumeDisk},
    network::TAP_FD,
    protection::{GuestMemory, Identity, NamedCpu, Open, Protection, SevHost, Snp},
};
use super::confine::Confinement;

/// What is to be executed, and with which descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPlan {
    /// The program.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Descriptors by number.
    pub fds: Vec<PlannedFd>,
    /// User and group.
    pub uid: u32,
    /// In a network namespace of its own.
    pub isolate_network: bool,
    /// The file that takes the process into its cgroup.
    pub cgroup_procs: Option<PathBuf>,
    /// The longest file that it may write, bytes.
    pub largest_file: Option<u64>,
    /// Files that are copied into its private root before that is sealed.
    pub placed: Vec<PlacedFile>,
    /// Device nodes in its private root that its user may open: for what QEMU opens by
    /// path alone.
    pub devices: Vec<PathBuf>,
    /// What it is shut in by.
    pub confinement: Confinement,
}

impl LaunchPlan {
    /// The first number behind the planned descriptors.
    #[must_use]
    pub fn next_fd(&self) -> i32 {
        FIRST_FD + i32::try_from(self.fds.len()).unwrap_or(i32::MAX - FIRST_FD)
    }
}

/// Decides the command line. Pure.
#[must_use]
pub fn plan(launch: &Launch) -> LaunchPlan {
    let mut b = Builder::default();
    // First of all: its number is fixed.
    b.fd(FdSource::Tap);
    machine::machine(&mut b, launch);
    virtio::virtio(&mut b, launch);
    control::control(&mut b, launch);
    disks::disks(&mut b, launch);
    network::network(&mut b, launch);
    machine::watchdog(&mut b, launch);
    LaunchPlan {
        binary: launch.binary.clone(),
        args: b.args,
        fds: b.fds,
        uid: launch.uid,
        isolate_network: launch.isolate_network,
        cgroup_procs: launch.cgroup_procs.clone(),
        largest_file: launch.largest_file,
        placed: b.placed,
        devices: b.devices,
        confinement: launch.confinement.clone(),
    }
}

#[cfg(test)]
mod tests;
