//! The users that guests run as, and this process's right to become them.

use std::path::Path;

use serde::Serialize;

use super::text;

/// Rights that `serve` uses, by their bits in `CapEff` (capabilities(7)).
pub const NEEDED: &[(u32, &str)] = &[
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
];

/// What is known about the range and the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserFacts {
    /// First user of the range.
    pub base: u32,
    /// How many.
    pub count: u32,
    /// Others that have users, groups or subordinate ids in the range:
    /// `alice (/etc/passwd)`. At most ten.
    pub clashes: Vec<String>,
    /// The whole range exists in this user namespace.
    pub mapped: bool,
    /// Rights that this process lacks.
    pub lacking: Vec<&'static str>,
}

/// Gathers them.
#[must_use]
pub fn gather(base: u32, count: u32) -> UserFacts {
    let proc = |name: &str| text(&Path::new("/proc/self").join(name)).unwrap_or_default();
    let mut clashes = Vec::new();
    for file in ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"] {
        let content = text(Path::new(file)).unwrap_or_default();
        let subordinate = file.starts_with("/etc/sub");
        let found = clashing(&content, subordinate, base, count);
        clashes.extend(found.into_iter().map(|name| format!("{name} ({file})")));
    }
    clashes.truncate(10);
    UserFacts {
        base,
        count,
        clashes,
        mapped: maps(&proc("uid_map"), base, count) && maps(&proc("gid_map"), base, count),
        lacking: lacking(&proc("status")),
    }
}

/// Names in a passwd(5) or group(5) file, or a subuid(5) one, whose ids meet the range.
#[must_use]
pub fn clashing(file: &str, subordinate: bool, base: u32, count: u32) -> Vec<String> {
    let (start, end) = (u64::from(base), u64::from(base) + u64::from(count));
    let id = |field: Option<&str>| field.and_then(|f| f.trim().parse::<u64>().ok());
    file.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (first, size) = if subordinate {
                (id(fields.next())?, id(fields.next())?)
            } else {
                (id(fields.nth(1))?, 1)
            };
            let meets = first < end && first.saturating_add(size) > start;
            meets.then(|| name.chars().take(40).collect())
        })
        .collect()
}

/// Whether a `uid_map` (user_namespaces(7)) has the whole range in one piece.
#[must_use]
pub fn maps(uid_map: &str, base: u32, count: u32) -> bool {
    let (start, end) = (u64::from(base), u64::from(base) + u64::from(count));
    uid_map.lines().any(|line| {
        let mut fields = line
            .split_whitespace()
            .map(|f| f.parse::<u64>().unwrap_or(0));
        let (inside, _, length) = (fields.next(), fields.next(), fields.next());
        matches!((inside, length), (Some(i), Some(l)) if i <= start && i.saturating_add(l) >= end)
    })
}

/// Needed rights that are not in the `CapEff` of a `/proc/self/status`.
#[must_use]
pub fn lacking(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .iter()
        .filter(|(bit, _)| effective >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_are_found() {
        let passwd = "root:x:0:0::/root:/bin/sh\nvm:x:2100005:5::/:/bin/false\nbroken\n::\n";
        assert_eq!(clashing(passwd, false, 2_100_000, 4096), ["vm"]);
        assert!(clashing(passwd, false, 2_100_006, 4096).is_empty());
        let subuid = "a:100000:65536\nb:2000000:100001\nc:2104096:10\nd:9:18446744073709551615\n";
        assert_eq!(clashing(subuid, true, 2_100_000, 4096), ["b", "d"]);
        assert!(clashing("", true, u32::MAX, u32::MAX).is_empty());
    }

    #[test]
    fn namespaces_and_rights() {
        let whole = "         0          0 4294967295\n";
        for (map, mapped) in [
            (whole, true),
            ("0 100000 65536\n", false),
            ("0 0 1000\n2000000 0 200000\n", true),
            ("", false),
            ("x y z\n", false),
        ] {
            assert_eq!(maps(map, 2_100_000, 4096), mapped, "{map}");
        }
        assert!(lacking("Name:\tx\nCapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(
            lacking("CapEff:\t0000000000001001\n").first(),
            Some(&"CAP_DAC_OVERRIDE")
        );
        assert_eq!(lacking("").len(), NEEDED.len());
    }
}
