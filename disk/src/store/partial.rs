//! An unfinished download on disk: the bytes, and a record of which are there.
//!
//! The record is written after the bytes it speaks of are synced, so that it never promises
//! too much after a power failure; if it does all the same, the digest tells.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{plan::Plan, validator::Validator};
use crate::{digest::Digest, error::Error, files};

/// Largest record that is read: 4096 counters and a URL.
const MAX_RECORD: u64 = 1 << 20;

/// The record next to a `.part` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where the bytes came from.
    pub(super) url: String,
    /// Which version of the content they belong to.
    pub(super) validator: Validator,
    /// Which bytes are there.
    pub(super) plan: Plan,
}

/// The two files of an unfinished download.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    pub(super) part: PathBuf,
    record: PathBuf,
}

impl Partial {
    /// The files of the download of the content with `expected`.
    pub(super) fn of(tmp: &Path, expected: &Digest) -> Self {
        let kind = match expected {
            Digest::Sha256(_) => "256",
            Digest::Sha512(_) => "512",
        };
        let key: String = expected.hex().chars().take(40).collect();
        let file = |suffix| tmp.join(format!("{kind}-{key}.{suffix}"));
        Partial {
            part: file("part"),
            record: file("json"),
        }
    }

    /// Opens or creates the `.part` file and holds it against every other holder in this
    /// process (a cancelled download's last write may still be under way). `None` while it is
    /// held.
    pub(super) fn open(&self) -> Result<Option<File>, Error> {
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&self.part)
        };
        let file = match open() {
            // A crash between the last check and the final name: the bytes are all there.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                let writable = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(&self.part, writable).and_then(|()| open())
            }
            result => result,
        }
        .map_err(Error::io("open", &self.part))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(Error::sys("lock", &self.part)(errno)),
        }
        // The previous holder may have finished, and renamed it, in between.
        let (held, named) = (file.metadata(), std::fs::symlink_metadata(&self.part));
        let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            (a.dev(), a.ino()) == (b.dev(), b.ino())
        };
        match (held, named) {
            (Ok(held), Ok(named)) if same(&held, &named) && named.is_file() => Ok(Some(file)),
            _ => Ok(None),
        }
    }

    /// The record, if it is there and fits the bytes.
    pub(super) fn load(&self, file: &File) -> Option<Record> {
        let record = read_record(&self.record)?;
        let len = file.metadata().ok()?.len();
        (record.plan.reach() <= len && len <= record.plan.total()).then_some(record)
    }

    /// Syncs the bytes, then says that they are there.
    pub(super) fn save(&self, file: &File, record: &Record) -> Result<(), Error> {
        file.sync_data().map_err(Error::io("sync", &self.part))?;
        let json = serde_json::to_vec(record)
            .map_err(|e| Error::io("write", &self.record)(std::io::Error::other(e)))?;
        files::replace(&self.record, &json)
    }

    /// Forgets everything.
    pub(super) fn reset(&self, file: &File) -> Result<(), Error> {
        files::remove(&self.record)?;
        file.set_len(0).map_err(Error::io("truncate", &self.part))
    }

    /// Removes both files.
    pub(super) fn discard(&self) -> Result<(), Error> {
        files::remove(&self.part)?;
        files::remove(&self.record).map(|_| ())
    }

    /// The complete file gets its final name. What has it was found wanting, or is the same.
    pub(super) fn promote(&self, file: &File, target: &Path) -> Result<(), Error> {
        file.sync_all().map_err(Error::io("sync", &self.part))?;
        std::fs::rename(&self.part, target).map_err(Error::io("rename", &self.part))?;
        files::sync_dir(files::parent(target))?;
        files::remove(&self.record).map(|_| ())
    }
}

fn read_record(path: &Path) -> Option<Record> {
    let file = files::open_read(path).ok()?;
    if file.metadata().ok()?.len() > MAX_RECORD {
        return None;
    }
    let mut json = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut json).ok()?;
    Record::parse(&json)
}

impl Record {
    /// A record as it is on disk, if it makes sense.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let record: Record = serde_json::from_slice(json).ok()?;
        record.plan.is_valid().then_some(record)
    }
}

/// What a file in `tmp/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The bytes of a download that can go on.
    Resumable,
    /// The record of such a one.
    Record,
    /// A left-over.
    Garbage,
    /// Not ours.
    Unknown,
}

/// Judges a file of `tmp/` by its name, its partner and its age.
pub(super) fn classify(path: &Path, now: SystemTime, keep: Duration) -> Kind {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    if name.starts_with(files::TEMP_PREFIX) {
        return Kind::Garbage;
    }
    let ours = name
        .split_once('.')
        .and_then(|(stem, _)| stem.strip_prefix("256-").or(stem.strip_prefix("512-")))
        .is_some_and(|key| key.len() == 40 && key.bytes().all(|b| b.is_ascii_hexdigit()));
    let suffix = path.extension().and_then(|e| e.to_str());
    if !ours || !matches!(suffix, Some("part" | "json")) {
        return Kind::Unknown;
    }
    let (part, record) = (path.with_extension("part"), path.with_extension("json"));
    let modified = part.symlink_metadata().and_then(|m| m.modified());
    let fresh = modified.is_ok_and(|at| now.duration_since(at).map_or(true, |age| age <= keep));
    if fresh && read_record(&record).is_some() {
        if suffix == Some("part") {
            Kind::Resumable
        } else {
            Kind::Record
        }
    } else {
        Kind::Garbage
    }
}
