//! Host names and mount points as types: parsed once, then proof that they are well formed.

use std::{fmt, str::FromStr};

use super::error::{SeedError, excerpt};

/// A host name: one label as in RFC 1123 section 2.1, lower case, at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(String);

impl Hostname {
    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let refuse = |reason| {
            Err(SeedError::Hostname {
                value: excerpt(text),
                reason,
            })
        };
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > 63 {
            return refuse("it is longer than 63 characters");
        }
        if !text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return refuse("only letters, digits and `-` are allowed");
        }
        if text.starts_with('-') || text.ends_with('-') {
            return refuse("it begins or ends with `-`");
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a volume is mounted in the guest: an absolute, normalised path of at most 255 bytes,
/// outside the directories without which the guest would not work.
///
/// Components are of `A-Z a-z 0-9 . _ + @ -`: cloud-init writes the path into `/etc/fstab`
/// without escaping anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MountPoint(String);

/// These and everything below them.
const SYSTEM_TREES: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/var/lib/cloud",
    "/var/lock",
    "/var/run",
    "/var/tmp",
];
/// These, but not what is below them: a volume would hide what the image has there.
const SYSTEM_DIRECTORIES: &[&str] = &[
    "/root",
    "/root/.ssh",
    "/var",
    "/var/lib",
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/log",
];
/// Below a tree of the system, and yet the user's.
const EXCEPTIONS: &[&str] = &["/usr/local", "/usr/src"];

impl MountPoint {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MountPoint {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let refuse = |reason| {
            Err(SeedError::MountPoint {
                value: excerpt(text),
                reason,
            })
        };
        let Some(relative) = text.strip_prefix('/') else {
            return refuse("it is not an absolute path");
        };
        if relative.is_empty() {
            return refuse("the root file system is not a volume");
        }
        if text.len() > 255 {
            return refuse("it is longer than 255 bytes");
        }
        for component in relative.split('/') {
            match component {
                "" => return refuse("it has `//` or ends with `/`"),
                "." | ".." => return refuse("it has a component `.` or `..`"),
                _ => {}
            }
            let plain = |c: u8| c.is_ascii_alphanumeric() || b"._+@-".contains(&c);
            if !component.bytes().all(plain) {
                return refuse("only letters, digits and . _ + @ - are allowed between slashes");
            }
        }
        let within = |tree: &&str| {
            text.strip_prefix(*tree)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if SYSTEM_DIRECTORIES.contains(&text)
            || SYSTEM_TREES.iter().any(within) && !EXCEPTIONS.iter().any(within)
        {
            return refuse("the guest's system needs that directory; mount it elsewhere");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for MountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames() {
        for good in ["a", "web-1", "0", "x2345", &"a".repeat(63)] {
            assert_eq!(good.parse::<Hostname>().unwrap().as_str(), good);
        }
        assert_eq!("WEB".parse::<Hostname>().unwrap().as_str(), "web");
        for bad in [
            "",
            "-a",
            "a-",
            "a.b",
            "a_b",
            "a b",
            "é",
            "a\nb",
            "a\0",
            "$(id)",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mount_points() {
        for good in [
            "/data",
            "/mnt/a-b_c",
            "/srv/x+y@z.d",
            "/var/lib/docker",
            "/home",
            "/usr/local/x",
            "/etcetera",
            "/root/data",
        ] {
            assert_eq!(good.parse::<MountPoint>().unwrap().as_str(), good);
        }
        let long = format!("/{}", "a".repeat(255));
        for bad in [
            "",
            "/",
            "data",
            "//data",
            "/data/",
            "/data//x",
            "/a/../etc",
            "/./a",
            "/etc",
            "/etc/x",
            "/proc",
            "/dev/shm",
            "/boot/efi",
            "/usr",
            "/usr/bin",
            "/var",
            "/root",
            "/run/x",
            "/da ta",
            "/a\nb",
            "/a\tb",
            "/a#b",
            "/a\\040b",
            "/a,b",
            "/ä",
            "/a\0",
            &long,
        ] {
            assert!(bad.parse::<MountPoint>().is_err(), "{bad:?}");
        }
    }
}
