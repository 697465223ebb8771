//! QEMU: its version and what it was built with.

use std::{collections::BTreeSet, fmt, path::Path, time::Duration};

use serde::Serialize;

use super::run::{RunError, ask};

/// The oldest version that has `sev-snp-guest` (added in 9.1).
pub const MINIMUM: Version = Version {
    major: 9,
    minor: 1,
    micro: 0,
};

/// What one question may take. QEMU answers in about 50 ms.
const LIMIT: Duration = Duration::from_millis(1500);

/// A version number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Version {
    /// Changes every year.
    pub major: u32,
    /// Of the year's three.
    pub minor: u32,
    /// Fixes; 50 and above are development versions on the way to the next minor.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// What the program says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QemuFacts {
    /// Its version; `None` when its answer has none.
    pub version: Option<Version>,
    /// The first line of its answer to `--version`.
    pub banner: String,
    /// `-sandbox` is known (built with libseccomp).
    pub sandbox: bool,
    /// Types of `-object`.
    pub objects: BTreeSet<String>,
    /// Accelerators.
    pub accelerators: BTreeSet<String>,
    /// Machine types and their aliases.
    pub machines: BTreeSet<String>,
}

/// Asks the program. Nothing but its help is run.
///
/// # Errors
/// When it cannot be run at all or does not answer.
pub async fn gather(binary: &Path) -> Result<QemuFacts, RunError> {
    let (sandboxed, plain, objects, accelerators, machines) = tokio::try_join!(
        ask(binary, &["-sandbox", "on", "-version"], LIMIT),
        ask(binary, &["--version"], LIMIT),
        ask(binary, &["-object", "help"], LIMIT),
        ask(binary, &["-accel", "help"], LIMIT),
        ask(binary, &["-machine", "help"], LIMIT),
    )?;
    let banner = plain.output.lines().next().unwrap_or_default();
    Ok(QemuFacts {
        version: version(banner),
        banner: banner.chars().take(200).collect(),
        sandbox: sandboxed.ok,
        objects: names(&objects.output),
        accelerators: names(&accelerators.output),
        machines: names(&machines.output),
    })
}

/// The version in `QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)`.
#[must_use]
pub fn version(banner: &str) -> Option<Version> {
    let (_, rest) = banner.split_once("version ")?;
    let number = rest.trim_start_matches('v');
    let end = number
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(number.len());
    let mut parts = number
        .get(..end)?
        .trim_end_matches('.')
        .split('.')
        .map(str::parse);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let micro = parts.next().unwrap_or(Ok(0)).ok()?;
    Some(Version {
        major,
        minor,
        micro,
    })
}

/// The names in one of QEMU's help lists: the first word of every line but the heading.
#[must_use]
pub fn names(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter(|line| !line.trim_end().ends_with(':'))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_and_developers() {
        let v = |major, minor, micro| {
            Some(Version {
                major,
                minor,
                micro,
            })
        };
        for (banner, expected) in [
            (
                "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)",
                v(10, 0, 2),
            ),
            (
                "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u14)",
                v(7, 2, 19),
            ),
            (
                "QEMU emulator version 9.1.50 (v9.1.0-1234-gabcdef)",
                v(9, 1, 50),
            ),
            ("QEMU emulator version 8.2-rc1", v(8, 2, 0)),
            ("QEMU emulator version v9.1.0", v(9, 1, 0)),
            ("QEMU emulator version 9.2.", v(9, 2, 0)),
            ("QEMU emulator version 9", None),
            ("QEMU emulator version 99999999999.1", None),
            ("qemu-kvm 9.1", None),
            ("", None),
        ] {
            assert_eq!(version(banner), expected, "{banner}");
        }
        assert!(v(9, 0, 4) < Some(MINIMUM) && v(10, 0, 0) > Some(MINIMUM));
    }

    #[test]
    fn help_lists_are_words() {
        let objects = "List of user creatable objects:\n  iothread\n  sev-guest\n\n";
        assert_eq!(
            names(objects).into_iter().collect::<Vec<_>>(),
            ["iothread", "sev-guest"]
        );
        let machines = "Supported machines are:\nq35     Standard PC (alias of pc-q35-10.0)\n";
        assert!(names(machines).contains("q35"));
        assert!(names("").is_empty());
    }

    #[tokio::test]
    async fn the_installed_one_answers() {
        let facts = gather(Path::new("/usr/bin/qemu-system-x86_64"))
            .await
            .unwrap();
        assert!(facts.version >= Some(MINIMUM), "{facts:?}");
        assert!(facts.sandbox);
        assert!(facts.objects.contains("iothread"), "{facts:?}");
        assert!(facts.accelerators.contains("tcg"));
        assert!(facts.machines.contains("q35"));
        assert!(matches!(
            gather(Path::new("/nonexistent")).await,
            Err(RunError::NotFound(_))
        ));
        // A program that is no QEMU has no version.
        let other = gather(Path::new("/bin/true")).await.unwrap();
        assert_eq!((other.version, other.machines.len()), (None, 0));
    }
}
