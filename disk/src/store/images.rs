//! The store itself: opening it, and the images in it.

use std::{
    fs::File,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    clients::Clients,
    flight,
    image::{Progress, StoredImage},
    options::StoreOptions,
};
use crate::{
    digest::{Digest, Digests, Hasher, Sha256, hash_range},
    error::Error,
    files::{self, NewFile},
    format::Format,
    inspect::inspect_named,
};

/// The store. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct ImageStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) root: PathBuf,
    pub(super) options: StoreOptions,
    pub(super) flights: flight::Flights,
    pub(super) clients: Clients,
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
    ///
    /// # Errors
    /// As [`ImageStore::open_with`].
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_with(root, StoreOptions::default())
    }

    /// Opens the store in `root`, creating what is missing. One process at a time can.
    ///
    /// # Errors
    /// [`Error::StoreInUse`] while another process has it open; those of the file system.
    pub fn open_with(root: &Path, options: StoreOptions) -> Result<Self, Error> {
        for dir in [
            root,
            &root.join("sha256"),
            &root.join("sha512"),
            &root.join("unpacked"),
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
            clients: Clients::default(),
            _lock: lock,
        };
        Ok(ImageStore {
            inner: Arc::new(inner),
        })
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The options it was opened with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// Where the image with `digest` is, or would be.
    #[must_use]
    pub fn path_of(&self, digest: &Sha256) -> PathBuf {
        self.inner
            .root
            .join("sha256")
            .join(format!("{}.img", digest.hex()))
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.inner.root.join("tmp")
    }

    fn sha512_link(&self, digest: &[u8; 64]) -> PathBuf {
        self.inner.root.join("sha512").join(hex::encode(digest))
    }

    fn unpacked_link(&self, packed: &Digest) -> PathBuf {
        self.inner.root.join("unpacked").join(packed.hex())
    }

    /// Fails unless the content is the one that was asked for.
    pub(super) fn compare(
        digests: &Digests,
        expected: Option<&Digest>,
        name: &Path,
    ) -> Result<(), Error> {
        match expected.and_then(|e| Some((e, digests.mismatch(e)?))) {
            Some((expected, found)) => Err(Error::DigestMismatch {
                what: name.display().to_string(),
                expected: Box::new(*expected),
                found: Box::new(found),
            }),
            None => Ok(()),
        }
    }

    /// The only way into `sha256/`: inspects, and makes the file read-only. The caller has compared
    /// digests, and then gives it its name.
    pub(super) fn approve(
        &self,
        file: &File,
        digests: &Digests,
        format: Option<Format>,
        name: &Path,
    ) -> Result<StoredImage, Error> {
        let info = inspect_named(file, format, name)?;
        let digest = digests.sha256;
        let path = self.path_of(&digest);
        // Not to be written, and nobody else's to read: it may be a user's own.
        file.set_permissions(std::fs::Permissions::from_mode(0o400))
            .map_err(Error::io("protect", &path))?;
        Ok(StoredImage { digest, path, info })
    }

    /// Gives an approved file its name, unless the same content has it: a name is no proof of one.
    pub(super) fn place(&self, file: NewFile, image: &StoredImage) -> Result<(), Error> {
        if self.is_sound(&image.digest)? {
            return Ok(());
        }
        file.publish_over(&image.path)
    }

    /// Makes an image findable by its SHA-512, where that was computed.
    pub(super) fn index(&self, image: &StoredImage, digests: &Digests) -> Result<(), Error> {
        match &digests.sha512 {
            Some(sha512) => self.link_sha512(sha512, &image.digest),
            None => Ok(()),
        }
    }

    fn link_sha512(&self, sha512: &[u8; 64], digest: &Sha256) -> Result<(), Error> {
        link(&self.sha512_link(sha512), digest)
    }

    /// Makes an image findable by the digest of the compressed file that it was in.
    pub(super) fn link_unpacked(&self, packed: &Digest, digest: &Sha256) -> Result<(), Error> {
        link(&self.unpacked_link(packed), digest)
    }

    /// The SHA-256 that an image has in the store, if it is there.
    pub(super) fn resolve(&self, digest: &Digest) -> Result<Option<Sha256>, Error> {
        let named = match digest {
            Digest::Sha256(d) => Some(Sha256(*d)),
            Digest::Sha512(d) => linked(&self.sha512_link(d))?,
        };
        if let Some(found) = named
            && self.has(&found)?
        {
            return Ok(Some(found));
        }
        match linked(&self.unpacked_link(digest))? {
            Some(found) if self.has(&found)? => Ok(Some(found)),
            _ => Ok(None),
        }
    }

    fn has(&self, digest: &Sha256) -> Result<bool, Error> {
        let path = self.path_of(digest);
        match path.symlink_metadata() {
            Ok(meta) => Ok(meta.is_file()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("examine", &path)(e)),
        }
    }

    /// The image with `digest`, if the store has it.
    ///
    /// # Errors
    /// [`Error::Refused`] where the file is no image any more; those of the file system.
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
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of the file system.
    pub fn open_image(&self, digest: &Sha256) -> Result<File, Error> {
        if !self.has(digest)? {
            return Err(Error::NotFound {
                digest: (*digest).into(),
            });
        }
        files::open_read(&self.path_of(digest))
    }

    /// The digests of all images, in order.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> Result<Vec<Sha256>, Error> {
        let names = list_dir(&self.inner.root.join("sha256"))?;
        let mut digests: Vec<_> = names
            .iter()
            .filter_map(|p| image_digest(p.file_name()?.to_str()?))
            .collect();
        digests.sort_unstable();
        Ok(digests)
    }

    /// Hashes the image again.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::NotFound`]; those of the file system.
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

    /// Whether the image is there with the content that it is named for, and still an image.
    pub(super) fn is_sound(&self, digest: &Sha256) -> Result<bool, Error> {
        match self.verify(digest, |_| ()) {
            Ok(_) => Ok(true),
            Err(
                Error::NotFound { .. }
                | Error::Damaged { .. }
                | Error::Refused { .. }
                | Error::Unusable { .. },
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the image; `false` if it was not there. Whether disks still build on it, only the
    /// caller knows.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, digest: &Sha256) -> Result<bool, Error> {
        let path = self.path_of(digest);
        let removed = files::remove(&path)?;
        for link in self.links()? {
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

    /// All links to images, dangling ones too.
    pub(super) fn links(&self) -> Result<Vec<PathBuf>, Error> {
        let mut links = list_dir(&self.inner.root.join("sha512"))?;
        links.extend(list_dir(&self.inner.root.join("unpacked"))?);
        Ok(links)
    }
}

/// The link to an image, which may be there already.
fn link(link: &Path, digest: &Sha256) -> Result<(), Error> {
    let target = format!("../sha256/{}.img", digest.hex());
    match std::os::unix::fs::symlink(target, link) {
        Ok(()) => files::sync_dir(files::parent(link)),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::io("link", link)(e)),
    }
}

/// The image that a link names.
fn linked(link: &Path) -> Result<Option<Sha256>, Error> {
    match std::fs::read_link(link) {
        Ok(target) => Ok(target.to_str().and_then(image_digest)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", link)(e)),
    }
}

/// The digest in an image's file name or a link to it.
pub(super) fn image_digest(name: &str) -> Option<Sha256> {
    let name = name.strip_prefix("../sha256/").unwrap_or(name);
    Sha256::from_hex(name.strip_suffix(".img")?).ok()
}

pub(super) fn list_dir(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("list", dir))?;
    entries
        .map(|e| e.map(|e| e.path()).map_err(Error::io("list", dir)))
        .collect()
}
