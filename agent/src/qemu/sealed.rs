//! Files that were read once and cannot change any more.
//!
//! What a confidential guest is launched from is hashed, and its launch digest predicted,
//! from the very bytes that QEMU opens: a file is read once into sealed memory, and the
//! launcher copies that into QEMU's private root. Whoever replaces the file in between
//! changes nothing.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    sync::Arc,
};

use nix::libc::O_NONBLOCK;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};

/// Bytes in memory that nobody can change, with their digest. Clones share the memory.
#[derive(Clone)]
pub struct SealedFile {
    file: Arc<File>,
    len: u64,
    sha256: [u8; 32],
}

impl SealedFile {
    /// Reads a regular file of at most `most` bytes.
    ///
    /// # Errors
    /// Those of reading it, and for what is no regular file or longer.
    pub fn read(path: &Path, most: u64) -> io::Result<Self> {
        // What is no file is told so, instead of being waited for.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Self::seal(file, most)
    }

    /// The bytes themselves.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn of(bytes: &[u8]) -> io::Result<Self> {
        Self::seal(bytes, u64::MAX)
    }

    fn seal(source: impl Read, most: u64) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("crn-launch", flags)?);
        let mut source = source.take(most.saturating_add(1));
        let mut buffer = vec![0; 256 << 10];
        let (mut hash, mut len) = (Sha256::new(), 0_u64);
        loop {
            let bytes = match source.read(&mut buffer) {
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if bytes.is_empty() {
                break;
            }
            len = len.saturating_add(bytes.len() as u64);
            if len > most {
                return Err(io::Error::other(format!("longer than {most} bytes")));
            }
            hash.update(bytes);
            file.write_all(bytes)?;
        }
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Self {
            file: Arc::new(file),
            len,
            sha256: hash.finalize().into(),
        })
    }

    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.len
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// The bytes, copied.
    ///
    /// # Errors
    /// Those of reading.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// When there are too many.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

/// Equal are those of equal content.
impl PartialEq for SealedFile {
    fn eq(&self, other: &Self) -> bool {
        (self.len, self.sha256) == (other.len, other.sha256)
    }
}

impl Eq for SealedFile {}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = hex::encode(self.sha256);
        write!(f, "SealedFile({} bytes, sha256 {digest})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Seek, SeekFrom},
        process::Command,
    };

    use super::*;

    #[test]
    fn what_was_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        let bytes: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let sealed = SealedFile::read(&path, 700_000).unwrap();
        std::fs::write(&path, "something else").unwrap();
        assert_eq!((sealed.length(), sealed.bytes().unwrap()), (700_000, bytes));
        let expected: [u8; 32] = Sha256::digest(sealed.bytes().unwrap()).into();
        assert_eq!(sealed.sha256(), expected);
        assert_eq!(sealed, SealedFile::of(&sealed.bytes().unwrap()).unwrap());
        assert_ne!(sealed, SealedFile::read(&path, 100).unwrap());
        // Not even by who holds it.
        let mut file = File::from(sealed.descriptor().unwrap());
        file.seek(SeekFrom::Start(0)).unwrap();
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(1).is_err() && file.set_len(1 << 20).is_err());
    }

    #[test]
    fn what_is_too_long_or_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("firmware");
        std::fs::write(&path, [7; 4097]).unwrap();
        let long = SealedFile::read(&path, 4096).unwrap_err();
        assert_eq!(long.to_string(), "longer than 4096 bytes");
        assert!(SealedFile::read(&path, 4097).is_ok());
        assert!(SealedFile::read(dir.path(), 4096).is_err());
        let fifo = dir.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        let refused = SealedFile::read(&fifo, 4096).unwrap_err();
        assert_eq!(refused.to_string(), "not a regular file");
        assert!(SealedFile::read(&dir.path().join("none"), 1).is_err());
    }
}
