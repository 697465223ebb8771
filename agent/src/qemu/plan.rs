//! QEMU's command line: a pure function of an instance and of the host's facts.
//!
//! Nothing is named to QEMU that it would have to open: disks, firmware, the
//! tap, sockets and logs arrive as descriptors with fixed numbers, which the
//! plan hands out. So QEMU can run as a user who may open nothing. Formats are
//! always given, never guessed. Sources: qemu(1), docs/interop/qemu-qmp-ref.

use std::path::{Path, PathBuf};

pub use crn_api_types::Firmware;
use serde_json::{Value, json};

use super::{
    confine::Confinement,
    names::{MAX_VOLUMES, VolumeNode, slot_name, volume_device_name},
};

/// First descriptor number that is handed to QEMU.
pub const FIRST_FD: i32 = 10;
/// The number of the tap's descriptor, the same in every QEMU: it is fetched back from
/// there when somebody removes the interface.
pub const TAP_FD: i32 = FIRST_FD;
/// Descriptor sets of volumes that are attached while QEMU runs start here.
pub const HOTPLUG_FDSET: u32 = 100;

/// How a descriptor comes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FdSource {
    /// An existing file, read only.
    ReadOnly(PathBuf),
    /// An existing file, to read and write.
    ReadWrite(PathBuf),
    /// A log, created when missing, written at its end.
    Append(PathBuf),
    /// A unix socket to listen on; what is in its place is replaced.
    Listen(PathBuf),
    /// The instance's tap.
    Tap,
}

/// A descriptor and its number in QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFd {
    /// Its number in QEMU.
    pub number: i32,
    /// Where it comes from.
    pub source: FdSource,
}

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
    fn driver(self) -> &'static str {
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

/// How the guest boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// From its disk by SeaBIOS.
    Bios,
    /// From its disk by OVMF.
    Uefi {
        /// Read-only flash.
        code: PathBuf,
        /// The instance's own copy of the variables.
        vars: PathBuf,
    },
}

impl Boot {
    /// The boot method for a firmware, with the files that it needs.
    #[must_use]
    pub fn new(firmware: Firmware, code: &Path, vars: &Path) -> Self {
        match firmware {
            Firmware::Bios => Self::Bios,
            Firmware::Uefi => Self::Uefi {
                code: code.to_owned(),
                vars: vars.to_owned(),
            },
        }
    }
}

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

/// A file that QEMU opens by a path in its private root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFile {
    /// Where its bytes are.
    pub source: PathBuf,
    /// The path that it gets.
    pub path: PathBuf,
}

impl LaunchPlan {
    /// The first number behind the planned descriptors.
    #[must_use]
    pub fn next_fd(&self) -> i32 {
        FIRST_FD + i32::try_from(self.fds.len()).unwrap_or(i32::MAX - FIRST_FD)
    }
}

/// Names of the sockets in an instance's run directory.
pub mod socket {
    /// The machine monitor.
    pub const QMP: &str = "qmp.sock";
    /// The guest agent.
    pub const QGA: &str = "qga.sock";
    /// The serial console.
    pub const CONSOLE: &str = "console.sock";
    /// All of them.
    pub const ALL: [&str; 3] = [QMP, QGA, CONSOLE];
}

struct Builder {
    args: Vec<String>,
    fds: Vec<PlannedFd>,
    sets: u32,
}

impl Builder {
    fn arg(&mut self, option: &str, value: impl Into<String>) {
        self.args.push(option.to_owned());
        self.args.push(value.into());
    }

    fn flag(&mut self, option: &str) {
        self.args.push(option.to_owned());
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.arg(option, value.to_string());
    }

    fn fd(&mut self, source: FdSource) -> i32 {
        let number = FIRST_FD + i32::try_from(self.fds.len()).unwrap_or(i32::MAX - FIRST_FD);
        self.fds.push(PlannedFd { number, source });
        number
    }

    /// A descriptor set holding one file: what QEMU opens as `/dev/fdset/N`.
    fn file(&mut self, source: FdSource) -> String {
        let number = self.fd(source);
        self.sets += 1;
        self.arg("-add-fd", format!("fd={number},set={}", self.sets));
        format!("/dev/fdset/{}", self.sets)
    }
}

/// The two block nodes of a QCOW2 volume, as `-blockdev` and `blockdev-add` take them.
#[must_use]
pub fn volume_nodes(id: &str, fdset: &str) -> [Value; 2] {
    let (format, file) = (VolumeNode::Format(id).name(), VolumeNode::File(id).name());
    [
        json!({"driver": "file", "node-name": file, "filename": fdset, "discard": "unmap"}),
        json!({"driver": "qcow2", "node-name": format, "file": file, "backing": null,
               "discard": "unmap", "detect-zeroes": "unmap"}),
    ]
}

/// The device of a volume, in the given slot for hot-pluggable devices.
#[must_use]
pub fn volume_device(id: &str, slot: usize) -> Value {
    json!({"driver": "virtio-blk-pci", "id": volume_device_name(id), "bus": slot_name(slot),
           "drive": VolumeNode::Format(id).name(), "serial": id, "iothread": "io0"})
}

/// Decides the command line. Pure.
#[must_use]
pub fn plan(launch: &Launch) -> LaunchPlan {
    let mut b = Builder {
        args: Vec::new(),
        fds: Vec::new(),
        sets: 0,
    };
    // First of all: its number is fixed.
    b.fd(FdSource::Tap);
    machine(&mut b, launch);
    control(&mut b, launch);
    disks(&mut b, launch);
    network(&mut b, launch);
    watchdog(&mut b, launch);
    LaunchPlan {
        binary: launch.binary.clone(),
        args: b.args,
        fds: b.fds,
        uid: launch.uid,
        isolate_network: launch.isolate_network,
        cgroup_procs: launch.cgroup_procs.clone(),
        largest_file: launch.largest_file,
        placed: Vec::new(),
        devices: Vec::new(),
        confinement: launch.confinement.clone(),
    }
}

fn machine(b: &mut Builder, l: &Launch) {
    b.arg("-name", format!("guest={},debug-threads=on", l.marker));
    b.arg("-uuid", &l.uuid);
    b.flag("-nodefaults");
    b.flag("-no-user-config");
    b.arg("-display", "none");
    b.arg(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    // A guest that reboots reboots; one that powers off leaves QEMU in the state
    // `shutdown`, so that an agent that was not there can still tell it from a crash.
    // What follows a panic is the guest's own to say: it may reboot, or save its memory.
    b.arg(
        "-action",
        "reboot=reset,shutdown=pause,panic=none,watchdog=reset",
    );
    b.arg("-msg", "timestamp=on");
    b.arg("-rtc", "base=utc");
    b.arg("-global", "ICH9-LPC.disable_s3=1");
    b.arg("-global", "ICH9-LPC.disable_s4=1");
    let mut machine = format!(
        "{},usb=off,vmport=off,smm=off,hpet=off,graphics=off,dump-guest-core=off,\
         memory-backend=ram",
        l.machine
    );
    if let Boot::Uefi { code, vars } = &l.boot {
        let code = b.file(FdSource::ReadOnly(code.clone()));
        b.json(
            "-blockdev",
            &json!({"driver": "file", "node-name": "uefi-code", "filename": code,
                    "read-only": true, "auto-read-only": false}),
        );
        let vars = b.file(FdSource::ReadWrite(vars.clone()));
        b.json(
            "-blockdev",
            &json!({"driver": "file", "node-name": "uefi-vars", "filename": vars}),
        );
        machine.push_str(",pflash0=uefi-code,pflash1=uefi-vars");
    }
    b.arg("-machine", machine);
    match l.accel {
        Accelerator::Kvm => {
            let device = b.file(FdSource::ReadWrite("/dev/kvm".into()));
            b.arg("-accel", format!("kvm,device={device}"));
            let nested = if l.nested { "" } else { ",vmx=off,svm=off" };
            b.arg("-cpu", format!("{}{nested}", l.cpu));
        }
        Accelerator::Tcg => {
            b.arg("-accel", "tcg,thread=multi");
            // What was made with KVM runs without it too, if need be.
            let cpu = match l.cpu.as_str() {
                CPU_OF_KVM => CPU_OF_TCG,
                other => other,
            };
            b.arg("-cpu", cpu);
        }
    }
    b.arg(
        "-smp",
        format!("cpus={0},sockets=1,cores={0},threads=1", l.vcpus),
    );
    b.arg("-m", format!("size={}M", l.memory_mib));
    // Not merged with other guests' pages (a side channel), not in core dumps.
    b.json(
        "-object",
        &json!({"qom-type": "memory-backend-ram", "id": "ram", "size": l.memory_mib << 20,
                "merge": false, "dump": false}),
    );
    // By which the guest's kernel tells that it panicked. Of ISA: no place on the PCI bus
    // is another one for it.
    b.json("-device", &json!({"driver": "pvpanic"}));
    b.arg("-boot", "menu=off,strict=on");
    b.json("-object", &json!({"qom-type": "rng-builtin", "id": "rng0"}));
    b.json(
        "-device",
        &json!({"driver": "virtio-rng-pci", "rng": "rng0"}),
    );
    b.json(
        "-device",
        &json!({"driver": "virtio-balloon-pci", "id": "balloon", "deflate-on-oom": true,
                "free-page-reporting": true}),
    );
}

fn control(b: &mut Builder, l: &Launch) {
    let qmp = b.fd(FdSource::Listen(l.run_dir.join(socket::QMP)));
    b.arg(
        "-chardev",
        format!("socket,id=qmp,fd={qmp},server=on,wait=off"),
    );
    b.arg("-mon", "chardev=qmp,mode=control");

    let log = b.file(FdSource::Append(l.console_log.clone()));
    let console = b.fd(FdSource::Listen(l.run_dir.join(socket::CONSOLE)));
    b.arg(
        "-chardev",
        format!("socket,id=console,fd={console},server=on,wait=off,logfile={log},logappend=on"),
    );
    b.arg("-serial", "chardev:console");

    let qga = b.fd(FdSource::Listen(l.run_dir.join(socket::QGA)));
    b.arg(
        "-chardev",
        format!("socket,id=qga,fd={qga},server=on,wait=off"),
    );
    b.json(
        "-device",
        &json!({"driver": "virtio-serial-pci", "id": "serial0"}),
    );
    b.json(
        "-device",
        &json!({"driver": "virtserialport", "bus": "serial0.0", "chardev": "qga",
                "name": "org.qemu.guest_agent.0"}),
    );
}

fn disks(b: &mut Builder, l: &Launch) {
    b.json("-object", &json!({"qom-type": "iothread", "id": "io0"}));
    let base = b.file(FdSource::ReadOnly(l.base.0.clone()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "base-file", "filename": base,
                "read-only": true, "auto-read-only": false}),
    );
    let mut node = json!({"driver": l.base.1.driver(), "node-name": "base", "file": "base-file",
                          "read-only": true});
    if l.base.1 == DiskFormat::Qcow2 {
        // Whatever its header says: a base image has nothing under it.
        node["backing"] = Value::Null;
    }
    b.json("-blockdev", &node);
    let root = b.file(FdSource::ReadWrite(l.root.clone()));
    b.json(
        "-blockdev",
        &json!({"driver": "file", "node-name": "root-file", "filename": root,
                "discard": "unmap"}),
    );
    b.json(
        "-blockdev",
        &json!({"driver": "qcow2", "node-name": "root", "file": "root-file", "backing": "base",
                "discard": "unmap", "detect-zeroes": "unmap"}),
    );
    b.json(
        "-device",
        &json!({"driver": "virtio-blk-pci", "id": "root-dev", "drive": "root", "bootindex": 1,
                "serial": "root", "iothread": "io0"}),
    );
    if let Some(seed) = &l.seed {
        let seed = b.file(FdSource::ReadOnly(seed.clone()));
        b.json(
            "-blockdev",
            &json!({"driver": "file", "node-name": "seed-file", "filename": seed,
                    "read-only": true, "auto-read-only": false}),
        );
        b.json(
            "-blockdev",
            &json!({"driver": "raw", "node-name": "seed", "file": "seed-file",
                    "read-only": true}),
        );
        b.json(
            "-device",
            &json!({"driver": "virtio-blk-pci", "id": "seed-dev", "drive": "seed",
                    "serial": "seed"}),
        );
    }
    // Root ports: what sits behind one can come and go while the guest runs. No
    // I/O windows: the machine has too few of them, and virtio needs none.
    for slot in 0..MAX_VOLUMES {
        let (device, function) = (0x10 + slot / 8, slot % 8);
        b.json(
            "-device",
            &json!({"driver": "pcie-root-port", "id": slot_name(slot), "bus": "pcie.0",
                    "addr": format!("0x{device:x}.0x{function:x}"), "multifunction": function == 0,
                    "chassis": slot + 1, "slot": slot + 1, "io-reserve": 0}),
        );
    }
    for (slot, volume) in l.volumes.iter().take(MAX_VOLUMES).enumerate() {
        let fdset = b.file(FdSource::ReadWrite(volume.path.clone()));
        for node in volume_nodes(&volume.id, &fdset) {
            b.json("-blockdev", &node);
        }
        b.json("-device", &volume_device(&volume.id, slot));
    }
}

fn network(b: &mut Builder, l: &Launch) {
    b.arg("-netdev", format!("tap,id=net0,fd={TAP_FD}"));
    b.json(
        "-device",
        &json!({"driver": "virtio-net-pci", "id": "net0-dev", "netdev": "net0", "mac": l.mac,
                "host_mtu": l.mtu, "romfile": ""}),
    );
}

/// Behind all others, which keep their places on the PCI bus.
fn watchdog(b: &mut Builder, l: &Launch) {
    if l.watchdog {
        b.json("-device", &json!({"driver": "i6300esb", "id": "watchdog"}));
    }
}

#[cfg(test)]
mod tests;
