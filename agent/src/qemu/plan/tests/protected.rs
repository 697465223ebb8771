//! Guests that keep their host out.

use sev_attest::measure::GuestPolicy;

use super::*;
use crate::qemu::sealed::SealedFile;

fn sealed(text: &str) -> SealedFile {
    SealedFile::of(text.as_bytes()).unwrap()
}

fn host() -> SevHost {
    SevHost {
        device: "/dev/sev".into(),
        cbitpos: 51,
        reduced_phys_bits: 1,
    }
}

fn kernel() -> DirectKernel {
    DirectKernel {
        kernel: sealed("kernel"),
        initrd: Some(sealed("initrd")),
        cmdline: "console=ttyS0 luks=1".into(),
    }
}

fn snp() -> Snp {
    Snp {
        host: host(),
        cpu: NamedCpu::new("EPYC-v4").unwrap(),
        policy: GuestPolicy::USUAL,
        host_data: [0xab; 32],
        identity: None,
        firmware: sealed("firmware"),
        kernel: Some(kernel()),
    }
}

fn sev(policy: u32) -> Sev {
    Sev {
        host: host(),
        cpu: NamedCpu::new("EPYC-v4").unwrap(),
        policy,
        session: sealed("session"),
        dh_cert: sealed("certificate"),
        firmware: sealed("firmware"),
        kernel: None,
        seed: Some("/state/instances/ab/seed.iso".into()),
    }
}

fn launch(protection: Protection) -> Launch {
    Launch {
        protection,
        console_log: None,
        volumes: vec![VolumeDisk {
            id: "00112233445566aa".into(),
            path: "/state/volumes/00112233445566aa.qcow2".into(),
        }],
        ..example()
    }
}

#[test]
fn snp_guest_with_a_measured_kernel() {
    let plan = plan(&launch(Protection::Snp(snp())));
    insta::assert_snapshot!(rendered(&plan));
}

#[test]
fn snp_guest_with_an_id_block_that_boots_from_its_disk() {
    let identity = Identity {
        block: [1; 96],
        auth: Box::new([2; 4096]),
        author_key: true,
    };
    let plan = plan(&launch(Protection::Snp(Snp {
        kernel: None,
        identity: Some(identity),
        ..snp()
    })));
    // The long one is looked at here, and left out of what is to be read.
    let auth = base64(&[2; 4096]);
    let shown = rendered(&plan);
    assert!(shown.contains(&auth));
    insta::assert_snapshot!(shown.replace(&auth, "[ID_AUTH]"));
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[test]
fn sev_guest() {
    insta::assert_snapshot!(rendered(&plan(&launch(Protection::Sev(sev(1))))));
}

#[test]
fn sev_es_guest_with_a_measured_kernel() {
    let sev = Sev {
        kernel: Some(kernel()),
        ..sev(5)
    };
    insta::assert_snapshot!(rendered(&plan(&launch(Protection::Sev(sev)))));
}

#[test]
fn open_guest_with_a_kernel() {
    let boot = Boot::DirectKernel {
        firmware: Some(sealed("firmware")),
        kernel: kernel(),
    };
    let open = Open { boot, ..open() };
    let protection = Protection::None(open);
    insta::assert_snapshot!(rendered(&plan(&Launch {
        protection,
        ..example()
    })));
}

#[test]
fn a_host_that_is_kept_out_has_no_way_in() {
    for protection in [
        Protection::Snp(snp()),
        Protection::Snp(Snp {
            kernel: None,
            ..snp()
        }),
        Protection::Sev(sev(5)),
    ] {
        let plan = plan(&launch(protection));
        let text = plan.args.join(" ");
        for device in [
            "balloon",
            "virtio-rng",
            "virtserialport",
            "pflash",
            "logfile",
        ] {
            assert!(!text.contains(device), "{device}: {text}");
        }
        // Each virtio device says that it reaches shared memory alone.
        let virtio = plan.args.iter().filter(|a| a.contains("virtio-"));
        for device in virtio {
            let private = device.contains("\"iommu_platform\":true");
            assert!(
                private && device.contains("\"disable-legacy\":\"on\""),
                "{device}"
            );
        }
        // Nothing of the host's file system is named to QEMU.
        for path in ["/state", "/run", "/fw"] {
            assert!(!text.contains(path), "{path}: {text}");
        }
        assert_eq!(plan.devices, [Path::new("/dev/sev")]);
    }
    // The seed is the host's word on what runs in the guest.
    let snp = plan(&launch(Protection::Snp(snp())));
    assert!(!snp.args.join(" ").contains("seed"));
}

#[test]
fn only_models_with_a_signature_of_their_own() {
    for name in ["host", "max", "qemu64", "", "EPYC-v4,svm=on"] {
        assert!(NamedCpu::new(name).is_err(), "{name}");
    }
    assert_eq!(NamedCpu::new("EPYC-Milan").unwrap().name(), "EPYC-Milan");
}
