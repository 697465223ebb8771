//! QEMU's image locks, so that a disk is never changed under a running QEMU.
//!
//! QEMU (block/file-posix.c, "locking") takes open-file-description locks on single bytes:
//! 100 + p for each permission p that it uses, 200 + p for each that it does not share with
//! others. A lock here claims writing and resizing, shared with nobody, by the same rules.

use std::{fs::File, io, os::fd::AsFd, path::Path};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, flock},
};

use crate::error::Error;

const USED: i64 = 100;
const UNSHARED: i64 = 200;
/// Consistent read, write, resize: BLK_PERM_* bits 0, 1 and 3.
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Claims `file` for exclusive writing until it (and every duplicate of it) is closed.
///
/// Fails with [`Error::InUse`] while a QEMU or another claim has it open for writing. A QEMU
/// started meanwhile refuses the disk. Where the file system has no such locks, nothing is
/// claimed, as in QEMU.
pub(crate) fn claim(file: &File, path: &Path) -> Result<(), Error> {
    let result = try_claim(file);
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::InUse {
            path: path.to_owned(),
        }),
        Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::io("lock", path)(io::Error::from(errno))),
    }
}

fn try_claim(file: &File) -> nix::Result<bool> {
    let ours = [
        USED + READ,
        USED + WRITE,
        USED + RESIZE,
        UNSHARED + WRITE,
        UNSHARED + RESIZE,
    ];
    for byte in ours {
        match fcntl(
            file.as_fd(),
            FcntlArg::F_OFD_SETLK(&byte_lock(F_RDLCK, byte)),
        ) {
            Ok(_) => (),
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
    // Nobody else may use what is not shared, nor refuse to share what is used.
    let theirs = [
        USED + WRITE,
        USED + RESIZE,
        UNSHARED + READ,
        UNSHARED + WRITE,
        UNSHARED + RESIZE,
    ];
    for byte in theirs {
        let mut probe = byte_lock(F_WRLCK, byte);
        fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut probe))?;
        if i32::from(probe.l_type) != F_UNLCK {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fails with [`Error::InUse`] while a QEMU, or another claim, has `file` open for writing. Claims
/// nothing itself.
pub(crate) fn refuse_writer(file: &File, path: &Path) -> Result<(), Error> {
    // A write lock here would be in the way of whoever holds the byte: so it is only asked about.
    let mut probe = byte_lock(F_WRLCK, USED + WRITE);
    match fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut probe)) {
        Ok(_) if i32::from(probe.l_type) != F_UNLCK => Err(Error::InUse {
            path: path.to_owned(),
        }),
        Ok(_) | Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::io("ask for locks of", path)(io::Error::from(errno))),
    }
}

fn byte_lock(kind: i32, byte: i64) -> flock {
    flock {
        // The constants are 0 to 2.
        l_type: kind as i16,
        l_whence: SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}
