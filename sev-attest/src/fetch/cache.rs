//! Documents kept on disk. Only what was verified is put in, and it is verified again when it is
//! taken out: a file that something else damaged or replaced counts as absent.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::error::FetchError;
use super::http::MAX_ANSWER;
use super::kds::Document;
use super::trust::Trust;

/// A directory of verified documents.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache in `directory`, which is made when something is kept. Documents of a root that is
    /// not AMD's have a place of their own in it.
    #[must_use]
    pub fn new(directory: &Path, trust: &Trust) -> Self {
        let root = match trust {
            Trust::Amd => directory.to_owned(),
            Trust::Foreign(root) => {
                let name = hex::encode(&Sha256::digest(root.ark.der())[..16]);
                directory.join("foreign").join(name)
            }
        };
        Self { root }
    }

    /// The user's cache directory: `$XDG_CACHE_HOME/sev-attest`, or `~/.cache/sev-attest`.
    ///
    /// # Errors
    /// When neither variable is set.
    pub fn default_directory() -> Result<PathBuf, FetchError> {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|cache| cache.join("sev-attest"))
            .ok_or(FetchError::NoCacheDirectory)
    }

    /// Where a document is or would be kept.
    #[must_use]
    pub fn path(&self, document: &Document) -> PathBuf {
        self.root.join(document.file_name())
    }

    /// A kept document and its age; `None` where there is none. The caller verifies it.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn get(&self, document: &Document) -> Result<Option<(Vec<u8>, Duration)>, FetchError> {
        let path = self.path(document);
        let failed = |source| FetchError::File {
            path: path.clone(),
            source,
        };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        let modified = file.metadata().and_then(|meta| meta.modified());
        file.take(MAX_ANSWER)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let age = SystemTime::now()
            .duration_since(modified.map_err(failed)?)
            .unwrap_or(Duration::ZERO);
        Ok(Some((bytes, age)))
    }

    /// Keeps a document that the caller has verified.
    ///
    /// # Errors
    /// When it can't be written; nothing is left half-written then.
    pub fn put(&self, document: &Document, bytes: &[u8]) -> Result<PathBuf, FetchError> {
        let path = self.path(document);
        write_atomically(&path, bytes)?;
        Ok(path)
    }
}

/// Writes a file so that it is there whole or not at all, whoever else writes it at the same time
/// and whenever the process or the machine stops. Missing directories are made.
///
/// # Errors
/// When the system refuses; the old file stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let failed = |source| FetchError::File {
        path: path.to_owned(),
        source,
    };
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed)?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}.{number}", std::process::id()));
    let write = || {
        // a leftover of a killed process that had this number
        let _ = fs::remove_file(&temporary);
        let mut file = fs::File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

/// Writes a file that the user named: a device, a pipe or what a symbolic link points at is written
/// to and stays what it is; anything else is written as by [`write_atomically`].
///
/// # Errors
/// When the system refuses.
pub fn write_named(path: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
            let mut options = fs::File::options();
            let file = options.write(true).create(true).truncate(true).open(path);
            file.and_then(|mut file| file.write_all(bytes))
                .map_err(|source| FetchError::File {
                    path: path.to_owned(),
                    source,
                })
        }
        _ => write_atomically(path, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::Product;
    use crate::report::SigningKey;

    #[test]
    fn what_is_put_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(&directory.path().join("not/yet"), &Trust::Amd);
        let document = Document::Crl(Product::Milan, SigningKey::Vcek);
        assert!(cache.get(&document).unwrap().is_none());
        cache.put(&document, b"one").unwrap();
        let path = cache.put(&document, b"two").unwrap();
        let (bytes, age) = cache.get(&document).unwrap().unwrap();
        assert_eq!(bytes, b"two");
        assert!(age < Duration::from_secs(60));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "a temporary file was left: {names:?}");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        // a directory can't be replaced by a file
        fs::create_dir(&path).unwrap();
        assert!(write_atomically(&path, b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        // nor can one be made below a file
        fs::write(directory.path().join("file"), b"old").unwrap();
        assert!(write_atomically(&directory.path().join("file/x"), b"new").is_err());
        assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"old");
    }

    #[test]
    fn what_is_no_regular_file_stays_what_it_is() {
        use std::os::unix::fs::{FileTypeExt as _, symlink};
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), b"a longer old text").unwrap();
        symlink("file", path("link")).unwrap();
        symlink("made", path("dangling")).unwrap();
        symlink("/dev/null", path("null")).unwrap();
        for name in ["file", "link", "dangling", "null", "new"] {
            write_named(&path(name), b"text").unwrap();
            let is_link = fs::symlink_metadata(path(name)).unwrap().is_symlink();
            assert_eq!(is_link, !["file", "new"].contains(&name), "{name}");
        }
        for name in ["file", "made", "new"] {
            assert_eq!(fs::read(path(name)).unwrap(), b"text", "{name}");
        }
        let pipe = path("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write_named(&pipe, b"text").unwrap();
        assert_eq!(reader.join().unwrap(), b"text");
        let kind = fs::symlink_metadata(&pipe).unwrap().file_type();
        assert!(kind.is_fifo());
    }

    #[test]
    fn concurrent_writers_leave_one_whole_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::thread::scope(|scope| {
            for letter in b'a'..b'i' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_atomically(path, &[letter; 5000]).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 5000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
