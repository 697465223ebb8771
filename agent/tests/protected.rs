//! Guests that keep their host out, and what they share with others: files that were read
//! once. Started by the real launcher in the real QEMU, as far as this host can.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::{
    arch::x86_64::__cpuid_count,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use crn_agent::testing::host::sev_capabilities::{self, CapabilitiesError};
use crn_agent::testing::qemu::{
    confine::Confinement,
    launch::launch_by,
    plan::{
        Accelerator, Boot, DirectKernel, DiskFormat, FdSource, Identity, Launch, LaunchPlan,
        NamedCpu, Open, Protection, Sev, SevHost, Snp, plan,
    },
    sealed::SealedFile,
};
use disk::{BaseRef, ByteSize, Format, OverlaySpec, create_overlay};
use sev_attest::measure::GuestPolicy;
use testbed::{boot_sector, network, until};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);
const UID: u32 = 2_100_013;
const MIB: u64 = 1 << 20;
/// A device node that every host has: QEMU opens it before it asks the processor.
const DEVICE: &str = "/dev/full";

/// A guest's files, in a directory that QEMU's user may not enter.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let files = Self { dir };
        let base = files.path("base.raw");
        boot_sector::write_disk(&base);
        let base_ref = BaseRef {
            path: base,
            format: Format::Raw,
            virtual_size: ByteSize::from_bytes(MIB),
        };
        let spec = OverlaySpec::new(base_ref, ByteSize::from_bytes(64 * MIB));
        create_overlay(&files.path("root.qcow2"), &spec).unwrap();
        fs::create_dir(files.path("run")).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("qemu.log")).unwrap_or_default()
    }

    fn launch(&self, protection: Protection) -> Launch {
        Launch {
            binary: "/usr/bin/qemu-system-x86_64".into(),
            marker: format!("crn:{:016x}:{}", std::process::id(), "ab".repeat(32)),
            uuid: "abababab-abab-abab-abab-abababababab".into(),
            vcpus: 2,
            memory_mib: 128,
            machine: "q35".into(),
            protection,
            root: self.path("root.qcow2"),
            base: (self.path("base.raw"), DiskFormat::Raw),
            watchdog: false,
            volumes: Vec::new(),
            mac: "02:ab:00:00:00:07".into(),
            mtu: 1500,
            run_dir: self.path("run"),
            console_log: Some(self.path("console.log")),
            uid: UID,
            isolate_network: true,
            cgroup_procs: None,
            largest_file: Some(64 * MIB),
            confinement: Confinement::default(),
        }
    }
}

fn sealed(bytes: &[u8]) -> SealedFile {
    SealedFile::of(bytes).unwrap()
}

/// The smallest kernel by Linux's boot protocol: says a word on the serial line.
fn kernel(word: &str) -> Vec<u8> {
    let mut image = vec![0; 16 << 10];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // one sector of set-up behind the first
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x7e]); // jmp 0x280
    put(0x202, b"HdrS");
    put(0x206, &[0x02, 0x02]); // version 2.2 of the protocol
    put(0x211, &[1]); // loaded high
    let code = [
        0xbe, 0xa0, 0x00, // mov si, word
        0x2e, 0xac, // next: lodsb cs:
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz end
        0xba, 0xf8, 0x03, // mov dx, COM1
        0xee, // out dx, al
        0xeb, 0xf4, // jmp next
        0xf4, // end: hlt
        0xeb, 0xfd, // jmp end
    ];
    put(0x280, &code);
    put(0x2a0, word.as_bytes());
    image
}

#[test]
fn a_file_that_is_replaced_after_it_was_read_changes_nothing() {
    network::alone(async || {
        let files = Files::new();
        let path = files.path("vmlinuz");
        fs::write(&path, kernel("what was hashed")).unwrap();
        let read = SealedFile::read(&path, MIB).unwrap();
        fs::write(&path, kernel("something else")).unwrap();
        let boot = Boot::DirectKernel {
            firmware: None,
            kernel: DirectKernel {
                kernel: read,
                initrd: None,
                cmdline: String::new(),
            },
        };
        let launch = files.launch(Protection::None(Open {
            accel: Accelerator::Tcg,
            cpu: "max".into(),
            nested: false,
            boot,
            seed: None,
        }));
        let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
        let log = files.path("qemu.log");
        let held = launch_by(agent, &plan(&launch), network::tap().await, &log).unwrap();
        let process = held.release().await;
        let said = tokio::task::spawn_blocking(move || {
            let console = until(PATIENCE, "the kernel's word", || {
                let log = fs::read(files.path("console.log")).unwrap_or_default();
                let log = String::from_utf8_lossy(&log).into_owned();
                let spoke = log.contains("what was") || log.contains("something");
                assert!(spoke || process.is_alive(), "{}", files.said());
                spoke.then_some(log)
            });
            process.kill();
            console
        });
        let said = said.await.unwrap();
        assert!(said.contains("what was hashed"), "{said}");
    });
}

/// The C-bit as this processor has it, in QEMU's way to ask.
fn host_c_bit() -> u32 {
    __cpuid_count(0x8000_001f, 0).ebx & 0x3f
}

fn sev_host(cbitpos: u32) -> SevHost {
    SevHost {
        device: DEVICE.into(),
        cbitpos,
        reduced_phys_bits: 1,
    }
}

fn direct_kernel() -> DirectKernel {
    DirectKernel {
        kernel: sealed(&kernel("")),
        initrd: Some(sealed(&[7; 5000])),
        cmdline: "console=ttyS0 luks=1".into(),
    }
}

/// Each kind of confidential guest, with the words at which QEMU ends without SEV.
fn confidential() -> Vec<(&'static str, Protection, &'static str)> {
    let firmware = sealed(&fs::read("/usr/share/ovmf/OVMF.fd").unwrap());
    let cpu = || NamedCpu::new("EPYC-v4").unwrap();
    let snp = |kernel, identity| {
        Protection::Snp(Snp {
            host: sev_host(51),
            cpu: cpu(),
            policy: GuestPolicy::USUAL,
            host_data: [7; 32],
            identity,
            firmware: firmware.clone(),
            kernel,
        })
    };
    let sev = |policy| {
        Protection::Sev(Sev {
            // Not this host's.
            host: sev_host((host_c_bit() + 1) % 64),
            cpu: cpu(),
            policy,
            session: sealed(b"c2Vzc2lvbg=="),
            dh_cert: sealed(b"Y2VydA=="),
            firmware: firmware.clone(),
            kernel: None,
            seed: None,
        })
    };
    let identity = Identity {
        block: [1; 96],
        auth: Box::new([2; 4096]),
        author_key: false,
    };
    let no_snp = "vm-type SEV-SNP not supported by KVM";
    let no_sev = "cbitpos check failed";
    vec![
        ("snp-kernel", snp(Some(direct_kernel()), None), no_snp),
        ("snp-id-block", snp(None, Some(identity)), no_snp),
        ("sev", sev(1), no_sev),
        ("sev-es", sev(5), no_sev),
    ]
}

fn can_try() -> bool {
    if Path::new("/dev/sev").exists() {
        skip::record("crn-agent/no-sev", "this host has SEV");
        return false;
    }
    let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(e) = kvm {
        skip::record("crn-agent/kvm", &e.to_string());
        return false;
    }
    true
}

#[test]
fn qemu_takes_each_command_line_until_it_needs_the_processor() {
    if !can_try() {
        return;
    }
    network::alone(async || {
        let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
        for (name, protection, end) in confidential() {
            let files = Files::new();
            let plan = plan(&files.launch(protection));
            let log = files.path("qemu.log");
            let held = launch_by(agent, &plan, network::tap().await, &log).unwrap();
            let process = held.release().await;
            let ended = timeout(PATIENCE, process.exited()).await;
            process.kill();
            let said = files.said();
            assert!(ended.is_ok() && said.contains(end), "{name}: {said}");
        }
    });
}

/// A newer QEMU, in a directory that is its root.
fn newer_qemu() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/host/newer-qemu.sh");
    let output = Command::new(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        skip::record("crn-agent/newer-qemu", said.trim());
        return None;
    }
    let root = String::from_utf8(output.stdout).unwrap();
    Some(root.trim_end().into())
}

/// What QEMU says in another root: no launcher, which would show it this host's libraries.
fn said_in(root: &Path, plan: &LaunchPlan, tap: std::os::fd::OwnedFd) -> String {
    let mut tap = Some(tap);
    let mut mappings = Vec::new();
    for fd in &plan.fds {
        let file = |options: &mut fs::OpenOptions, path: &Path| options.open(path).unwrap().into();
        let mut options = fs::OpenOptions::new();
        let parent_fd = match &fd.source {
            FdSource::ReadOnly(path) => file(options.read(true), path),
            FdSource::ReadWrite(path) => file(options.read(true).write(true), path),
            FdSource::Append(path) => file(options.append(true).create(true), path),
            FdSource::Listen(path) => {
                let _ = fs::remove_file(path);
                std::os::unix::net::UnixListener::bind(path).unwrap().into()
            }
            FdSource::Tap => tap.take().unwrap(),
        };
        mappings.push(FdMapping {
            parent_fd,
            child_fd: fd.number,
        });
    }
    for placed in &plan.placed {
        let path = root.join(placed.path.strip_prefix("/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, placed.content.bytes().unwrap()).unwrap();
    }
    let mut command = Command::new("chroot");
    command.arg(root).arg(&plan.binary).args(&plan.args);
    command.fd_mappings(mappings).unwrap();
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_newer_qemu_takes_them_too() {
    if !can_try() {
        return;
    }
    let Some(root) = newer_qemu() else { return };
    network::alone(async move || {
        for (name, protection, end) in confidential() {
            let files = Files::new();
            let plan = plan(&files.launch(protection));
            let said = said_in(&root, &plan, network::tap().await);
            assert!(said.contains(end), "{name}: {said}");
        }
    });
}

#[test]
fn qemu_says_what_its_host_lacks() {
    if !can_try() {
        return;
    }
    network::alone(async || {
        let refused = sev_capabilities::ask(Path::new("/usr/bin/qemu-system-x86_64")).await;
        let why = CapabilitiesError::Refused("SEV is not enabled in KVM".into());
        assert_eq!(refused, Err(why));
        let none = sev_capabilities::ask(Path::new("/nonexistent")).await;
        assert!(matches!(none, Err(CapabilitiesError::Run(_))), "{none:?}");
        let other = sev_capabilities::ask(Path::new("/bin/true")).await;
        assert!(
            matches!(other, Err(CapabilitiesError::Unreadable(_))),
            "{other:?}"
        );
    });
}
