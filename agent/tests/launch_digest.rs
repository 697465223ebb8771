//! The launch digest that the agent predicts, against what the real QEMU gives to the security
//! processor: the agent's own launch of an SNP guest, recorded by a library between QEMU and
//! the kernel (`tests/snp-launch-recorder`). The digest of the record is computed here from the
//! specifications, by nothing of `sev-attest`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

// Preloaded, not linked: `snp_launch_recorder` is a dependency so that cargo builds it.

use std::{
    arch::x86_64::__cpuid_count,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crn_agent::testing::qemu::{
    confidential::{IdentityRequest, KernelFiles, Prepared, SnpRequest, prepare},
    confine::Confinement,
    launch::launch_by,
    plan::{DiskFormat, FdSource, Launch, NamedCpu, PlannedFd, Protection, SevHost, plan},
};
use disk::{BaseRef, ByteSize, Format, OverlaySpec, create_overlay};
use sev_attest::measure::GuestPolicy;
use sha2::{Digest, Sha384};
use testbed::{boot_sector, network, until};

const PATIENCE: Duration = Duration::from_secs(120);
const UID: u32 = 2_100_017;
const MIB: u64 = 1 << 20;
/// How a record begins; see the recorder.
const MAGIC: &[u8] = b"SNP launch rec 1";
/// A device node that every host has, in place of the security processor's.
const DEVICE: &str = "/dev/full";
const FIRMWARE: &str = "CRN_TEST_AMDSEV";

#[test]
fn what_qemu_launches_is_what_was_predicted() {
    if Path::new("/dev/sev").exists() {
        skip::skip!("no-sev", "this host has SEV");
    }
    let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(e) = kvm {
        skip::skip!("kvm", "{e}");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/host/ovmf-amdsev.sh");
    let output = Command::new(script).output().unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        skip::skip!("ovmf-amdsev", "{}", said.trim());
    }
    let firmware = String::from_utf8(output.stdout).unwrap();
    let test = std::env::current_exe().unwrap();
    let recorder = test.with_file_name("libsnp_launch_recorder.so");
    assert!(recorder.exists(), "{}", recorder.display());
    // In a process of its own: the recorder is named by the environment.
    let status = Command::new(&test)
        .args(["recorded", "--exact", "--ignored", "--nocapture"])
        .env("CRN_TEST_PRELOAD", &recorder)
        .env(FIRMWARE, firmware.trim_end())
        .status();
    assert!(status.unwrap().success());
}

#[test]
#[ignore = "run by what_qemu_launches_is_what_was_predicted"]
fn recorded() {
    let Some(firmware) = std::env::var_os(FIRMWARE).map(PathBuf::from) else {
        panic!("run by another test");
    };
    network::alone(async move || {
        for cpu in ["EPYC-v4", "EPYC-Milan"] {
            for vcpus in [1, 2, 4] {
                for kernel in [None, Some(false), Some(true)] {
                    let name = format!("{vcpus} x {cpu}, kernel and initrd: {kernel:?}");
                    one_launch(&name, &firmware, vcpus, cpu, kernel).await;
                }
            }
        }
    });
}

/// Kernel: none, without an initial RAM disk, with one.
async fn one_launch(name: &str, firmware: &Path, vcpus: u32, cpu: &str, kernel: Option<bool>) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::copy(firmware, path("firmware")).unwrap();
    fs::write(path("kernel"), kernel_image()).unwrap();
    fs::write(path("initrd"), [7; 70_000]).unwrap();
    let request = SnpRequest {
        firmware: path("firmware"),
        kernel: kernel.map(|initrd| KernelFiles {
            kernel: path("kernel"),
            initrd: initrd.then(|| path("initrd")),
            cmdline: "console=ttyS0 luks=1 owner=0xab".into(),
        }),
        vcpus,
        cpu: NamedCpu::new(cpu).unwrap(),
        policy: GuestPolicy::USUAL,
        host_data: [0x5a; 32],
        identity: match kernel {
            Some(true) => IdentityRequest::Keyless,
            _ => IdentityRequest::None,
        },
        expected: Vec::new(),
    };
    let host = SevHost {
        device: DEVICE.into(),
        // In QEMU's way to ask.
        cbitpos: __cpuid_count(0x8000_001f, 0).ebx & 0x3f,
        reduced_phys_bits: 1,
    };
    let prepared = prepare(&request, host).unwrap();
    // Whoever swaps the files now is too late.
    for file in ["firmware", "kernel", "initrd"] {
        fs::write(path(file), "another").unwrap();
    }
    let record = launched(dir.path(), &prepared, vcpus, name).await;
    let predicted = hex::encode(prepared.record.launch_digest.0);
    assert_eq!(hex::encode(record.digest()), predicted, "{name}");
    assert_eq!(record.start[..8], 0x3_0000_u64.to_le_bytes(), "{name}");
    assert_eq!(record.vcpus.len(), vcpus as usize, "{name}");
    let finish = &record.finish;
    assert_eq!(finish[19..51], [0x5a; 32], "{name}: host data");
    match &prepared.snp.identity {
        None => assert_eq!((finish[16], finish.len()), (0, 88), "{name}"),
        Some(identity) => {
            assert_eq!((finish[16], finish[17]), (1, 0), "{name}");
            assert_eq!(finish[88..][..96], identity.block, "{name}");
            assert_eq!(finish[88 + 96..], identity.auth[..], "{name}");
        }
    }
}

/// Launches it as the agent does, until QEMU has told all.
async fn launched(dir: &Path, prepared: &Prepared, vcpus: u32, name: &str) -> Record {
    let path = |name: &str| dir.join(name);
    boot_sector::write_disk(&path("base.raw"));
    let base = BaseRef {
        path: path("base.raw"),
        format: Format::Raw,
        virtual_size: ByteSize::from_bytes(MIB),
    };
    let spec = OverlaySpec::new(base, ByteSize::from_bytes(64 * MIB));
    create_overlay(&path("root.qcow2"), &spec).unwrap();
    fs::create_dir(path("run")).unwrap();
    fs::write(path("record"), MAGIC).unwrap();
    let mut plan = plan(&Launch {
        binary: "/usr/bin/qemu-system-x86_64".into(),
        marker: format!("crn:{:016x}:{}", std::process::id(), "ab".repeat(32)),
        uuid: "abababab-abab-abab-abab-abababababab".into(),
        vcpus,
        memory_mib: 128,
        machine: "q35".into(),
        protection: Protection::Snp(prepared.snp.clone()),
        root: path("root.qcow2"),
        base: (path("base.raw"), DiskFormat::Raw),
        watchdog: false,
        volumes: Vec::new(),
        mac: "02:ab:00:00:00:07".into(),
        mtu: 1500,
        run_dir: path("run"),
        console_log: None,
        uid: UID,
        isolate_network: true,
        cgroup_procs: None,
        largest_file: Some(64 * MIB),
        confinement: Confinement::default(),
    });
    let record = PlannedFd {
        number: plan.next_fd(),
        source: FdSource::ReadWrite(path("record")),
    };
    plan.fds.push(record);
    let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
    let log = path("qemu.log");
    let held = launch_by(agent, &plan, network::tap().await, &log).unwrap();
    let process = held.release().await;
    let (file, name) = (path("record"), name.to_owned());
    let record = tokio::task::spawn_blocking(move || {
        let record = until(PATIENCE, "the end of the launch", || {
            let record = Record::read(&fs::read(&file).unwrap());
            let alive = process.is_alive();
            let said = || fs::read_to_string(&log).unwrap();
            assert!(record.is_some() || alive, "{name}: {}", said());
            record
        });
        process.kill();
        record
    });
    record.await.unwrap()
}

/// The smallest file that QEMU takes for a Linux kernel.
fn kernel_image() -> Vec<u8> {
    let mut image = vec![0x90; 100_000];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[2, 2]);
    image[0x211] = 1;
    image
}

/// What the recorder wrote.
#[derive(Debug, Default)]
struct Record {
    start: Vec<u8>,
    /// Guest address, page type, bytes.
    updates: Vec<(u64, u8, Vec<u8>)>,
    vcpus: Vec<Vec<u8>>,
    finish: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Record {
    /// `None` until the launch is finished.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut record = Self::default();
        while rest.len() >= 16 {
            let (kind, len) = (word(rest, 0), usize::try_from(word(rest, 8)).unwrap());
            let entry = rest.get(16..16 + len)?.to_vec();
            rest = &rest[16 + len..];
            match kind {
                1 => record.start = entry,
                2 => {
                    let kind = u8::try_from(word(&entry, 8)).unwrap();
                    record
                        .updates
                        .push((word(&entry, 0), kind, entry[16..].to_vec()));
                }
                3 => record.vcpus.push(entry),
                4 => record.finish = entry,
                other => panic!("entry of kind {other}"),
            }
        }
        (!record.finish.is_empty()).then_some(record)
    }

    /// The digest that the firmware computes: AMD 56860, section 8.17.2.
    fn digest(&self) -> [u8; 48] {
        const NORMAL: u8 = 1;
        const VMSA: u8 = 2;
        let mut digest = [0; 48];
        for (address, kind, bytes) in &self.updates {
            for (page, address) in bytes.chunks(4096).zip((*address..).step_by(4096)) {
                let contents = match *kind {
                    NORMAL => sha384(page),
                    // Zeros, and what the firmware itself fills in.
                    _ => [0; 48],
                };
                digest = extended(digest, contents, *kind, address);
            }
        }
        for vcpu in &self.vcpus {
            // The kernel knows no address for it and says all ones.
            let contents = sha384(&save_area(vcpu));
            digest = extended(digest, contents, VMSA, 0xffff_ffff_f000);
        }
        digest
    }
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    Sha384::digest(bytes).into()
}

/// The structure PAGE_INFO of one page, hashed.
fn extended(digest: [u8; 48], contents: [u8; 48], kind: u8, address: u64) -> [u8; 48] {
    let mut info = [0; 0x70];
    info[..48].copy_from_slice(&digest);
    info[48..96].copy_from_slice(&contents);
    info[96..98].copy_from_slice(&0x70_u16.to_le_bytes());
    info[98] = kind;
    info[0x68..].copy_from_slice(&address.to_le_bytes());
    sha384(&info)
}

/// A vCPU's save area, as Linux makes it of these registers (`sev_es_sync_vmsa` and what it
/// changes in them before: arch/x86/kvm/svm), laid out as in APM volume 2, table B-4.
fn save_area(vcpu: &[u8]) -> Vec<u8> {
    let (regs, rest) = vcpu[8..].split_at(144);
    let (sregs, rest) = rest.split_at(312);
    let (debug, rest) = rest.split_at(128);
    let (xcrs, rest) = rest.split_at(392);
    let (pat, float) = rest.split_at(8);
    let mut area = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    // ES, CS, SS, DS, FS, GS, LDTR, TR: where they are here, and in kvm_sregs.
    let segments = [
        (0x00, 2),
        (0x10, 0),
        (0x20, 5),
        (0x30, 1),
        (0x40, 3),
        (0x50, 4),
        (0x70, 7),
        (0x90, 6),
    ];
    for (at, nth) in segments {
        put(at, &segment(&sregs[nth * 24..][..24]));
    }
    for (at, from) in [(0x60, 192), (0x80, 208)] {
        // GDTR, IDTR: base and 16-bit limit.
        put(at + 4, &sregs[from + 8..from + 10]);
        put(at + 8, &sregs[from..from + 8]);
    }
    let system = |nth: usize| word(sregs, 224 + nth * 8);
    let (cr0, cr2, cr3, cr4, efer) = (system(0), system(1), system(2), system(3), system(5));
    let general = |nth: usize| word(regs, nth * 8);
    let words = [
        (0xd0, efer | 1 << 12), // SVME: the processor wants it set
        (0x148, cr4 | 1 << 6),  // MCE, as the host has it
        (0x150, cr3),
        (0x158, cr0 & !(3 << 29)), // caches are not switched off
        (0x160, word(debug, 40)),  // DR7
        (0x168, word(debug, 32)),  // DR6
        (0x170, general(17)),      // RFLAGS
        (0x178, general(16)),      // RIP
        (0x1d8, general(6)),       // RSP
        (0x1f8, general(0)),       // RAX
        (0x240, cr2),
        (0x268, word(pat, 0)),
        (0x308, general(2)),     // RCX
        (0x310, general(3)),     // RDX
        (0x318, general(1)),     // RBX
        (0x328, general(7)),     // RBP
        (0x330, general(4)),     // RSI
        (0x338, general(5)),     // RDI
        (0x3b0, 1),              // SEV_FEATURES: SNPActive
        (0x3e8, word(xcrs, 16)), // XCR0
    ];
    for (at, value) in words {
        put(at, &value.to_le_bytes());
    }
    for nth in 8..16 {
        put(0x340 + (nth - 8) * 8, &general(nth).to_le_bytes());
    }
    // FCW, FSW, MXCSR.
    put(0x408, &float[4..]);
    put(0x40e, &float[2..4]);
    put(0x410, &float[..2]);
    area
}

/// A `kvm_segment` as in the save area: selector, attributes, limit, base.
fn segment(from: &[u8]) -> [u8; 16] {
    let flag = |at: usize, shift: u16| u16::from(from[at]) << shift;
    // type, present, DPL, DB, S, L, G, AVL from byte 14 on, then "unusable".
    let present = if from[22] == 0 { flag(15, 7) } else { 0 };
    let attributes = flag(14, 0)
        | flag(18, 4)
        | flag(16, 5)
        | present
        | flag(21, 8)
        | flag(19, 9)
        | flag(17, 10)
        | flag(20, 11);
    let mut segment = [0; 16];
    segment[..2].copy_from_slice(&from[12..14]);
    segment[2..4].copy_from_slice(&attributes.to_le_bytes());
    segment[4..8].copy_from_slice(&from[8..12]);
    segment[8..].copy_from_slice(&from[..8]);
    segment
}
