//! The store of base images: content-addressed, read-only, crash-safe.
//!
//! ```text
//! <root>/lock               held by the one process that uses the store
//! <root>/sha256/<hex>.img   images, mode 0444, named for their content
//! <root>/sha512/<hex>       symbolic links to images that were asked for by SHA-512
//! <root>/tmp/<key>.part     an unfinished download, and
//! <root>/tmp/<key>.json     how far it came
//! ```
//!
//! Invariants: a file in `sha256/` is complete, was inspected, had the digest in its name when
//! it was linked there, and is never written again. Names, tags and origins of images are not
//! the store's business: the agent's database maps them to digests.

mod flight;
mod hashing;
mod http;
mod ledger;
mod partial;
mod plan;
mod pull;
mod transfer;

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, Digest, Error, Flaw, Format, ImageInfo, Sha256,
    digest::{BLOCK, Digests, Hasher, hash_range},
    files::{self, NewFile, Published},
    inspect_named, space,
};

pub use pull::{Expected, PullRequest};
pub use transfer::Tuning;

/// What a store allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Largest image file.
    pub max_image_size: ByteSize,
    /// Space on the file system that the store leaves free.
    pub reserve: ByteSize,
    /// Unfinished downloads older than this are removed by [`ImageStore::sweep`].
    pub keep_partial: Duration,
    /// Time limits and numbers of the downloads.
    pub tuning: Tuning,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            max_image_size: ByteSize::from_gib(256),
            reserve: ByteSize::from_mib(256),
            keep_partial: Duration::from_secs(7 * 24 * 3600),
            tuning: Tuning::default(),
        }
    }
}

/// How far a long operation is. Never goes back, except when a download starts afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub done: ByteSize,
    /// Bytes in all, where known.
    pub total: Option<ByteSize>,
}

impl Progress {
    pub(crate) fn new(done: u64, total: Option<u64>) -> Self {
        Progress {
            done: ByteSize::from_bytes(done),
            total: total.map(ByteSize::from_bytes),
        }
    }
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Its name.
    pub digest: Sha256,
    /// Its file, absolute if the store's root is.
    pub path: PathBuf,
    /// What it is.
    pub info: ImageInfo,
}

/// A local file to take into the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// The format it was announced with, if any; another one is refused.
    pub format: Option<Format>,
    /// The digest it must have, if known.
    pub expected: Option<Digest>,
}

/// What [`ImageStore::sweep`] found that is no image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Unfinished downloads that the next pull continues.
    pub resumable: Vec<PathBuf>,
    /// Left-overs that were removed.
    pub removed: Vec<PathBuf>,
    /// Files that are not the store's; left alone.
    pub unknown: Vec<PathBuf>,
}

/// The store. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    options: StoreOptions,
    flights: flight::Flights,
    clients: http::Clients,
    /// Held as long as the store is open.
    _lock: File,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore")
            .field("root", &self.inner.root)
            .finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens the store in `root`, creating what is missing, with default options.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_with(root, StoreOptions::default())
    }

    /// Opens the store in `root`, creating what is missing. One process at a time can.
    pub fn open_with(root: &Path, options: StoreOptions) -> Result<Self, Error> {
        for dir in [
            root,
            &root.join("sha256"),
            &root.join("sha512"),
            &root.join("tmp"),
        ] {
            std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        }
        let root = root.canonicalize().map_err(Error::io("resolve", root))?;
        let lock_path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(Error::io("open", &lock_path))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::StoreInUse { path: root }),
            Err(errno) => return Err(Error::sys("lock", &lock_path)(errno)),
        }
        let inner = Inner {
            root,
            options,
            flights: flight::Flights::default(),
            clients: http::Clients::default(),
            _lock: lock,
        };
        Ok(ImageStore {
            inner: Arc::new(inner),
        })
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The options it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// Where the image with `digest` is, or would be.
    pub fn path_of(&self, digest: &Sha256) -> PathBuf {
        self.inner
            .root
            .join("sha256")
            .join(format!("{}.img", digest.hex()))
    }

    fn tmp(&self) -> PathBuf {
        self.inner.root.join("tmp")
    }

    fn sha512_link(&self, digest: &[u8; 64]) -> PathBuf {
        self.inner.root.join("sha512").join(hex::encode(digest))
    }

    /// Takes a local file into the store: copies, hashes and inspects it. The file itself is
    /// only read. `progress` is called after each block.
    pub fn import(
        &self,
        path: &Path,
        import: &Import,
        mut progress: impl FnMut(Progress),
    ) -> Result<StoredImage, Error> {
        let source = files::open_read(path).map_err(Error::into_refusal)?;
        let len = source
            .metadata()
            .map_err(Error::io("examine", path))?
            .size();
        let max = self.inner.options.max_image_size;
        if len > max.bytes() {
            let (what, size) = (path.display().to_string(), ByteSize::from_bytes(len));
            return Err(Error::TooLarge { what, size, max });
        }
        // Look before copying: a refusal costs little.
        inspect_named(&source, import.format, path)?;
        space::require(&self.tmp(), len, self.inner.options.reserve)?;

        let _import = self.inner.flights.import();
        // O_TMPFILE where it exists: a crash leaves nothing. Elsewhere sweep() removes it.
        let copy = NewFile::create(&self.tmp().join("import"))?;
        let mut hasher = Hasher::for_expected(import.expected.as_ref());
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < len {
            let want = BLOCK.min(usize::try_from(len - at).unwrap_or(BLOCK));
            let block = block.get_mut(..want).unwrap_or_default();
            source
                .read_exact_at(block, at)
                .map_err(Error::io("read", path))?;
            hasher.update(block);
            if block.iter().any(|&b| b != 0) {
                copy.file()
                    .write_all_at(block, at)
                    .map_err(Error::io("copy", path))?;
            }
            at += want as u64;
            progress(Progress::new(at, Some(len)));
        }
        copy.file().set_len(len).map_err(Error::io("copy", path))?;
        let digests = hasher.finish();
        let expected = import.expected.as_ref();
        let image = self.approve(copy.file(), &digests, expected, import.format, path)?;
        // The same content under the name already is as good.
        match copy.publish_as(&image.path)? {
            Published::New | Published::Existed => (),
        }
        self.index(&image, &digests)?;
        Ok(image)
    }

    /// The one door into `sha256/`: checks the digest, inspects, and makes the file read-only.
    /// The caller then gives it its name.
    fn approve(
        &self,
        file: &File,
        digests: &Digests,
        expected: Option<&Digest>,
        format: Option<Format>,
        name: &Path,
    ) -> Result<StoredImage, Error> {
        if let Some((expected, found)) = expected.and_then(|e| Some((e, digests.mismatch(e)?))) {
            return Err(Error::DigestMismatch {
                what: name.display().to_string(),
                expected: Box::new(*expected),
                found: Box::new(found),
            });
        }
        let info = inspect_named(file, format, name)?;
        let digest = digests.sha256;
        let path = self.path_of(&digest);
        file.set_permissions(std::fs::Permissions::from_mode(0o444))
            .map_err(Error::io("protect", &path))?;
        Ok(StoredImage { digest, path, info })
    }

    /// Makes an image findable by its SHA-512, where that was computed.
    fn index(&self, image: &StoredImage, digests: &Digests) -> Result<(), Error> {
        match &digests.sha512 {
            Some(sha512) => self.link_sha512(sha512, &image.digest),
            None => Ok(()),
        }
    }

    fn link_sha512(&self, sha512: &[u8; 64], digest: &Sha256) -> Result<(), Error> {
        let link = self.sha512_link(sha512);
        let target = format!("../sha256/{}.img", digest.hex());
        match std::os::unix::fs::symlink(target, &link) {
            Ok(()) => files::sync_dir(files::parent(&link)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(Error::io("link", &link)(e)),
        }
    }

    /// The SHA-256 that an image has in the store, if it is there.
    fn resolve(&self, digest: &Digest) -> Result<Option<Sha256>, Error> {
        let sha256 = match digest {
            Digest::Sha256(d) => Sha256(*d),
            Digest::Sha512(d) => {
                let link = self.sha512_link(d);
                let target = match std::fs::read_link(&link) {
                    Ok(target) => target,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(Error::io("read", &link)(e)),
                };
                match target.to_str().and_then(image_digest) {
                    Some(digest) => digest,
                    None => return Ok(None),
                }
            }
        };
        let path = self.path_of(&sha256);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_file() => Ok(Some(sha256)),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("examine", &path)(e)),
        }
    }

    /// The image with `digest`, if the store has it.
    pub fn get(&self, digest: &Digest) -> Result<Option<StoredImage>, Error> {
        let Some(digest) = self.resolve(digest)? else {
            return Ok(None);
        };
        let path = self.path_of(&digest);
        let file = files::open_read(&path)?;
        let info = inspect_named(&file, None, &path)?;
        Ok(Some(StoredImage { digest, path, info }))
    }

    /// Opens the image's file, read-only.
    pub fn open_image(&self, digest: &Sha256) -> Result<File, Error> {
        match self.resolve(&(*digest).into())? {
            Some(digest) => files::open_read(&self.path_of(&digest)),
            None => Err(Error::NotFound {
                digest: (*digest).into(),
            }),
        }
    }

    /// The digests of all images, in order.
    pub fn list(&self) -> Result<Vec<Sha256>, Error> {
        let names = list_dir(&self.inner.root.join("sha256"))?;
        let mut digests: Vec<_> = names
            .iter()
            .filter_map(|p| image_digest(p.file_name()?.to_str()?))
            .collect();
        digests.sort_unstable();
        Ok(digests)
    }

    /// Hashes the image again. Fails with [`Error::Damaged`] if its content has changed.
    pub fn verify(
        &self,
        digest: &Sha256,
        mut progress: impl FnMut(Progress),
    ) -> Result<StoredImage, Error> {
        let path = self.path_of(digest);
        let file = self.open_image(digest)?;
        let len = file.metadata().map_err(Error::io("examine", &path))?.size();
        let mut hasher = Hasher::for_expected(None);
        hash_range(&mut hasher, &file, 0, len, |at| {
            progress(Progress::new(at, Some(len)))
        })
        .map_err(Error::io("read", &path))?;
        let found = hasher.finish().sha256;
        if found != *digest {
            return Err(Error::Damaged { path, found });
        }
        let info = inspect_named(&file, None, &path)?;
        Ok(StoredImage {
            digest: found,
            path,
            info,
        })
    }

    /// Removes the image; `false` if it was not there. Whether disks still build on it, only the
    /// caller knows.
    pub fn remove(&self, digest: &Sha256) -> Result<bool, Error> {
        let path = self.path_of(digest);
        let removed = files::remove(&path)?;
        for link in list_dir(&self.inner.root.join("sha512"))? {
            let target = std::fs::read_link(&link).ok();
            if target.and_then(|t| image_digest(t.to_str()?)) == Some(*digest) {
                files::remove(&link)?;
            }
        }
        if removed {
            files::sync_dir(files::parent(&path))?;
        }
        Ok(removed)
    }

    /// Finds what interruptions left behind: keeps downloads that can be continued, removes
    /// what is of no use, and reports files that are not the store's.
    pub fn sweep(&self) -> Result<SweepReport, Error> {
        let mut report = SweepReport::default();
        for path in list_dir(&self.inner.root.join("sha256"))? {
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if is_temp(name) {
                files::remove(&path)?;
                report.removed.push(path);
            } else if image_digest(name).is_none_or(|d| self.path_of(&d) != path) {
                report.unknown.push(path);
            }
        }
        for path in list_dir(&self.inner.root.join("sha512"))? {
            if !path.exists() && path.is_symlink() {
                files::remove(&path)?;
                report.removed.push(path);
            }
        }
        let now = SystemTime::now();
        for path in list_dir(&self.tmp())? {
            match partial::classify(&path, now, self.inner.options.keep_partial) {
                partial::Kind::Resumable => report.resumable.push(path),
                partial::Kind::Record => (),
                partial::Kind::Unknown => report.unknown.push(path),
                // A pull or import of this process may be at work on it.
                partial::Kind::Garbage if self.inner.flights.busy() => (),
                partial::Kind::Garbage => {
                    files::remove(&path)?;
                    report.removed.push(path);
                }
            }
        }
        for list in [
            &mut report.resumable,
            &mut report.removed,
            &mut report.unknown,
        ] {
            list.sort();
        }
        Ok(report)
    }
}

/// The digest in an image's file name or a link to it.
fn image_digest(name: &str) -> Option<Sha256> {
    let name = name.strip_prefix("../sha256/").unwrap_or(name);
    Sha256::from_hex(name.strip_suffix(".img")?).ok()
}

fn is_temp(name: &str) -> bool {
    name.starts_with(files::TEMP_PREFIX)
}

fn list_dir(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("list", dir))?;
    entries
        .map(|e| e.map(|e| e.path()).map_err(Error::io("list", dir)))
        .collect()
}

impl Error {
    /// A file from outside that could not even be opened as one.
    pub(crate) fn into_refusal(self) -> Error {
        match self {
            Error::Unusable {
                path,
                flaw: flaw @ Flaw::NotRegular,
            } => Error::Refused {
                image: path.display().to_string(),
                flaw,
            },
            other => other,
        }
    }
}

/// The record of an unfinished download, for the fuzz target: whatever a file says, a download
/// that takes it for true asks for each missing byte once and ends.
///
/// # Panics
/// When that is not so.
#[doc(hidden)]
pub fn fuzz_partial_record(json: &[u8]) {
    let Some(record) = partial::Record::parse(json) else {
        return;
    };
    let mut plan = record.plan;
    assert!(plan.water_mark() <= plan.bytes_done() && plan.bytes_done() <= plan.reach());
    assert!(plan.reach() <= plan.total());
    while let Some(span) = plan.next(&[]) {
        assert!(span.start < span.end && span.end <= plan.total());
        let done = plan.bytes_done();
        plan.advance(span.index, span.end - span.start);
        assert_eq!(plan.bytes_done() - done, span.end - span.start);
    }
    assert!(plan.is_complete() && plan.water_mark() == plan.total());
}
