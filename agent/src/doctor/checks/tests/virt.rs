use super::{
    super::{sev, virt},
    *,
};
use crate::{
    config::AccelSetting,
    host::{
        Device,
        firmware::{Candidate, FirmwareFacts, State},
        kvm::Kvm,
        qemu::{QemuFacts, Version},
        run::RunError,
        sev::{Module, SevCpu, SevFacts, VmTypes},
    },
};

#[test]
fn kvm_and_accelerator() {
    let (slow, fast) = (Kvm::Emulated { mips: 2.0 }, Kvm::Hardware { mips: 3000.0 });
    let missing = Kvm::Missing {
        why: "/dev/kvm does not exist".into(),
    };
    let broken = Kvm::Broken {
        what: "hung".into(),
    };
    let table = [
        (&fast, AccelSetting::Auto, Good, Good),
        (&fast, AccelSetting::Kvm, Good, Good),
        (&fast, AccelSetting::Tcg, Good, Degraded),
        (&slow, AccelSetting::Auto, Degraded, Degraded),
        (&slow, AccelSetting::Kvm, Degraded, Degraded),
        (&Kvm::NoAccess, AccelSetting::Auto, Degraded, Degraded),
        (&missing, AccelSetting::Auto, Missing, Degraded),
        (&broken, AccelSetting::Tcg, Missing, Degraded),
    ];
    for (kvm, accel, kvm_status, accel_status) in table {
        let (a, b) = (virt::kvm(kvm), virt::accel(accel, kvm));
        assert_eq!(
            (a.status, b.status),
            (kvm_status, accel_status),
            "{kvm:?} {accel:?}"
        );
    }
    let check = virt::kvm(&slow);
    assert!(
        check.found.contains("present") && check.found.contains("2.0 MIPS"),
        "{check:?}"
    );
    let check = virt::accel(AccelSetting::Auto, &slow);
    assert!(check.found.starts_with("TCG, because"), "{check:?}");
}

fn qemu_facts() -> QemuFacts {
    QemuFacts {
        version: Some(Version {
            major: 10,
            minor: 0,
            micro: 2,
        }),
        banner: "QEMU emulator version 10.0.2".into(),
        sandbox: true,
        objects: set(&[
            "iothread",
            "memory-backend-memfd",
            "rng-random",
            "sev-guest",
            "sev-snp-guest",
        ]),
        accelerators: set(&["kvm", "tcg"]),
        machines: set(&["q35"]),
    }
}

#[test]
fn qemu_builds() {
    let verdicts = |facts: &QemuFacts| {
        let checks = virt::qemu(Path::new("/usr/bin/q"), &Ok(facts.clone()));
        checks.iter().map(|c| c.status).collect::<Vec<_>>()
    };
    let good = qemu_facts();
    assert_eq!(verdicts(&good), [Good, Good, Good]);
    let change = |f: fn(&mut QemuFacts)| {
        let mut facts = qemu_facts();
        f(&mut facts);
        verdicts(&facts)
    };
    let old = Some(Version {
        major: 7,
        minor: 2,
        micro: 19,
    });
    let bookworm = QemuFacts {
        version: old,
        ..good
    };
    assert_eq!(verdicts(&bookworm), [Missing, Good, Good]);
    for (found, expected) in [
        (
            change(|f| {
                f.version = Some(Version {
                    major: 9,
                    minor: 1,
                    micro: 0,
                })
            }),
            [Good, Good, Good],
        ),
        (change(|f| f.version = None), [Missing, Good, Good]),
        (change(|f| f.sandbox = false), [Good, Missing, Good]),
        (change(|f| f.machines.clear()), [Good, Missing, Good]),
        (
            change(|f| f.objects.retain(|o| o != "iothread")),
            [Good, Missing, Good],
        ),
        (
            change(|f| f.objects.retain(|o| o != "sev-snp-guest")),
            [Good, Good, Degraded],
        ),
        (
            change(|f| f.objects.retain(|o| o != "sev-guest")),
            [Good, Good, Missing],
        ),
    ] {
        assert_eq!(found, expected);
    }
    let none = virt::qemu(Path::new("/q"), &Err(RunError::NotFound("/q".into())));
    assert!(none.iter().all(|c| c.status == Missing));
    assert!(
        none[0]
            .remedy
            .as_deref()
            .unwrap()
            .contains("-t bookworm-backports qemu-system-x86")
    );
    assert!(none[0].found.contains("/q is not installed"));
}

#[test]
fn firmware_files() {
    let at = |path: &str, state| Candidate {
        path: path.into(),
        state,
    };
    let all = |state| FirmwareFacts {
        bios: vec![at("/a", State::Absent), at("/b", state)],
        uefi: [at("/c", state), at("/v", state)],
        amd_sev: vec![at("/s", state)],
    };
    for (facts, expected) in [
        (all(State::Usable(4096)), [Good, Good, Good]),
        (all(State::Absent), [Missing, Missing, Missing]),
        (all(State::Unusable), [Missing, Missing, Missing]),
        (
            FirmwareFacts {
                uefi: [at("/c", State::Usable(1)), at("/v", State::Absent)],
                ..all(State::Usable(4096))
            },
            [Good, Missing, Good],
        ),
    ] {
        let found: Vec<_> = virt::firmware(&facts).iter().map(|c| c.status).collect();
        assert_eq!(found, expected, "{facts:?}");
    }
}

#[test]
fn sev_hosts() {
    let milan = SevCpu::decode(0x0101_fd3f, 0x0000_4173, 0x1FD, 0x64);
    let naples = SevCpu::decode(0b1111, 0x16F, 0xF, 5);
    let yes = Some(true);
    let ready = SevFacts {
        vendor: "AuthenticAMD".into(),
        cpu: Some(milan),
        module: Module {
            sev: yes,
            sev_es: yes,
            sev_snp: yes,
        },
        device: Device::Usable,
        vm_types: Some(VmTypes(0b1_1101)),
    };
    let verdicts = |f: &SevFacts| sev::all(f).iter().map(|c| c.status).collect::<Vec<_>>();
    assert_eq!(verdicts(&ready), [Good, Good, Good]);
    let found = &sev::all(&ready)[0].found;
    assert!(
        found.starts_with("SEV, SEV-ES and SEV-SNP; C-bit 51, 5 address"),
        "{found}"
    );
    // Debian 12's kernel knows neither the capability nor SNP guests.
    let old_kernel = SevFacts {
        vm_types: Some(VmTypes(0)),
        module: Module {
            sev: yes,
            sev_es: yes,
            sev_snp: None,
        },
        ..ready.clone()
    };
    assert_eq!(verdicts(&old_kernel), [Good, Degraded, Good]);
    let first_epyc = SevFacts {
        cpu: Some(naples),
        ..old_kernel
    };
    assert_eq!(verdicts(&first_epyc), [Degraded, Degraded, Good]);
    let switched_off = SevFacts {
        module: Module {
            sev: Some(false),
            sev_es: Some(false),
            sev_snp: Some(false),
        },
        vm_types: Some(VmTypes(1)),
        device: Device::Absent,
        ..ready.clone()
    };
    assert_eq!(verdicts(&switched_off), [Good, Missing, Missing]);
    assert!(
        sev::all(&switched_off)
            .iter()
            .skip(1)
            .all(|c| c.remedy.is_some())
    );
    let intel = SevFacts {
        vendor: "GenuineIntel".into(),
        cpu: None,
        module: Module::default(),
        device: Device::Absent,
        vm_types: None,
    };
    assert_eq!(verdicts(&intel), [Missing, Missing, Missing]);
    assert!(
        sev::all(&intel)[0]
            .remedy
            .as_deref()
            .unwrap()
            .contains("EPYC")
    );
    let refused = SevFacts {
        device: Device::Refused {
            why: "EACCES".into(),
        },
        ..ready
    };
    assert_eq!(verdicts(&refused), [Good, Good, Missing]);
}
