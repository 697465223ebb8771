//! `sev-attest measure` as a process.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sev_attest::hex_bytes::HexBytes;
use sev_attest::measure::{
    CpuSignature, FileRecord, Firmware, GuestPolicy, IdBlock, IdentityRecord, KernelHashes,
    KernelRecord, Launch, LaunchRecord, Mode, RecordError, Variants, sha256,
};

use crate::support::{AMD_SEV, OVMF_X64, firmware, noise};

struct Inputs {
    directory: tempfile::TempDir,
}

impl Inputs {
    fn new() -> Self {
        let inputs = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for (name, bytes) in [
            ("amdsev.fd", firmware(AMD_SEV, 1 << 16)),
            ("plain.fd", firmware(OVMF_X64, 1 << 16)),
            ("broken.fd", vec![0; 4096]),
            ("kernel", noise("k", 100_000)),
            ("initrd", noise("i", 50_000)),
        ] {
            std::fs::write(inputs.path(name), bytes).unwrap();
        }
        inputs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, args: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sev-attest"))
            .arg("measure")
            .args(args.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    /// Standard output of a run that must succeed in silence.
    fn ok(&self, args: &str) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), errors.as_str()),
            (Some(0), ""),
            "{args}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The library's digest for one guest with EPYC-v4.
    fn library(&self, mode: Mode, image: &str, vcpus: u32, line: Option<&str>) -> String {
        let firmware = Firmware::parse(std::fs::read(self.path(image)).unwrap()).unwrap();
        let kernel = std::fs::read(self.path("kernel")).unwrap();
        let initrd = std::fs::read(self.path("initrd")).unwrap();
        let boots: Vec<_> = line
            .map(|line| KernelHashes::new(&kernel, Some(&initrd), line).unwrap())
            .into_iter()
            .collect();
        let cpus = [CpuSignature::of_type("EPYC-v4").unwrap()];
        let variants = Variants {
            boots: &boots,
            cpus: &cpus,
            vcpus: &[vcpus],
        };
        hex::encode(Launch::new(&firmware, mode).measure(&variants).unwrap()[0].digest)
    }
}

const BOOT: &str = "--kernel kernel --initrd initrd";

#[test]
fn one_digest_is_one_line() {
    let inputs = Inputs::new();
    let snp = inputs.library(Mode::Snp, "plain.fd", 4, None);
    let args = "--firmware plain.fd --vcpus 4";
    for cpu in [
        "--vcpu-type EPYC-v4",
        "--vcpu-sig 0x800f12",
        "--vcpu-family 23 --vcpu-model 1 --vcpu-stepping 2",
    ] {
        assert_eq!(
            inputs.ok(&format!("{args} {cpu}")),
            format!("{snp}\n"),
            "{cpu}"
        );
    }
    for (mode, name) in [
        (Mode::SevEs, "sev-es"),
        (Mode::SevEs, "seves"),
        (Mode::Sev, "sev"),
    ] {
        let digest = inputs.library(mode, "plain.fd", 4, None);
        let args = format!("--mode {name} --ovmf plain.fd --vcpus 4 --vcpu-type EPYC-v4");
        assert_eq!(inputs.ok(&args), format!("{digest}\n"), "{name}");
    }
    let base64 = inputs.ok(&format!(
        "{args} --vcpu-type EPYC-v4 --output-format base64"
    ));
    assert_eq!(base64.trim().len(), 64);
}

#[test]
fn several_say_what_they_are_for() {
    let inputs = Inputs::new();
    let args = "--firmware amdsev.fd --vcpus 1..3 --vcpu-type EPYC-v4 --append a --append b=1";
    let mut expected = String::new();
    for line in ["a", "b=1"] {
        for vcpus in 1..=3 {
            let digest = inputs.library(Mode::Snp, "amdsev.fd", vcpus, Some(line));
            expected += &format!("{digest}  {vcpus} x EPYC-v4  {line:?}\n");
        }
    }
    assert_eq!(inputs.ok(&format!("{args} {BOOT}")), expected);
}

#[test]
fn json() {
    let inputs = Inputs::new();
    let args = "--json --firmware amdsev.fd --vcpus 2 --vcpu-type EPYC-v4,EPYC-Milan --append x";
    let value: serde_json::Value =
        serde_json::from_str(&inputs.ok(&format!("{args} {BOOT}"))).unwrap();
    assert_eq!(value["mode"], "snp");
    assert_eq!(value["guest_features"], 1);
    assert_eq!(value["measurements"].as_array().unwrap().len(), 2);
    let first = &value["measurements"][0];
    assert_eq!(
        first["digest"],
        inputs.library(Mode::Snp, "amdsev.fd", 2, Some("x"))
    );
    assert_eq!(first["vcpus"], 2);
    assert_eq!(first["vcpu_type"], "EPYC-v4");
    assert_eq!(first["vcpu_signature"], "0x800f12");
    assert_eq!(first["append"], "x");
    assert_eq!(value["measurements"][1]["vcpu_signature"], "0xa00f11");
}

#[test]
fn refusals_name_the_input_and_the_way_out() {
    let inputs = Inputs::new();
    let plain = "--firmware plain.fd --vcpus 1 --vcpu-type EPYC";
    for (args, expected) in [
        (format!("{plain} --kernel kernel"), "AmdSev build"),
        (
            format!("{plain} --mode sev --kernel kernel"),
            "AmdSev build",
        ),
        (
            "--firmware broken.fd --vcpus 1 --vcpu-type EPYC".into(),
            "broken.fd: firmware has no OVMF",
        ),
        (
            "--firmware none.fd --vcpus 1 --vcpu-type EPYC".into(),
            "none.fd: No such file",
        ),
        (
            "--firmware . --vcpus 1 --vcpu-type EPYC".into(),
            ".: Is a directory",
        ),
        (
            "--firmware /dev/zero --vcpus 1 --vcpu-type EPYC".into(),
            "longer than 67108864 bytes",
        ),
        (
            format!("{} --kernel none", plain.replace("plain", "amdsev")),
            "none: No such file",
        ),
        ("--firmware plain.fd --vcpus 1".into(), "--vcpu-type"),
        ("--firmware plain.fd --vcpu-type EPYC".into(), "--vcpus"),
        (
            "--firmware plain.fd --vcpus 0 --vcpu-type EPYC".into(),
            "expected 1 to 4096",
        ),
        (
            "--firmware plain.fd --vcpus 1 --vcpu-type host".into(),
            "depends on the host",
        ),
        (
            "--firmware plain.fd --vcpus 1 --vcpu-type EPIC".into(),
            "EPYC-Milan-v2",
        ),
        (
            "--mode sev --firmware plain.fd --vcpu-type EPIC".into(),
            "EPYC-Milan-v2",
        ),
        (
            "--firmware plain.fd --vcpus 1 --vcpu-family 23".into(),
            "--vcpu-model",
        ),
        (format!("{plain} --vcpu-sig 1"), "cannot be used with"),
        (format!("{plain} --initrd initrd"), "--kernel"),
        (format!("{plain} --append x"), "--kernel"),
        (
            format!("{plain} --mode sev --policy-out p.toml"),
            "--mode snp only",
        ),
        (
            format!("{plain} --id-key kernel"),
            "longer than 65536 bytes",
        ),
        (
            format!("{plain} --id-key initrd"),
            "initrd: not a P-384 private key",
        ),
        (format!("{plain} --author-key kernel"), "--id-key"),
    ] {
        let output = inputs.run(&args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args}: {errors}");
        assert!(errors.contains(expected), "{args}: {errors}");
        assert!(output.stdout.is_empty(), "{args}");
    }
    assert!(!inputs.path("p.toml").exists());
}

#[test]
fn policy_file_lists_every_digest_and_is_not_overwritten() {
    let inputs = Inputs::new();
    let args =
        "--firmware plain.fd --vcpus 1,2 --vcpu-type EPYC-v4 --policy-out guest.toml".to_owned();
    inputs.ok(&args);
    let text = std::fs::read_to_string(inputs.path("guest.toml")).unwrap();
    for vcpus in [1, 2] {
        assert!(
            text.contains(&inputs.library(Mode::Snp, "plain.fd", vcpus, None)),
            "{text}"
        );
    }
    assert_eq!(inputs.run(&args).status.code(), Some(2));
    inputs.ok(&format!("{args} --force"));
}

/// Types that share a signature, and so the digest, keep their names.
#[test]
fn each_row_has_the_type_that_was_asked_for() {
    let inputs = Inputs::new();
    let args = "--firmware plain.fd --vcpus 1,2 --vcpu-type EPYC,EPYC-Milan,EPYC-v4";
    let text = inputs.ok(args);
    let names: Vec<&str> = text
        .lines()
        .map(|line| line.split_once("  ").unwrap().1)
        .collect();
    assert_eq!(
        names,
        [
            "1 x EPYC",
            "2 x EPYC",
            "1 x EPYC-Milan",
            "2 x EPYC-Milan",
            "1 x EPYC-v4",
            "2 x EPYC-v4"
        ]
    );
    let digest = |row: usize| &text.lines().nth(row).unwrap()[..96];
    assert!(digest(0) == digest(4) && digest(0) != digest(2));
}

#[test]
fn id_block_for_qemu() {
    let inputs = Inputs::new();
    for name in ["id.pem", "author.pem"] {
        openssl_key(&inputs.path(name));
    }
    let args = "--firmware plain.fd --vcpus 1 --vcpu-type EPYC-v4 --id-key id.pem \
                --author-key author.pem --guest-policy 0x30000 --guest-svn 7 \
                --family-id 000102030405060708090a0b0c0d0e0f --policy-out guest.toml";
    let text = inputs.ok(args);
    let policy = std::fs::read_to_string(inputs.path("guest.toml")).unwrap();
    let policy = sev_attest::policy::Policy::from_toml(&policy).unwrap();
    assert_eq!(policy.min_guest_svn, Some(7));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], inputs.library(Mode::Snp, "plain.fd", 1, None));
    assert!(lines[1].starts_with("policy=0x30000,author-key-enabled=on,id-block="));
    assert!(lines[2].starts_with("id key digest "));
    assert!(lines[3].starts_with("author key digest "));
    // QEMU decodes both properties and checks their lengths when the object is created.
    let object = format!(
        "sev-snp-guest,id=snp,cbitpos=51,reduced-phys-bits=1,{}",
        lines[1]
    );
    assert_eq!(qemu_object(&object), "");
    for (property, complaint) in [
        ("id-block=", "not equal to 96"),
        ("id-auth=", "exceeds max of 4096"),
    ] {
        let longer = qemu_object(&object.replacen(property, &format!("{property}AAAA"), 1));
        assert!(longer.contains(complaint), "{longer}");
    }
}

fn openssl_key(path: &Path) {
    let status = Command::new("openssl")
        .args(["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

/// What QEMU says about an object.
fn qemu_object(object: &str) -> String {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg",
            "-machine",
            "none",
            "-nodefaults",
            "-display",
            "none",
        ])
        .args(["-S", "-qmp", "stdio", "-object", object])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = qemu.stdin.take().unwrap();
    // QEMU may have refused the object and gone already.
    let _ = input.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n");
    let output = qemu.wait_with_output().unwrap();
    drop(input);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A host's `launch.json` for two vCPUs, with kernel and initial RAM disk.
fn launch_json(inputs: &Inputs) -> LaunchRecord {
    let file = |name: &str| std::fs::read(inputs.path(name)).unwrap();
    let record = |name: &str| FileRecord {
        bytes: file(name).len() as u64,
        sha256: HexBytes(sha256(&file(name))),
    };
    let boot = KernelRecord {
        kernel: record("kernel"),
        initrd: Some(record("initrd")),
        cmdline: "console=ttyS0".to_owned(),
    };
    let firmware = Firmware::parse(file("amdsev.fd")).unwrap();
    LaunchRecord::new(
        record("amdsev.fd"),
        &firmware,
        Some(boot),
        (2, "EPYC-v4"),
        GuestPolicy::USUAL,
        [7; 32],
    )
    .unwrap()
}

#[test]
fn a_hosts_launch_is_recomputed_from_the_owners_files() {
    let inputs = Inputs::new();
    let record = launch_json(&inputs);
    std::fs::write(inputs.path("launch.json"), record.to_json()).unwrap();
    let digest = inputs.library(Mode::Snp, "amdsev.fd", 2, Some("console=ttyS0"));
    let args = "--from launch.json --firmware amdsev.fd";
    let all = format!("{args} --kernel kernel --initrd initrd");
    assert_eq!(inputs.ok(&all), format!("{digest}\n"));
    // What is not given is said to be the host's word.
    let output = inputs.run(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for what in ["kernel", "initrd"] {
        assert!(
            said.contains(&format!("the {what} was not looked at")),
            "{said}"
        );
    }
    // Every file that differs is named.
    std::fs::write(inputs.path("other"), "other").unwrap();
    let refused = |args: &str| {
        let output = inputs.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{args}: {said}"
        );
        said
    };
    let said = refused(&format!("{args} --kernel other --initrd other"));
    assert!(
        said.contains("the kernel differs") && said.contains("the initrd differs"),
        "{said}"
    );
    let said = refused("--from launch.json --firmware plain.fd --kernel kernel");
    assert!(
        said.contains("the firmware differs") && !said.contains("the kernel differs"),
        "{said}"
    );
    refused(&format!("{args} --vcpus 2"));
    refused("--from nowhere.json --firmware amdsev.fd");
}

#[test]
fn a_launch_json_that_does_not_hold_is_refused() {
    let inputs = Inputs::new();
    let good = launch_json(&inputs).to_json();
    let image = std::fs::read(inputs.path("amdsev.fd")).unwrap();
    let check = |text: &str| LaunchRecord::parse(text.as_bytes())?.check(&image);
    assert_eq!(check(&good), Ok(()));
    // One input changed: the digest is not the one that follows.
    for (from, to) in [
        ("\"vcpus\": 2", "\"vcpus\": 3"),
        ("EPYC-v4", "EPYC-Milan"),
        ("console=ttyS0", "console=ttyS0 init=/bin/sh"),
    ] {
        let changed = good.replace(from, to);
        assert_ne!(changed, good);
        assert!(
            matches!(check(&changed), Err(RecordError::Digest { .. })),
            "{to}"
        );
    }
    for (from, to) in [
        ("\"vcpus\": 2", "\"vcpus\": 2, \"more\": 1"),
        ("\"bytes\"", "\"more\": 1, \"bytes\""),
        ("sev-attest/launch/1", "sev-attest/launch/2"),
        ("0x30000", "196608"),
        ("\"0x30000\"", "\"0x0\""),
        ("\"vcpus\": 2", "\"vcpus\": 0"),
        ("EPYC-v4", "host"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        assert!(check(&changed).is_err(), "{to}");
    }
    // An ID block that the firmware would refuse.
    let record = launch_json(&inputs);
    let block = |digest, policy| {
        let block = IdBlock {
            policy,
            ..IdBlock::new(digest)
        };
        let signed = block.sign_without_key().unwrap();
        let mut record = record.clone();
        record.id_block = Some(IdentityRecord {
            block: signed.block_base64(),
            auth: signed.auth_base64(),
            author_key: false,
        });
        check(&record.to_json())
    };
    let digest = record.launch_digest.0;
    assert_eq!(block(digest, 0x3_0000), Ok(()));
    for refused in [block([0; 48], 0x3_0000), block(digest, 0xb_0000)] {
        assert!(
            matches!(refused, Err(RecordError::IdBlock(_))),
            "{refused:?}"
        );
    }
}
