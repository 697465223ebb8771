//! Whether anybody has a file open: asked of the kernel, which knows, and not of the
//! process that is to have closed it.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use nix::libc::{self, F_SETLEASE, F_UNLCK, F_WRLCK, SIGURG};

use crate::error::Error;

/// Of <asm-generic/fcntl.h>; the crate `libc` does not have it.
const F_SETSIG: i32 = 10;

/// What the kernel says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum OpenFile {
    /// No open file description of it exists, in any process or on its way to one.
    No,
    /// Some process has it open.
    Yes,
    /// The file system has no leases, so that nobody can tell.
    Unknown,
}

/// Asks whether anybody has a file open, to read or to write.
///
/// The kernel grants a write lease (fcntl(2), F_SETLEASE) only where no other open file
/// description exists, wherever its descriptors went. The lease is given back at once:
/// the answer stays true as long as nobody who may open the file does.
///
/// # Errors
/// [`Error::Io`] when there is no such file, or it cannot be opened.
pub fn is_open(path: &Path) -> Result<OpenFile, Error> {
    let fail = Error::io("ask for a lease of", path);
    let file = File::open(path).map_err(Error::io("open", path))?;
    let ask = || {
        // Who opens the file in this moment has the holder signalled; by default that ends it.
        set(&file, F_SETSIG, SIGURG)?;
        set(&file, F_SETLEASE, F_WRLCK)?;
        set(&file, F_SETLEASE, F_UNLCK)
    };
    match ask() {
        Ok(()) => Ok(OpenFile::No),
        Err(e) => match e.raw_os_error() {
            Some(libc::EAGAIN) => Ok(OpenFile::Yes),
            Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS) => {
                Ok(OpenFile::Unknown)
            }
            _ => Err(fail(e)),
        },
    }
}

#[allow(unsafe_code, reason = "no library has these two commands of fcntl")]
fn set(file: &File, command: i32, argument: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the argument of both commands is a number.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_file_is_open_as_long_as_anybody_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(is_open(&path).unwrap(), OpenFile::No);

        let ours = File::open(&path).unwrap();
        assert_eq!(is_open(&path).unwrap(), OpenFile::Yes, "to read, by us");
        let copy = ours.try_clone().unwrap();
        drop(ours);
        assert_eq!(is_open(&path).unwrap(), OpenFile::Yes, "a duplicate");

        // Another process keeps it, and says nothing of it.
        let mut keeper = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::from(copy))
            .spawn()
            .unwrap();
        assert_eq!(is_open(&path).unwrap(), OpenFile::Yes, "another process");
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        assert_eq!(is_open(&path).unwrap(), OpenFile::No, "it has ended");

        // On its way from one process to another, in none of them.
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let sent = File::options().write(true).open(&path).unwrap();
        send(&here, &sent);
        drop(sent);
        assert_eq!(is_open(&path).unwrap(), OpenFile::Yes, "in a socket");
        drop((here, there));
        assert_eq!(is_open(&path).unwrap(), OpenFile::No);
        assert!(is_open(&dir.path().join("none")).is_err());
    }

    fn send(socket: &std::os::unix::net::UnixStream, file: &File) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::os::fd::AsFd;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let bytes = [io::IoSlice::new(b"x")];
        sendmsg(socket, &bytes, &mut control, SendFlags::empty()).unwrap();
    }

    /// Whoever opens the file while it is asked about does not end the asker.
    #[test]
    fn asking_while_others_open_it_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::write(&path, "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        drop(File::open(&path).unwrap());
                    }
                });
            }
            for _ in 0..2000 {
                let _ = is_open(&path).unwrap();
            }
        });
        assert_eq!(is_open(&path).unwrap(), OpenFile::No);
    }
}
