//! Free space of a file system.

use std::path::Path;

use crate::{error::Error, units::ByteSize};

/// Bytes that an unprivileged process may still write to the file system of `dir`.
///
/// # Errors
/// Those of the file system.
pub fn free_space(dir: &Path) -> Result<ByteSize, Error> {
    let stat = rustix::fs::statvfs(dir).map_err(Error::sys("ask for the free space of", dir))?;
    Ok(ByteSize::from_bytes(
        stat.f_bavail.saturating_mul(stat.f_frsize),
    ))
}

/// Fails unless `dir` has room for `needed` bytes and the `reserve`.
pub(crate) fn require(dir: &Path, needed: u64, reserve: ByteSize) -> Result<(), Error> {
    let free = free_space(dir)?;
    let needed = ByteSize::from_bytes(needed).saturating_add(reserve);
    if needed > free {
        return Err(Error::NoSpace {
            dir: dir.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_measured_and_required() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_space(dir.path()).unwrap();
        assert!(free > ByteSize::ZERO);
        require(dir.path(), 1, ByteSize::ZERO).unwrap();
        let error = require(dir.path(), u64::MAX, ByteSize::from_gib(1)).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(free_space(Path::new("/nonexistent/dir")).is_err());
    }
}
