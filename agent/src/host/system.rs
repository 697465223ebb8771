//! Kernel, memory, disk space, clock and open files.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::text;

/// The host by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SystemFacts {
    /// The kernel's release: `6.1.0-28-amd64`.
    pub kernel: String,
    /// Its version; `None` when the release has none.
    pub kernel_version: Option<(u32, u32)>,
    /// Memory; `None` when it cannot be read.
    pub memory: Option<Memory>,
    /// Most files this process may have open; `None` for no limit.
    pub open_files: Option<u64>,
    /// The clock.
    pub clock: Clock,
}

/// `/proc/meminfo`, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it.
    pub total_mib: u64,
    /// What can be had without swapping.
    pub available_mib: u64,
    /// Reserved as huge pages: nobody else can have it.
    pub huge_mib: u64,
    /// Of that, free.
    pub huge_free_mib: u64,
}

/// The clock, as far as it can be judged without a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// A time service says that it keeps it.
    Kept,
    /// Plausible, and no time service was seen.
    Unkept,
    /// Before this program was written, or before what it has written itself.
    Wrong,
}

/// 2026-01-01T00:00:00Z in seconds: earlier than this no build of this program ran.
const FLOOR: u64 = 1_767_225_600;

/// Gathers what does not depend on disks.
#[must_use]
pub fn gather(state_dir: &Path) -> SystemFacts {
    let release = text(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_default();
    let release = release.trim().to_owned();
    let newest = std::fs::metadata(state_dir).and_then(|m| m.modified()).ok();
    let kept = [
        "/run/systemd/timesync/synchronized",
        "/run/chrony/chronyd.pid",
        "/run/ntpd.pid",
    ]
    .iter()
    .any(|p| Path::new(p).exists());
    SystemFacts {
        kernel_version: kernel_version(&release),
        kernel: release,
        memory: text(Path::new("/proc/meminfo")).as_deref().and_then(memory),
        open_files: getrlimit(Resource::Nofile).current,
        clock: clock(SystemTime::now(), newest, kept),
    }
}

/// Major and minor of a release.
#[must_use]
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Reads `/proc/meminfo`'s text.
#[must_use]
pub fn memory(meminfo: &str) -> Option<Memory> {
    let get = |key: &str| {
        let line = meminfo
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let huge = |key| Some(get(key)?.saturating_mul(get("Hugepagesize")?) / 1024);
    Some(Memory {
        total_mib: get("MemTotal")? / 1024,
        available_mib: get("MemAvailable")? / 1024,
        huge_mib: huge("HugePages_Total").unwrap_or(0),
        huge_free_mib: huge("HugePages_Free").unwrap_or(0),
    })
}

/// Judges the time `now`. `newest` is when the agent last wrote.
#[must_use]
pub fn clock(now: SystemTime, newest: Option<SystemTime>, kept: bool) -> Clock {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    // Some minutes are forgiven: a service that sets the clock right may set it back.
    let backwards = newest.is_some_and(|n| n > now + Duration::from_secs(300));
    if since_epoch.as_secs() < FLOOR || backwards {
        Clock::Wrong
    } else if kept {
        Clock::Kept
    } else {
        Clock::Unkept
    }
}

/// The file system of the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskFacts {
    /// The directory asked for, or the nearest above it that exists.
    pub path: PathBuf,
    /// It is the one asked for.
    pub exists: bool,
    /// Space that this process may still use, MiB.
    pub free_mib: u64,
    /// Size, MiB.
    pub total_mib: u64,
    /// Inodes left; `None` where the file system has no fixed number.
    pub free_inodes: Option<u64>,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Measures it. May hang on a network file system that does not answer.
///
/// # Errors
/// When no directory above it can be asked.
pub fn disk(state_dir: &Path) -> std::io::Result<DiskFacts> {
    let found = state_dir
        .ancestors()
        .find(|p| p.is_dir())
        .unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(found)?;
    let mib = |blocks: u64| blocks.saturating_mul(stat.f_frsize) >> 20;
    Ok(DiskFacts {
        path: found.to_owned(),
        exists: found == state_dir,
        free_mib: mib(stat.f_bavail),
        total_mib: mib(stat.f_blocks),
        free_inodes: (stat.f_files > 0).then_some(stat.f_favail),
        read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (release, expected) in [
            ("6.1.0-28-amd64", Some((6, 1))),
            ("6.18.44-fc-v595", Some((6, 18))),
            ("6.11-rc3", Some((6, 11))),
            ("7.0", Some((7, 0))),
            ("linux", None),
            ("", None),
        ] {
            assert_eq!(kernel_version(release), expected, "{release}");
        }
    }

    #[test]
    fn meminfo() {
        let text = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   12000000 kB\n\
                    HugePages_Total:    512\nHugePages_Free:     500\nHugepagesize:       2048 kB\n";
        assert_eq!(
            memory(text),
            Some(Memory {
                total_mib: 23437,
                available_mib: 11718,
                huge_mib: 1024,
                huge_free_mib: 1000
            })
        );
        let plain = memory("MemTotal: 2048 kB\nMemAvailable: 1024 kB\n").unwrap();
        assert_eq!((plain.total_mib, plain.huge_mib), (2, 0));
        assert_eq!(memory("MemTotal: many\n"), None);
    }

    #[test]
    fn clocks() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        for (now, newest, kept, expected) in [
            (FLOOR + 9, None, true, Clock::Kept),
            (FLOOR + 9, None, false, Clock::Unkept),
            (FLOOR - 1, None, true, Clock::Wrong),
            (0, None, false, Clock::Wrong),
            (FLOOR + 9, Some(FLOOR + 100), true, Clock::Kept),
            (FLOOR + 9, Some(FLOOR + 1000), true, Clock::Wrong),
        ] {
            assert_eq!(
                clock(at(now), newest.map(at), kept),
                expected,
                "{now} {newest:?} {kept}"
            );
        }
    }

    #[test]
    fn this_host() {
        let dir = tempfile::tempdir().unwrap();
        let facts = gather(dir.path());
        assert!(facts.kernel_version.is_some() && facts.memory.is_some());
        let found = disk(&dir.path().join("a/b")).unwrap();
        assert!(!found.exists && !found.read_only && found.path == dir.path());
        assert!(found.free_mib <= found.total_mib);
        assert!(disk(dir.path()).unwrap().exists);
    }
}
