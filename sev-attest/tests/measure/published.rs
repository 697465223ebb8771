//! Digests that others publish with their fixtures.

use std::path::PathBuf;

use sev_attest::measure::{
    CpuSignature, Firmware, KernelHashes, Launch, Mode, Svsm, Variants, Vmm, firmware_context,
};

use crate::support::AMD_SEV;

fn launch(vmm: Vmm, features: u64, vcpus: u32, append: &str) -> String {
    let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
    let boots = [KernelHashes::new(b"", Some(b""), append).unwrap()];
    let variants = Variants {
        boots: &boots,
        cpus: &[CpuSignature::of_type("EPYC-v4").unwrap()],
        vcpus: &[vcpus],
    };
    let launch = Launch::new(&firmware, Mode::Snp)
        .vmm(vmm)
        .features(features);
    hex::encode(launch.measure(&variants).unwrap()[0].digest)
}

/// sev-snp-measure 0.0.13 `tests/test_guest.py`, and `virtee/sev` 8.0 `tests/measurement.rs` for
/// EC2 as it was until 2026.
#[test]
fn monitors() {
    for (vmm, features, vcpus, digest) in [
        (
            Vmm::Ec2,
            0x21,
            1,
            "0ce9ccc06bab55eebe8abc234f3df6514883977a68a591b71052498ab52b2f1aa415db338033946ef93aa8278c0d67fb",
        ),
        (
            Vmm::Ec2,
            1,
            1,
            "0883bd0eeb716e65b7b977a321c278d1e51b33b5c655fab985443bbcc65c086b9c15e8a0bd8811050dec7e24964e5056",
        ),
        (
            Vmm::Ec2Until2026,
            0x21,
            1,
            "6ae80856486b1396af8c82a40351d6ed76a20c785e9c7fa4ffa27c22d5d6313b4b3b458cd3c9968e6f89fb5d8450d7a6",
        ),
        (
            Vmm::Ec2Until2026,
            1,
            1,
            "7d3756157c805bf6adf617064c8552e8c1688fa1c8756f11cbf56ba5d25c9270fb69c0505c1cbe1c5c66c0e34c6ed3be",
        ),
        (
            Vmm::Gce,
            1,
            1,
            "5da7106cf14cf46b1725ebab123eb9e53bd46a1e9f400cd0c08e7827b04b688ea8b4e403c8404efed4397ea5d5d0722e",
        ),
        (
            Vmm::Gce,
            1,
            4,
            "5c5debf100fc339f90276e761ee1f1658d08922c3b20e2a2e6c7a6c3370b2452a15a00eae11886a93d6fd1e7ab81e29d",
        ),
    ] {
        assert_eq!(
            launch(vmm, features, vcpus, ""),
            digest,
            "{vmm:?} {features:#x} {vcpus}"
        );
    }
    // Genoa's guests have wider addresses, under which the vCPUs are measured.
    assert_ne!(launch(Vmm::GceGenoa, 1, 1, ""), launch(Vmm::Gce, 1, 1, ""));
}

/// The digest of the firmware's pages takes the firmware's place.
#[test]
fn known_firmware_digest() {
    let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
    let pages = firmware_context(&firmware).unwrap().digest();
    assert_eq!(
        hex::encode(pages),
        "086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74"
    );
    let line = "console=ttyS0 loglevel=7";
    let boots = [KernelHashes::new(b"", Some(b""), line).unwrap()];
    let variants = Variants {
        boots: &boots,
        cpus: &[CpuSignature::of_type("EPYC-v4").unwrap()],
        vcpus: &[1],
    };
    // Other bytes in front: only the tables count.
    let other = Firmware::parse([&[7; 4096], AMD_SEV].concat()).unwrap();
    let launch = Launch::new(&other, Mode::Snp).firmware_digest(pages);
    let digest = hex::encode(launch.measure(&variants).unwrap()[0].digest);
    assert_eq!(digest, self::launch(Vmm::Qemu, 1, 1, line));
    assert_eq!(
        digest,
        "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa"
    );
}

/// sev-snp-measure's fixtures of COCONUT, 4.8 MB that are not in this repository: a directory with
/// `svsm.bin` and `svsm_ovmf.fd` in `SEV_ATTEST_SVSM_FIXTURES`. Their digests were measured on
/// hardware.
#[test]
fn svsm() {
    let Some(directory) = std::env::var_os("SEV_ATTEST_SVSM_FIXTURES").map(PathBuf::from) else {
        let why = "SEV_ATTEST_SVSM_FIXTURES names no directory";
        skip::record("sev-attest/svsm-fixtures", why);
        return;
    };
    let read = |name| std::fs::read(directory.join(name)).unwrap();
    let firmware = Firmware::parse(read("svsm_ovmf.fd")).unwrap();
    let svsm = Svsm::parse(read("svsm.bin"), &firmware, 540_672).unwrap();
    let variants = Variants {
        boots: &[],
        cpus: &[CpuSignature::of_type("EPYC-v4").unwrap()],
        vcpus: &[2, 4],
    };
    let digests: Vec<String> = svsm
        .measure(&firmware, &variants)
        .unwrap()
        .iter()
        .map(|measurement| hex::encode(measurement.digest))
        .collect();
    assert_eq!(
        digests,
        [
            "9b94745036aafddf4f7f8b00c7513abb5b7703178cb95aaa57928bd963d68d3bfcb715d6019b9167ee2517b11b0d9be7",
            "27d154c27b7b359c935e250ec6fee72aa0ae8c1225e3b0e1cf46a9567e938066d7d6f94bbdc4a857818bdb79277a44b2",
        ]
    );
}

/// An SVSM's image can lie: about where it starts, and about where it belongs.
#[test]
fn svsm_images_are_held_to_their_place() {
    let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
    let parse = |image: &[u8], variables| {
        let parsed = Svsm::parse(image.to_vec(), &firmware, variables);
        parsed.map(drop).unwrap_err().to_string()
    };
    assert!(parse(AMD_SEV, 0).contains("no entry point"));
    assert!(parse(&AMD_SEV[1..], 0).contains("whole pages"));
    assert!(parse(AMD_SEV, 100).contains("whole pages"));
    assert!(parse(AMD_SEV, 1 << 33).contains("first 4 GiB"));
    assert!(parse(&[0; 4096], 0).contains("GUID table"));
}

#[test]
fn features_that_no_firmware_launches() {
    let firmware = Firmware::parse(AMD_SEV.to_vec()).unwrap();
    for (mode, features, said) in [
        (Mode::Snp, 0, true),
        (Mode::Snp, 1, false),
        (Mode::Snp, 0x21, false),
        (Mode::Snp, 0x20, true),
        (Mode::Snp, 1 | 1 << 61, true),
        (Mode::Snp, 1 | 1 << 11, true),
        (Mode::SevEs, 0, false),
        (Mode::SevEs, 1, true),
        (Mode::Sev, 1, false),
    ] {
        let launch = Launch::new(&firmware, mode).features(features);
        assert_eq!(
            launch.impossible_features().is_some(),
            said,
            "{mode} {features:#x}"
        );
    }
}
