//! Where cgroups are mounted: `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Pure.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 2.
    V2(PathBuf),
    /// Version 1, with the controllers bound to it.
    V1(PathBuf, BTreeSet<String>),
}

/// How the host's cgroups are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Version 2 alone, as Debian has it since 11.
    Unified,
    /// Version 2 beside version 1, which holds some controllers.
    Hybrid,
    /// Version 1 alone.
    Legacy,
    /// No cgroups are mounted.
    None,
}

/// The writable cgroup hierarchies in a mountinfo file, in its order. Lines that
/// are none, or cannot be read as one, are passed over.
#[must_use]
pub fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo.lines().filter_map(line).collect()
}

/// The layout that these hierarchies make.
#[must_use]
pub fn layout(hierarchies: &[Hierarchy]) -> Layout {
    let v2 = hierarchies.iter().any(|h| matches!(h, Hierarchy::V2(_)));
    let v1 = hierarchies.iter().any(|h| matches!(h, Hierarchy::V1(..)));
    match (v2, v1) {
        (true, false) => Layout::Unified,
        (true, true) => Layout::Hybrid,
        (false, true) => Layout::Legacy,
        (false, false) => Layout::None,
    }
}

fn line(line: &str) -> Option<Hierarchy> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ');
    let mount_point = front.nth(4)?;
    let options = front.next()?;
    if options.split(',').any(|o| o == "ro") {
        return None;
    }
    let mut back = back.split(' ');
    let kind = back.next()?;
    let _source = back.next()?;
    let super_options = back.next().unwrap_or_default();
    let path = PathBuf::from(unescape(mount_point));
    match kind {
        "cgroup2" => Some(Hierarchy::V2(path)),
        "cgroup" => {
            let controllers = super_options
                .split(',')
                .filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "noprefix" | "clone_children"))
                .filter(|o| !o.is_empty() && !o.contains('='))
                .map(str::to_owned)
                .collect();
            Some(Hierarchy::V1(path, controllers))
        }
        _ => None,
    }
}

/// What is mounted below a directory by `/proc/self/mountinfo`, upper mounts first.
#[must_use]
pub fn below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|l| l.split(' ').nth(4));
    let all: BTreeSet<_> = points
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(dir) && point != dir)
        .collect();
    all.into_iter().collect()
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(field: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() {
            tail.get(3..).unwrap_or_default()
        } else {
            tail
        };
    }
    std::ffi::OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEMD: &str = "\
24 30 0:22 / /proc rw,nosuid - proc proc rw
29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
30 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
";
    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn layouts_are_told_apart() {
        let no_v2 = HYBRID.replace("cgroup2 cgroup2", "tmpfs x");
        let read_only = SYSTEMD.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup ro");
        for (text, expected) in [
            (SYSTEMD, Layout::Unified),
            (HYBRID, Layout::Hybrid),
            (&no_v2, Layout::Legacy),
            (&read_only, Layout::None),
            ("", Layout::None),
            ("garbage - cgroup2", Layout::None),
        ] {
            assert_eq!(layout(&parse(text)), expected, "{text}");
        }
        let names = |l: &[&str]| l.iter().map(|&s| s.to_owned()).collect();
        assert_eq!(
            parse(HYBRID),
            [
                Hierarchy::V1("/sys/fs/cgroup/cpu".into(), names(&["cpu", "cpuacct"])),
                Hierarchy::V1("/sys/fs/cgroup/systemd".into(), names(&[])),
                Hierarchy::V2("/sys/fs/cgroup/unified".into()),
            ]
        );
    }

    #[test]
    fn mounts_below_a_directory() {
        let below = |dir: &str| below(HYBRID, Path::new(dir));
        assert_eq!(below("/sys/fs/cgroup").len(), 3);
        assert_eq!(below("/sys/fs/cgroup/cpu"), [""; 0].map(PathBuf::from));
        assert_eq!(below("/sys/fs/cg"), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn escapes_are_undone() {
        for (escaped, plain) in [
            ("/a\\040b", "/a b"),
            ("/a\\134b", "/a\\b"),
            ("/a\\", "/a\\"),
            ("/a\\09", "/a\\09"),
        ] {
            assert_eq!(unescape(escaped), plain);
        }
    }
}
