use super::{super::system, *};
use crate::host::{
    system::{Clock, DiskFacts, Memory, SystemFacts},
    users::UserFacts,
};

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
            "cgroup_disable=",
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
