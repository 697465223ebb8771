//! cgroups, kernel, memory, disk, users, files and clock.

use std::{io, path::Path};

use super::{super::Check, super::Status::*, CgroupFacts, check, list};
use crate::{
    host::{
        sev::SNP_KERNEL,
        system::{Clock, DiskFacts, SystemFacts},
        users::UserFacts,
    },
    mounts::Layout,
};

/// The oldest kernel with all that the agent calls: Debian 11's.
const KERNEL: (u32, u32) = (5, 10);
/// Memory below which a node is of no use, MiB.
const MEMORY_MIB: u64 = 2048;
/// Space below which not even one guest's image and overlay fit, MiB.
const DISK_MIB: u64 = 2 * 1024;
/// Space below which an operator should look, MiB.
const DISK_LOW_MIB: u64 = 20 * 1024;
/// Inodes below which the same holds.
const INODES_LOW: u64 = 10_000;
/// Descriptors: some for each instance (socket, pidfd, files in passing), and the API's.
const OPEN_FILES: u64 = 4096;

/// Limits for guests.
#[must_use]
pub fn cgroup(facts: &CgroupFacts) -> Check {
    const WANTED: &[&str] = &["cpu", "memory", "io", "pids"];
    const UNIFY: &str = "Boot with one hierarchy: add systemd.unified_cgroup_hierarchy=1 to \
                         GRUB_CMDLINE_LINUX in /etc/default/grub, then: update-grub && reboot";
    let layout = match facts.layout {
        Layout::Unified => "version 2",
        Layout::Hybrid => "version 2 beside version 1",
        Layout::Legacy => "version 1 alone",
        Layout::None => "no writable hierarchy",
    };
    if let Some(why) = &facts.unavailable {
        return check(
            "cgroup",
            Missing,
            format!("{layout}: {why}"),
            "Nothing but their own sizes limits what guests take of CPU, memory and I/O.",
            Some(match facts.layout {
                Layout::Unified | Layout::Hybrid => "Run the agent as root.",
                _ => UNIFY,
            }),
        );
    }
    let lacking: Vec<_> = WANTED
        .iter()
        .copied()
        .filter(|c| !facts.controllers.contains(*c))
        .collect();
    if lacking.is_empty() {
        return check(
            "cgroup",
            Ok,
            format!("{layout} with {}", list(WANTED)),
            "Guests' CPU, memory, I/O and processes are limited.",
            None,
        );
    }
    // The I/O controller had another name in version 1.
    let in_v1 = |c: &str| {
        facts
            .held_by_v1
            .contains(if c == "io" { "blkio" } else { c })
    };
    let held: Vec<_> = lacking.iter().copied().filter(|c| in_v1(c)).collect();
    let holder = match held.as_slice() {
        [] => String::new(),
        held => format!("; version 1 holds {}", list(held)),
    };
    check(
        "cgroup",
        Degraded,
        format!("{layout} without {}{holder}", list(&lacking)),
        format!("Guests are not limited in {}.", list(&lacking)),
        Some(if held.is_empty() {
            "Look for cgroup_disable= in /proc/cmdline; in a container, have its set-up delegate \
             the controllers."
        } else {
            UNIFY
        }),
    )
}

/// What the system says of itself.
#[must_use]
pub fn all(facts: &SystemFacts) -> Vec<Check> {
    vec![
        kernel(facts),
        memory(facts),
        open_files(facts),
        clock(facts),
    ]
}

fn kernel(facts: &SystemFacts) -> Check {
    let show = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    match facts.kernel_version {
        Some(v) if v >= SNP_KERNEL => {
            let meaning = "New enough for all guests, SEV-SNP's too.";
            check("kernel", Ok, facts.kernel.clone(), meaning, None)
        }
        Some(v) if v >= KERNEL => check(
            "kernel",
            Ok,
            facts.kernel.clone(),
            format!("New enough; SEV-SNP guests need {}.", show(SNP_KERNEL)),
            None,
        ),
        Some(_) => check(
            "kernel",
            Missing,
            format!("{}, older than {}", facts.kernel, show(KERNEL)),
            "The agent uses what this kernel does not have.",
            Some("apt-get update && apt-get install linux-image-amd64 && reboot"),
        ),
        None => check(
            "kernel",
            Degraded,
            format!("unknown release {:?}", facts.kernel),
            "The agent cannot tell whether it is new enough.",
            None,
        ),
    }
}

fn memory(facts: &SystemFacts) -> Check {
    let Some(m) = facts.memory else {
        let meaning = "The agent cannot tell how much it may give away.";
        return check(
            "memory",
            Degraded,
            "/proc/meminfo cannot be read",
            meaning,
            None,
        );
    };
    let huge = match m.huge_mib {
        0 => String::new(),
        huge => format!(", {huge} MiB of it reserved as huge pages"),
    };
    let found = format!(
        "{} MiB, {} MiB available{huge}",
        m.total_mib, m.available_mib
    );
    if m.total_mib < MEMORY_MIB {
        let meaning = format!("Hardly a guest fits below {MEMORY_MIB} MiB.");
        check("memory", Degraded, found, meaning, Some("Add memory."))
    } else if m.huge_free_mib.saturating_mul(2) > m.total_mib {
        check(
            "memory",
            Degraded,
            found,
            "Guests do not use the pool of huge pages; what is reserved there is lost to them.",
            Some("sysctl -w vm.nr_hugepages=0, and remove it from /etc/sysctl.d/"),
        )
    } else if m.available_mib < MEMORY_MIB / 4 {
        let meaning = "Little is left for guests now.";
        check(
            "memory",
            Degraded,
            found,
            meaning,
            Some("See what takes it: ps aux --sort=-rss | head"),
        )
    } else {
        check("memory", Ok, found, "Guests have room.", None)
    }
}

fn open_files(facts: &SystemFacts) -> Check {
    match facts.open_files {
        Some(limit) if limit < OPEN_FILES => check(
            "open-files",
            Degraded,
            format!("at most {limit}"),
            "Many instances at once can run out of descriptors.",
            Some("LimitNOFILE=65536 in the unit; in a shell: ulimit -n 65536"),
        ),
        Some(limit) => check(
            "open-files",
            Ok,
            format!("at most {limit}"),
            "Enough.",
            None,
        ),
        None => check("open-files", Ok, "unlimited", "Enough.", None),
    }
}

fn clock(facts: &SystemFacts) -> Check {
    match facts.clock {
        Clock::Kept => check(
            "clock",
            Ok,
            "kept by a time service",
            "Certificates can be judged and guests start with the right time.",
            None,
        ),
        Clock::Unkept => check(
            "clock",
            Degraded,
            "plausible; no time service was seen",
            "A clock that drifts makes valid certificates look expired, or the reverse.",
            Some("apt-get install systemd-timesyncd && timedatectl set-ntp true"),
        ),
        Clock::Wrong => check(
            "clock",
            Degraded,
            "wrong: before 2026, or before the agent's own files",
            "TLS and attestation fail, and guests start with a wrong time.",
            Some("apt-get install systemd-timesyncd && timedatectl set-ntp true"),
        ),
    }
}

/// The state directory's file system.
#[must_use]
pub fn disk(state_dir: &Path, facts: &io::Result<DiskFacts>) -> Check {
    let facts = match facts {
        Result::Ok(facts) => facts,
        Err(e) => {
            let found = format!("{}: {e}", state_dir.display());
            let meaning = "Disks of guests have no place.";
            return check(
                "disk",
                Missing,
                found,
                meaning,
                Some("Mount it, or set state_dir."),
            );
        }
    };
    let gib = |mib: u64| format!("{:.1} GiB", mib as f64 / 1024.0);
    let made = if facts.exists {
        ""
    } else {
        " (not there yet; it is made at the first start)"
    };
    let place = format!("{}{made}", state_dir.display());
    let found = format!(
        "{} free of {} for {place}",
        gib(facts.free_mib),
        gib(facts.total_mib)
    );
    let few_inodes = facts.free_inodes.is_some_and(|n| n < INODES_LOW);
    let remedy = "Free some: crn-agent image list shows images that can be removed; or set \
                  state_dir to a larger file system.";
    if facts.read_only {
        let found = format!("{} is read-only", facts.path.display());
        check(
            "disk",
            Missing,
            found,
            "Nothing can be stored.",
            Some("See why: dmesg --level=err"),
        )
    } else if facts.free_mib < DISK_MIB {
        check(
            "disk",
            Missing,
            found,
            "Not even one guest fits.",
            Some(remedy),
        )
    } else if few_inodes {
        check(
            "disk",
            Degraded,
            format!("{found}; inodes run out"),
            "Few files fit.",
            Some(remedy),
        )
    } else if facts.free_mib < DISK_LOW_MIB {
        check("disk", Degraded, found, "A few guests fit.", Some(remedy))
    } else {
        check("disk", Ok, found, "Guests have room.", None)
    }
}

/// The users that guests run as.
#[must_use]
pub fn users(facts: &UserFacts) -> Check {
    let last = facts.base.saturating_add(facts.count.saturating_sub(1));
    let range = format!("{} to {last}", facts.base);
    if !facts.mapped {
        check(
            "users",
            Missing,
            format!("{range} do not exist in this user namespace"),
            "Guests cannot run as users of their own.",
            Some(
                "Run the agent outside of a user namespace, or set uid_base and uid_count in \
                 section [qemu] of the configuration to a range that /proc/self/uid_map has.",
            ),
        )
    } else if !facts.clashes.is_empty() {
        check(
            "users",
            Degraded,
            format!("{range} are also used by {}", list(&facts.clashes)),
            "Who breaks out of a guest could touch what belongs to these.",
            Some("Set uid_base in section [qemu] of the configuration to a range nobody has."),
        )
    } else if !facts.lacking.is_empty() {
        check(
            "users",
            Degraded,
            format!("{range}, and this process lacks {}", list(&facts.lacking)),
            "With the rights of this process the agent could not start guests.",
            Some("Run the agent as root, or with these capabilities."),
        )
    } else {
        check(
            "users",
            Ok,
            format!("{range} belong to nobody else"),
            "Each guest runs as a user of its own, without any rights.",
            None,
        )
    }
}
