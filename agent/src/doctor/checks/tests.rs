//! Facts of hosts that nobody has, and their verdicts.

use super::{super::Status, *};
use crate::{
    config::AccelSetting,
    host::{
        Device,
        firmware::{Candidate, FirmwareFacts, State},
        kvm::Kvm,
        network::{NetworkFacts, Prefix, Uplink},
        nft::NftFacts,
        qemu::{QemuFacts, Version},
        run::RunError,
        sev::{Module, SevCpu, SevFacts, VmTypes},
        system::{Clock, DiskFacts, Memory, SystemFacts},
        users::UserFacts,
    },
};
use Status::{Degraded, Missing, Ok as Good};

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

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

#[test]
fn nftables_and_tun() {
    let facts = |version, kernel| Ok(NftFacts { version, kernel });
    for (facts, expected) in [
        (facts(Some((1, 0, 6)), Ok(())), Good),
        (facts(Some((1, 1, 3)), Ok(())), Good),
        (facts(Some((0, 9, 8)), Ok(())), Degraded),
        (facts(None, Ok(())), Degraded),
        (
            facts(Some((1, 0, 6)), Err("Operation not permitted".into())),
            Missing,
        ),
        (Err(RunError::NotFound("nft".into())), Missing),
    ] {
        assert_eq!(net::nftables(&facts).status, expected, "{facts:?}");
    }
    assert_eq!(net::tun(&Device::Usable).status, Good);
    assert_eq!(
        net::tun(&Device::Absent).remedy.as_deref(),
        Some("modprobe tun")
    );
    assert_eq!(
        net::tun(&Device::Refused { why: "x".into() }).status,
        Missing
    );
}

fn network() -> NetworkFacts {
    NetworkFacts {
        ipv6: true,
        forwarding: Some(true),
        uplink: Some(Uplink {
            name: "eth0".into(),
            exists: true,
            up: Some(true),
            default_route: true,
            advertised: false,
            accept_ra: Some(1),
            proxy_ndp: Some(false),
        }),
        prefix: Prefix::Routed {
            prefix: "2001:db8:1:2::/64".parse().unwrap(),
            interface: "lo".into(),
        },
        ndp_proxy: false,
    }
}

#[test]
fn networks() {
    let expect = |what: &str, f: &dyn Fn(&mut NetworkFacts), expected: [Status; 5]| {
        let mut facts = network();
        f(&mut facts);
        let found: Vec<_> = net::all(&facts).iter().map(|c| c.status).collect();
        assert_eq!(found, expected, "{what}");
    };
    fn up(facts: &mut NetworkFacts) -> &mut Uplink {
        facts.uplink.as_mut().unwrap()
    }
    let prefix = "2001:db8:1:2::/64".parse().unwrap();
    let long = "2001:db8:1:2::/80".parse().unwrap();
    let on_link = || Prefix::OnLink {
        prefix,
        interface: "eth0".into(),
    };
    expect("ready", &|_| {}, [Good; 5]);
    expect(
        "off",
        &|f| f.ipv6 = false,
        [Missing, Good, Good, Good, Good],
    );
    let not_prefix = [Good, Missing, Good, Good, Good];
    expect(
        "no prefix",
        &|f| f.prefix = Prefix::NotConfigured,
        not_prefix,
    );
    expect(
        "bad prefix",
        &|f| f.prefix = Prefix::Invalid { why: "x".into() },
        not_prefix,
    );
    expect(
        "long prefix",
        &|f| f.prefix = Prefix::Unseen { prefix: long },
        not_prefix,
    );
    let prefix_unsure = [Good, Degraded, Good, Good, Good];
    expect(
        "unseen prefix",
        &|f| f.prefix = Prefix::Unseen { prefix },
        prefix_unsure,
    );
    expect(
        "on link",
        &|f| f.prefix = on_link(),
        [Good, Degraded, Good, Good, Degraded],
    );
    let proxied = |f: &mut NetworkFacts| {
        f.prefix = on_link();
        f.ndp_proxy = true;
    };
    expect("proxy is off", &proxied, [Good, Good, Good, Good, Degraded]);
    expect(
        "proxy is on",
        &|f| {
            proxied(f);
            up(f).proxy_ndp = Some(true);
        },
        [Good; 5],
    );
    let no_forwarding = [Good, Good, Degraded, Good, Good];
    expect(
        "not forwarding",
        &|f| f.forwarding = Some(false),
        no_forwarding,
    );
    expect(
        "unknown forwarding",
        &|f| f.forwarding = None,
        no_forwarding,
    );
    let no_uplink = [Good, Good, Good, Degraded, Good];
    expect("no uplink", &|f| f.uplink = None, no_uplink);
    expect("no such uplink", &|f| up(f).exists = false, no_uplink);
    expect("down", &|f| up(f).up = Some(false), no_uplink);
    expect("no route", &|f| up(f).default_route = false, no_uplink);
    expect("advertised", &|f| up(f).advertised = true, no_uplink);
    expect(
        "advertised and kept",
        &|f| {
            up(f).advertised = true;
            up(f).accept_ra = Some(2);
        },
        [Good; 5],
    );
}

#[test]
fn cgroup_layouts() {
    let facts =
        |layout, controllers: &[&str], v1: &[&str], unavailable: Option<&str>| CgroupFacts {
            layout,
            controllers: set(controllers),
            held_by_v1: set(v1),
            unavailable: unavailable.map(str::to_owned),
        };
    let all = ["cpu", "cpuset", "io", "memory", "pids"];
    let table = [
        (facts(Layout::Unified, &all, &[], None), Good, ""),
        (facts(Layout::Hybrid, &all, &["freezer"], None), Good, ""),
        (
            facts(
                Layout::Hybrid,
                &["hugetlb"],
                &["cpu", "memory", "blkio", "pids"],
                None,
            ),
            Degraded,
            "systemd.unified_cgroup_hierarchy=1",
        ),
        (
            facts(Layout::Unified, &["memory", "pids"], &[], None),
            Degraded,
            "Delegate=yes",
        ),
        (
            facts(Layout::Legacy, &[], &["cpu"], Some("none")),
            Missing,
            "unified_cgroup",
        ),
        (
            facts(Layout::Unified, &all, &[], Some("Permission denied")),
            Missing,
            "root",
        ),
    ];
    for (facts, status, remedy) in table {
        let check = system::cgroup(&facts);
        assert_eq!(check.status, status, "{check:?}");
        assert!(check.remedy.unwrap_or_default().contains(remedy));
    }
}

#[test]
fn systems() {
    let ready = SystemFacts {
        kernel: "6.12.9-amd64".into(),
        kernel_version: Some((6, 12)),
        memory: Some(Memory {
            total_mib: 64_000,
            available_mib: 60_000,
            huge_mib: 0,
            huge_free_mib: 0,
        }),
        open_files: Some(65_536),
        clock: Clock::Kept,
    };
    let memory = |total_mib, available_mib, huge_free_mib| {
        Some(Memory {
            total_mib,
            available_mib,
            huge_mib: huge_free_mib,
            huge_free_mib,
        })
    };
    let table = [
        (ready.clone(), [Good; 4]),
        (
            SystemFacts {
                kernel_version: Some((6, 1)),
                ..ready.clone()
            },
            [Good; 4],
        ),
        (
            SystemFacts {
                kernel_version: Some((4, 19)),
                ..ready.clone()
            },
            [Missing, Good, Good, Good],
        ),
        (
            SystemFacts {
                kernel_version: None,
                ..ready.clone()
            },
            [Degraded, Good, Good, Good],
        ),
        (
            SystemFacts {
                memory: None,
                ..ready.clone()
            },
            [Good, Degraded, Good, Good],
        ),
        (
            SystemFacts {
                memory: memory(1000, 900, 0),
                ..ready.clone()
            },
            [Good, Degraded, Good, Good],
        ),
        (
            SystemFacts {
                memory: memory(64_000, 100, 0),
                ..ready.clone()
            },
            [Good, Degraded, Good, Good],
        ),
        (
            SystemFacts {
                memory: memory(64_000, 9000, 40_000),
                ..ready.clone()
            },
            [Good, Degraded, Good, Good],
        ),
        (
            SystemFacts {
                open_files: Some(1024),
                ..ready.clone()
            },
            [Good, Good, Degraded, Good],
        ),
        (
            SystemFacts {
                open_files: None,
                ..ready.clone()
            },
            [Good; 4],
        ),
        (
            SystemFacts {
                clock: Clock::Unkept,
                ..ready.clone()
            },
            [Good, Good, Good, Degraded],
        ),
        (
            SystemFacts {
                clock: Clock::Wrong,
                ..ready
            },
            [Good, Good, Good, Degraded],
        ),
    ];
    for (facts, expected) in table {
        let found: Vec<_> = system::all(&facts).iter().map(|c| c.status).collect();
        assert_eq!(found, expected, "{facts:?}");
    }
}

#[test]
fn disks_and_users() {
    let path = Path::new("/var/lib/crn-agent");
    let ready = DiskFacts {
        path: path.into(),
        exists: true,
        free_mib: 100_000,
        total_mib: 200_000,
        free_inodes: Some(1_000_000),
        read_only: false,
    };
    for (facts, expected) in [
        (Ok(ready.clone()), Good),
        (
            Ok(DiskFacts {
                exists: false,
                ..ready.clone()
            }),
            Good,
        ),
        (
            Ok(DiskFacts {
                free_inodes: None,
                ..ready.clone()
            }),
            Good,
        ),
        (
            Ok(DiskFacts {
                free_inodes: Some(3),
                ..ready.clone()
            }),
            Degraded,
        ),
        (
            Ok(DiskFacts {
                free_mib: 10_000,
                ..ready.clone()
            }),
            Degraded,
        ),
        (
            Ok(DiskFacts {
                free_mib: 1000,
                ..ready.clone()
            }),
            Missing,
        ),
        (
            Ok(DiskFacts {
                read_only: true,
                ..ready
            }),
            Missing,
        ),
        (Err(std::io::Error::other("stale file handle")), Missing),
    ] {
        assert_eq!(system::disk(path, &facts).status, expected, "{facts:?}");
    }
    let ready = UserFacts {
        base: 2_100_000,
        count: 10,
        clashes: vec![],
        mapped: true,
        lacking: vec![],
    };
    let check = system::users(&ready);
    assert_eq!(
        (check.status, check.found.as_str()),
        (Good, "2100000 to 2100009 belong to nobody else")
    );
    for (facts, expected) in [
        (
            UserFacts {
                mapped: false,
                ..ready.clone()
            },
            Missing,
        ),
        (
            UserFacts {
                clashes: vec!["a (/etc/passwd)".into()],
                ..ready.clone()
            },
            Degraded,
        ),
        (
            UserFacts {
                lacking: vec!["CAP_SETUID"],
                ..ready.clone()
            },
            Degraded,
        ),
        (
            UserFacts {
                base: u32::MAX,
                count: u32::MAX,
                ..ready
            },
            Good,
        ),
    ] {
        assert_eq!(system::users(&facts).status, expected, "{facts:?}");
    }
}

#[test]
fn lists_read_as_english() {
    for (words, expected) in [
        (&[][..], "none"),
        (&["a"], "a"),
        (&["a", "b"], "a and b"),
        (&["a", "b", "c"], "a, b and c"),
    ] {
        assert_eq!(list(words), expected);
    }
}
