//! Files that appear whole or not at all, and files opened without surprises.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::error::{Error, Flaw};

/// Start of the names of files that are not complete yet, where the file system cannot do
/// without names.
pub(crate) const TEMP_PREFIX: &str = ".new-";

/// Opens a regular file for reading: follows no symbolic link, blocks on no FIFO.
pub(crate) fn open_read(path: &Path) -> Result<File, Error> {
    open(path, OFlags::RDONLY)
}

/// Opens a regular file for reading and writing, likewise.
pub(crate) fn open_write(path: &Path) -> Result<File, Error> {
    open(path, OFlags::RDWR)
}

fn open(path: &Path, flags: OFlags) -> Result<File, Error> {
    let not_regular = || Error::Unusable {
        path: path.to_owned(),
        flaw: Flaw::NotRegular,
    };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR | rustix::io::Errno::NXIO) => {
            return Err(not_regular());
        }
        Err(errno) => return Err(Error::sys("open", path)(errno)),
    };
    let meta = file.metadata().map_err(Error::io("examine", path))?;
    if !meta.is_file() {
        return Err(not_regular());
    }
    Ok(file)
}

/// The directory that `path` is an entry of.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Makes renames, links and removals in `dir` survive a power failure.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    let dir_file = File::open(dir).map_err(Error::io("open", dir))?;
    dir_file.sync_all().map_err(Error::io("sync", dir))
}

/// A file without its final name yet. Dropped before [`NewFile::publish`], it leaves nothing.
pub(crate) struct NewFile {
    file: File,
    /// Its temporary name, where `O_TMPFILE` is not supported.
    temp: Option<PathBuf>,
    target: PathBuf,
}

/// What [`NewFile::publish`] found under the final name.
pub(crate) enum Published {
    /// Nothing; the file is there now.
    New,
    /// A file that was there before; it was not touched.
    Existed,
}

impl NewFile {
    /// A new empty file, for reading and writing by the owner, that will be `target`.
    pub(crate) fn create(target: &Path) -> Result<Self, Error> {
        let dir = parent(target);
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags | OFlags::TMPFILE, mode) {
            Ok(fd) => {
                return Ok(NewFile {
                    file: fd.into(),
                    temp: None,
                    target: target.to_owned(),
                });
            }
            // What file systems without O_TMPFILE answer, or kernels that do not know it.
            Err(
                rustix::io::Errno::OPNOTSUPP
                | rustix::io::Errno::ISDIR
                | rustix::io::Errno::INVAL
                | rustix::io::Errno::NOENT,
            ) => (),
            Err(errno) => return Err(Error::sys("create a file for", target)(errno)),
        }
        Self::create_named(target)
    }

    /// For file systems without `O_TMPFILE`: a temporary name, which a crash leaves behind.
    fn create_named(target: &Path) -> Result<Self, Error> {
        let temp = parent(target).join(temp_name(target));
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        let fd = rustix::fs::open(&temp, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::sys("create", &temp))?;
        Ok(NewFile {
            file: fd.into(),
            temp: Some(temp),
            target: target.to_owned(),
        })
    }

    /// The file, to be written.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the file and gives it its name, unless that is taken; then syncs the directory.
    pub(crate) fn publish(self) -> Result<Published, Error> {
        let target = self.target.clone();
        self.publish_as(&target)
    }

    /// [`NewFile::publish`] under another name of the same file system.
    pub(crate) fn publish_as(mut self, target: &Path) -> Result<Published, Error> {
        self.file.sync_all().map_err(Error::io("sync", target))?;
        let linked = match &self.temp {
            // link(2) through /proc needs no privilege, unlike AT_EMPTY_PATH.
            None => {
                let fd = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, fd, CWD, target, AtFlags::SYMLINK_FOLLOW)
            }
            Some(temp) => rustix::fs::linkat(CWD, temp, CWD, target, AtFlags::empty()),
        };
        self.remove_temp();
        match linked {
            Ok(()) => sync_dir(parent(target)).map(|()| Published::New),
            Err(rustix::io::Errno::EXIST) => Ok(Published::Existed),
            Err(errno) => Err(Error::sys("create", target)(errno)),
        }
    }

    /// Syncs the file and puts it in the place of `target`, whatever is there. Who has the old file
    /// open keeps it.
    pub(crate) fn publish_over(mut self, target: &Path) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("sync", target))?;
        let temp = match self.temp.take() {
            Some(temp) => temp,
            None => {
                let temp = parent(target).join(temp_name(target));
                let fd = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, fd, CWD, &temp, AtFlags::SYMLINK_FOLLOW)
                    .map_err(Error::sys("create", &temp))?;
                temp
            }
        };
        std::fs::rename(&temp, target).map_err(|error| {
            let _ = std::fs::remove_file(&temp);
            Error::io("replace", target)(error)
        })?;
        sync_dir(parent(target))
    }

    fn remove_temp(&mut self) {
        if let Some(temp) = self.temp.take() {
            let _ = std::fs::remove_file(temp);
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.remove_temp();
    }
}

/// A name next to `target` that nothing else uses.
fn temp_name(target: &Path) -> OsString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(TEMP_PREFIX);
    name.push(format!("{}-{n}-", std::process::id()));
    name.push(target.file_name().unwrap_or_default());
    name
}

/// Replaces a small file of our own as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temp = parent(path).join(temp_name(path));
    let write = || -> io::Result<()> {
        std::fs::write(&temp, bytes)?;
        File::open(&temp)?.sync_all()?;
        std::fs::rename(&temp, path)
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&temp);
        Error::io("write", path)(e)
    })
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("remove", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    type Create = fn(&Path) -> Result<NewFile, Error>;
    const WAYS: [Create; 2] = [NewFile::create, NewFile::create_named];

    #[test]
    fn a_new_file_appears_with_its_content_or_not_at_all() {
        for create in WAYS {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("file");
            drop(create(&target).unwrap());
            assert!(names(dir.path()).is_empty());

            let new = create(&target).unwrap();
            new.file().write_all(b"one").unwrap();
            assert!(!target.exists());
            assert!(matches!(new.publish().unwrap(), Published::New));
            assert_eq!(std::fs::read(&target).unwrap(), b"one");

            // Who was there first stays.
            let new = create(&target).unwrap();
            new.file().write_all(b"two").unwrap();
            assert!(matches!(new.publish().unwrap(), Published::Existed));
            assert_eq!(std::fs::read(&target).unwrap(), b"one");
            assert_eq!(names(dir.path()), ["file"]);

            // A dangling link counts as taken, too.
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            let new = create(&link).unwrap();
            assert!(matches!(new.publish().unwrap(), Published::Existed));
            assert_eq!(names(dir.path()), ["file", "link"]);

            assert!(create(&dir.path().join("none/file")).is_err());
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        open_write(&file).unwrap();
        for path in [dir.path(), &link, Path::new("/dev/null")] {
            for open in [open_read, open_write] {
                let error = open(path).unwrap_err();
                assert_eq!(error.flaw(), Some(&Flaw::NotRegular), "{}", path.display());
            }
        }
        assert!(matches!(
            open_read(&dir.path().join("none")),
            Err(Error::Io { .. })
        ));
    }

    #[test]
    fn replacing_leaves_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for content in ["one", "two"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(names(dir.path()), ["file"]);
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }
}
