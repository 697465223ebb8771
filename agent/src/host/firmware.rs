//! Firmware files that guests boot from.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where QEMU's own BIOS lies.
pub const BIOS: &[&str] = &[
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
];
/// OVMF builds with SEV's kernel hashes (edk2's OvmfPkg/AmdSev).
pub const AMD_SEV: &[&str] = &[
    "/usr/share/ovmf/OVMF.amdsev.fd",
    "/usr/share/OVMF/OVMF.amdsev.fd",
    "/usr/share/edk2/ovmf/OVMF.amdsev.fd",
];

/// Firmware images are whole pages, and none is larger than this, bytes.
const LARGEST: u64 = 64 << 20;
const PAGE: u64 = 4096;

/// A place where firmware may lie, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub state: State,
}

/// What is in a firmware's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A readable file of a plausible size, bytes.
    Usable(u64),
    /// Nothing.
    Absent,
    /// Something that cannot be a firmware image, or cannot be read.
    Unusable,
}

/// What was found for each use, in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirmwareFacts {
    /// SeaBIOS.
    pub bios: Vec<Candidate>,
    /// OVMF's code and its variables' template, as configured.
    pub uefi: [Candidate; 2],
    /// OVMF for measured launches.
    pub amd_sev: Vec<Candidate>,
}

/// Looks at the places. Opens files, reads nothing.
#[must_use]
pub fn gather(uefi_code: &Path, uefi_vars: &Path) -> FirmwareFacts {
    let all = |paths: &[&str]| paths.iter().map(|p| look(Path::new(p))).collect();
    FirmwareFacts {
        bios: all(BIOS),
        uefi: [look(uefi_code), look(uefi_vars)],
        amd_sev: all(AMD_SEV),
    }
}

/// The first usable one.
#[must_use]
pub fn first(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates
        .iter()
        .find(|c| matches!(c.state, State::Usable(_)))
}

fn look(path: &Path) -> Candidate {
    // The type first: opening a FIFO would wait for its writer.
    let state = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => State::Absent,
        Ok(m)
            if m.is_file()
                && m.len() > 0
                && m.len() % PAGE == 0
                && m.len() <= LARGEST
                && std::fs::File::open(path).is_ok() =>
        {
            State::Usable(m.len())
        }
        _ => State::Unusable,
    };
    Candidate {
        path: path.to_owned(),
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plausible_files_are_usable() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, size: u64| {
            let path = dir.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(size).unwrap();
            path
        };
        for (path, state) in [
            (file("good", 4 << 20), State::Usable(4 << 20)),
            (file("empty", 0), State::Unusable),
            (file("odd", 4097), State::Unusable),
            (file("huge", 1 << 30), State::Unusable),
            (dir.path().to_owned(), State::Unusable),
            (dir.path().join("none"), State::Absent),
        ] {
            assert_eq!(look(&path).state, state, "{}", path.display());
        }
        let all = [
            look(&dir.path().join("none")),
            look(&dir.path().join("good")),
        ];
        assert_eq!(
            first(&all).map(|c| c.path.clone()),
            Some(dir.path().join("good"))
        );
        assert_eq!(first(&all[..1]), None);
    }
}
