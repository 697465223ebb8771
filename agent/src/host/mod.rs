//! What this host is and can: facts, gathered without changing anything.
//!
//! Each module has a pure half (parsers, verdicts; table-tested) and a small half
//! that reads. [`kvm`] measures, [`accel`] decides what guests run on; the rest
//! feeds [`crate::doctor`]. Whatever a file or a program says is taken as hostile:
//! it is bounded in size, and what cannot be parsed is unknown, not zero.

pub mod accel;
pub mod directory;
pub mod firmware;
pub mod kvm;
pub mod machines;
pub mod network;
pub mod nft;
pub mod qemu;
pub mod run;
pub mod sev;
/// Asked by tests alone, until instances can be confidential.
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "no instance is launched so yet")
)]
pub mod sev_capabilities;
pub mod system;
pub mod users;

use std::{fs::File, io::Read, path::Path};

/// Largest file of `/proc`, `/sys` or `/etc` that is read, bytes.
const LARGEST: u64 = 4 << 20;

/// A small text file; `None` when it is missing, unreadable, no text or too large.
pub(crate) fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let read = File::open(path)
        .ok()?
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .ok()?;
    (read as u64 <= LARGEST).then_some(text)
}

/// Whether a device node can be used by this process.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Device {
    /// It can be opened to read and write.
    Usable,
    /// There is none.
    Absent,
    /// It exists and cannot be opened.
    Refused {
        /// Why.
        why: String,
    },
}

/// Opens a device node to read and write and closes it again.
#[must_use]
pub fn device(path: &Path) -> Device {
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
    {
        Ok(_) => Device::Usable,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Device::Absent,
        Err(e) => Device::Refused { why: e.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_files_that_are_not_there_are_told_apart_from_those_that_refuse() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(device(Path::new("/dev/null")), Device::Usable);
        assert_eq!(device(&dir.path().join("none")), Device::Absent);
        assert!(matches!(device(dir.path()), Device::Refused { .. }));
        assert_eq!(text(dir.path()), None);
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        assert_eq!(text(&large), None);
    }

    proptest::proptest! {
        /// Whatever a file or a program says, it is read without a panic.
        #[test]
        fn no_text_makes_a_parser_panic(
            text in "(?s)[ -~\\n\\t\u{7f}-\u{ff}]{0,200}",
            numbers in proptest::collection::vec("[0-9a-fx.:/-]{0,40}", 0..12),
            base: u32,
            count: u32,
        ) {
            for text in [&text, &numbers.join(" "), &numbers.join(":"), &numbers.join("\n")] {
                let _ = qemu::version(&format!("version {text}"));
                let _ = qemu::names(text);
                let _ = nft::version(&format!("nftables v{text}"));
                let _ = sev::flag(text);
                let _ = system::kernel_version(text);
                let _ = system::memory(&format!("MemTotal: {text}\nMemAvailable: {text}\n"));
                let _ = users::clashing(text, true, base, count);
                let _ = users::clashing(text, false, base, count);
                let _ = users::maps(text, base, count);
                let _ = users::lacking(&format!("CapEff:{text}"));
                let (a, r) = (network::addresses(text), network::routes(text));
                let _ = network::place(Some(text), &a, &r);
                let _ = crate::mounts::parse(&format!("1 2 3 / {text} - {text}"));
            }
        }
    }
}
