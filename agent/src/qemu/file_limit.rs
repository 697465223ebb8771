//! How long a file of QEMU's may get. A guest that took its QEMU over could else fill
//! the file system that all guests share.

use std::{io, os::unix::fs::MetadataExt, path::Path};

use disk::ByteSize;
use rustix::{
    process::{Pid, Resource, Rlimit, prlimit},
    thread::{CapabilitySet, capabilities},
};

use super::process::Process;

/// The longest that the file of a disk of this size gets: the disk, the tables of QCOW2
/// (a 6,500th of it with clusters of 64 KiB) and room for what is written anew before
/// the old is free.
#[must_use]
pub fn longest(size: ByteSize) -> u64 {
    let size = size.bytes();
    size.saturating_add(size / 1024).saturating_add(64 << 20)
}

/// Whether this process may change the limit of a QEMU that runs, which takes
/// `CAP_SYS_RESOURCE`; containers often withhold it. Without, no QEMU gets a limit: it
/// could not write a volume that came later.
#[must_use]
pub fn can_be_changed() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Gives a running QEMU another limit; a disk of it came or grew.
///
/// # Errors
/// When the kernel refuses.
pub fn set(process: &Process, bytes: u64) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid()) else {
        return Ok(());
    };
    // The number is this process's while it lives, and nobody else's before it is waited for.
    if !process.is_alive() {
        return Ok(());
    }
    let exactly = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    prlimit(Some(pid), Resource::Fsize, exactly)?;
    Ok(())
}

/// Refuses a file that is longer than a disk of this size makes it: it was written by
/// a QEMU that did not keep to its limit.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`], or those of the file system.
pub fn check(path: &Path, size: ByteSize) -> io::Result<()> {
    let (file, most) = (std::fs::metadata(path)?, longest(size));
    // Blocks may lie past the end.
    let length = file.len().max(file.blocks().saturating_mul(512));
    if length <= most {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("{path} has {length} bytes, and a disk of {size} at most {most}: it is not used"),
    ))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;

    #[test]
    fn a_file_longer_than_its_record_allows_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = std::fs::File::create(&path).unwrap();
        let size = ByteSize::from_mib(1024);
        for (length, good) in [(0, true), (longest(size), true), (longest(size) + 1, false)] {
            file.set_len(length).unwrap();
            let result = check(&path, size);
            assert_eq!(result.is_ok(), good, "{length}: {result:?}");
        }
        file.set_len(0).unwrap();
        let past_the_end = FallocateFlags::KEEP_SIZE;
        let size = ByteSize::from_mib(0);
        check(&path, size).unwrap();
        if fallocate(&file, past_the_end, 0, longest(size) + (1 << 20)).is_ok() {
            check(&path, size).unwrap_err();
        }
        assert_eq!(longest(ByteSize::from_bytes(u64::MAX)), u64::MAX);
    }
}
