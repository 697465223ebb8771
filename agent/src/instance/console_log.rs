//! Keeps a log that a guest writes within its bound, while QEMU writes it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use rustix::fs::{FallocateFlags, fallocate};

/// Blocks of file systems are at most this large; collapsed ranges are whole blocks.
const BLOCK: u64 = 64 << 10;

/// Where the log is longer than `most` bytes, its older half goes.
///
/// On file systems that can take a range out of a file (ext4, XFS) nothing that
/// QEMU writes meanwhile is lost. On others the newer half is copied, and what
/// QEMU appends between the copy and the cut, a moment, is lost. QEMU appends
/// (`O_APPEND`), so its position follows by itself.
pub(super) fn bound(path: &Path, most: u64) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    if length <= most {
        return Ok(());
    }
    let keep = most / 2;
    let cut = (length - keep) / BLOCK * BLOCK;
    if cut > 0 && fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, cut).is_ok() {
        return Ok(());
    }
    copy_down(&mut file, path, length - keep, keep)
}

fn copy_down(file: &mut File, path: &Path, from: u64, keep: u64) -> io::Result<()> {
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    // QEMU may be appending faster than we read: no further than what was there.
    file.take(keep).read_to_end(&mut rest)?;
    let mut end = OpenOptions::new().append(true).open(path)?;
    end.set_len(0)?;
    end.write_all(&rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(from: u32, to: u32) -> String {
        (from..to).map(|n| format!("line {n:08}\n")).collect()
    }

    #[test]
    fn the_newer_half_survives_and_the_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        bound(&path, 1 << 20).unwrap();
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let text = lines(0, 200_000);
        writer.write_all(text.as_bytes()).unwrap();
        bound(&path, 1 << 22).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            text,
            "short enough"
        );
        bound(&path, 1 << 20).unwrap();
        writer.write_all(b"end\n").unwrap();
        let now = std::fs::read_to_string(&path).unwrap();
        assert!(
            now.len() <= (1 << 20) && now.len() > (1 << 18),
            "{}",
            now.len()
        );
        assert!(format!("{text}end\n").ends_with(&now));
    }

    #[test]
    fn where_ranges_cannot_be_collapsed_the_newer_half_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let text = lines(0, 20_000);
        std::fs::write(&path, &text).unwrap();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let keep = 100_000;
        copy_down(&mut file, &path, text.len() as u64 - keep, keep).unwrap();
        let now = std::fs::read_to_string(&path).unwrap();
        assert_eq!(now.len() as u64, keep);
        assert!(text.ends_with(&now));
    }
}
