//! The file that is written.

use libc::{c_int, c_void};

/// How the record begins. Who wants one writes this into an empty file.
pub const MAGIC: [u8; 16] = *b"SNP launch rec 1";

/// Where descriptors are that QEMU was started with.
const DESCRIPTORS: std::ops::Range<c_int> = 10..200;

/// Adds an entry of these parts. Without a record, or when it cannot be written, QEMU ends:
/// a test that lacks an entry must fail.
pub(crate) fn add(kind: u64, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut entry = Vec::with_capacity(16 + len);
    entry.extend_from_slice(&kind.to_le_bytes());
    entry.extend_from_slice(&(len as u64).to_le_bytes());
    for part in parts {
        entry.extend_from_slice(part);
    }
    if find().is_none_or(|fd| !append(fd, &entry)) {
        eprintln!("snp-launch-recorder: no record can be written");
        std::process::abort();
    }
}

fn find() -> Option<c_int> {
    DESCRIPTORS.into_iter().find(|&fd| {
        let mut begin = [0_u8; MAGIC.len()];
        let to = begin.as_mut_ptr().cast::<c_void>();
        // SAFETY: reads into the array, at most its length; any descriptor may be tried.
        let read = unsafe { libc::pread(fd, to, begin.len(), 0) };
        read == begin.len() as isize && begin == MAGIC
    })
}

fn append(fd: c_int, mut bytes: &[u8]) -> bool {
    // SAFETY: moves the offset of a descriptor that is the record's.
    if unsafe { libc::lseek(fd, 0, libc::SEEK_END) } < 0 {
        return false;
    }
    while !bytes.is_empty() {
        // SAFETY: writes these bytes, at most their number.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written).ok().and_then(|n| bytes.get(n..)) {
            Some(rest) if written > 0 => bytes = rest,
            _ => return false,
        }
    }
    true
}
