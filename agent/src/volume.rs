//! Volumes on disk: the only owner of `<state>/volumes`. A file and its record
//! change together, the record first.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use disk::{ByteSize, Content, Format, OpenFile};

use crate::{
    copying::Copying,
    db::{Db, DbError, VolumeRow, VolumeState},
    fs::{blocking, make_private_dir},
    locks::Locks,
    qemu::file_limit,
};

/// Why a volume's file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The disk.
    #[error("volume {name}: {source}")]
    Disk {
        /// The volume.
        name: String,
        /// Why.
        source: disk::Error,
    },
    /// Somebody else has it.
    #[error(
        "volume {name} is open in another process, which `fuser -v` names by its file: no instance \
         gets it before it is closed"
    )]
    Open {
        /// The volume.
        name: String,
    },
    /// The file itself.
    #[error("volume {name}: {source}")]
    Io {
        /// The volume.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// What went wrong with a file, before it is known whose it was.
enum FileError {
    Open,
    Disk(disk::Error),
    Io(io::Error),
}

impl From<disk::Error> for FileError {
    fn from(e: disk::Error) -> Self {
        Self::Disk(e)
    }
}

impl From<io::Error> for FileError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// The node's volumes.
#[derive(Clone)]
pub struct Volumes {
    dir: PathBuf,
    db: Db,
    /// Work on a file goes on when its caller is gone: the next one waits for it.
    busy: Arc<Locks<String>>,
}

impl Volumes {
    /// In a directory, with the records of the database.
    #[must_use]
    pub fn new(dir: PathBuf, db: Db) -> Self {
        Self {
            dir,
            db,
            busy: Arc::default(),
        }
    }

    /// A volume's file.
    #[must_use]
    pub fn path(&self, id: &str) -> PathBuf {
        self.dir.join(file_name(id))
    }

    /// Makes the file of a recorded volume, and records that it is there. One that
    /// was made before, and perhaps grown on record since, gets its present size.
    ///
    /// # Errors
    /// [`VolumeError`]; the record stays `creating` then.
    pub async fn make(&self, volume: &VolumeRow) -> Result<(), VolumeError> {
        let (dir, size) = (self.dir.clone(), size(volume));
        self.with_file(volume, move |path| {
            make_private_dir(&dir)?;
            if path.exists() {
                require_closed(path)?;
                disk::grow(path, Format::Qcow2, size)?;
            } else {
                disk::create_volume(path, size, Format::Qcow2)?;
            }
            Ok(())
        })
        .await?;
        let ready = VolumeState::Ready;
        Ok(self.db.set_volume_state(&volume.id, ready).await?)
    }

    /// Makes the file of a volume that is recorded as `importing` from one of the host, and
    /// records that it is there.
    ///
    /// # Errors
    /// [`VolumeError`]; the record stays `importing` then.
    pub async fn make_from(
        &self,
        volume: &VolumeRow,
        source: PathBuf,
        format: Option<Format>,
        copying: Copying,
    ) -> Result<(), VolumeError> {
        let (dir, size) = (self.dir.clone(), size(volume));
        self.with_file(volume, move |path| {
            make_private_dir(&dir)?;
            let Copying { stop, tell } = copying;
            disk::make_from(&source, format, Some(size), path, &stop, tell)?;
            Ok(())
        })
        .await?;
        let ready = VolumeState::Ready;
        Ok(self.db.set_volume_state(&volume.id, ready).await?)
    }

    /// Copies a volume that no process has open into a new file of the host. Who wants to use
    /// the volume meanwhile waits.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn export(
        &self,
        volume: &VolumeRow,
        target: PathBuf,
        copying: Copying,
    ) -> Result<(), VolumeError> {
        self.with_file(volume, move |path| {
            require_closed(path)?;
            let content = Content {
                path: path.to_owned(),
                format: Format::Qcow2,
                base: None,
            };
            let Copying { stop, tell } = copying;
            disk::export(&content, &target, &stop, tell)?;
            Ok(())
        })
        .await
    }

    /// Gives the file of a volume that no QEMU has open its recorded size. One that
    /// is still to be made has none, and is made with that size.
    ///
    /// # Errors
    /// [`VolumeError`]; a file that should be there and is not, too.
    pub async fn grow(&self, volume: &VolumeRow) -> Result<(), VolumeError> {
        let (size, unmade) = (size(volume), volume.state == VolumeState::Creating);
        self.with_file(volume, move |path| {
            if unmade && !path.exists() {
                return Ok(());
            }
            require_closed(path)?;
            file_limit::check(path, size)?;
            Ok(disk::grow(path, Format::Qcow2, size)?)
        })
        .await
    }

    /// Opens the file of a volume to hand it to a QEMU, with its recorded size.
    ///
    /// # Errors
    /// [`VolumeError`]; a file that another process has open, too.
    pub async fn open(&self, volume: &VolumeRow) -> Result<File, VolumeError> {
        let size = size(volume);
        self.with_file(volume, move |path| {
            require_closed(path)?;
            file_limit::check(path, size)?;
            disk::grow(path, Format::Qcow2, size)?;
            Ok(OpenOptions::new().read(true).write(true).open(path)?)
        })
        .await
    }

    /// Whether any process has the file of a volume open. One that was never made is
    /// open nowhere.
    ///
    /// # Errors
    /// [`VolumeError`], when it cannot be asked.
    pub async fn is_open(&self, volume: &VolumeRow) -> Result<OpenFile, VolumeError> {
        self.with_file(volume, is_open).await
    }

    /// Removes the file of a volume that is recorded as `deleting`, then the record.
    /// A file that is gone already is fine.
    ///
    /// # Errors
    /// [`VolumeError`]; the record stays then.
    pub async fn erase(&self, volume: &VolumeRow) -> Result<(), VolumeError> {
        self.with_file(volume, |path| match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        })
        .await?;
        Ok(self.db.remove_volume(&volume.id).await?)
    }

    async fn with_file<T: Send + 'static>(
        &self,
        volume: &VolumeRow,
        work: impl FnOnce(&Path) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let path = self.path(&volume.id);
        let busy = self.busy.lock(&volume.id).await;
        let work = move || {
            let _busy = busy;
            work(&path)
        };
        blocking(work).await.map_err(|e| {
            let name = volume.name.to_string();
            match e {
                FileError::Open => VolumeError::Open { name },
                FileError::Disk(source) => VolumeError::Disk { name, source },
                FileError::Io(source) => VolumeError::Io { name, source },
            }
        })
    }
}

/// A process that the agent starts has the agent's files until it is executed: so often
/// is asked, with so long a pause.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until the file is open nowhere, or a second is over.
fn is_open(path: &Path) -> Result<OpenFile, FileError> {
    let mut answer = OpenFile::No;
    for _ in 0..TRIES {
        answer = match disk::is_open(path) {
            Err(disk::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(OpenFile::No);
            }
            other => other?,
        };
        if answer != OpenFile::Yes {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(answer)
}

/// Before a file is looked at for a QEMU: whoever else has it could change it after.
fn require_closed(path: &Path) -> Result<(), FileError> {
    match is_open(path)? {
        OpenFile::No | OpenFile::Unknown => Ok(()),
        OpenFile::Yes => Err(FileError::Open),
    }
}

/// The size that a volume is to have.
#[must_use]
pub fn size(volume: &VolumeRow) -> ByteSize {
    ByteSize::from_bytes(volume.mib.saturating_mul(1 << 20))
}

/// The name of a volume's file.
#[must_use]
pub fn file_name(id: &str) -> String {
    format!("{id}.qcow2")
}

/// The volume whose file has this name, if it looks like one of ours.
#[must_use]
pub fn id_of(file_name: &str) -> Option<&str> {
    let id = file_name.strip_suffix(".qcow2")?;
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    (id.len() == 16 && id.bytes().all(is_hex)).then_some(id)
}

#[cfg(test)]
mod tests {
    use crn_api_types::Owner;

    use super::*;
    use crate::capacity::Totals;

    const ROOM: Totals = Totals {
        instances: 9,
        vcpus: 9,
        memory_mib: 9999,
        disk_mib: 9999,
    };

    async fn volumes(dir: &Path) -> (Volumes, VolumeRow) {
        let (db, _) = Db::open(&dir.join("agent.db")).unwrap();
        let (owner, name) = (Owner::Operator, "data".parse().unwrap());
        let row = db
            .insert_volume(&owner, crate::db::NewVolume::empty(&name, 16), ROOM)
            .await
            .unwrap();
        (Volumes::new(dir.join("volumes"), db), row)
    }

    fn found(volumes: &Volumes, row: &VolumeRow) -> u64 {
        let info = disk::inspect(
            &File::open(volumes.path(&row.id)).unwrap(),
            Some(Format::Qcow2),
        )
        .unwrap();
        info.virtual_size.bytes() >> 20
    }

    #[tokio::test]
    async fn a_volume_that_was_made_and_grown_on_record_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (volumes, row) = volumes(dir.path()).await;
        // Nothing to grow yet: that is no error.
        volumes.grow(&row).await.unwrap();
        volumes.make(&row).await.unwrap();
        assert_eq!(found(&volumes, &row), 16);
        // The agent died before `ready` was recorded, and the volume was grown since.
        let state = VolumeState::Creating;
        volumes.db.set_volume_state(&row.id, state).await.unwrap();
        volumes.db.grow_volume(&row.id, 32, ROOM).await.unwrap();
        let row = volumes.db.volume(&row.id).await.unwrap();
        assert_eq!((row.state, row.mib), (VolumeState::Creating, 32));
        volumes.make(&row).await.unwrap();
        assert_eq!(found(&volumes, &row), 32);
        let row = volumes.db.volume(&row.id).await.unwrap();
        assert_eq!(row.state, VolumeState::Ready);
        // A file that should be there and is not is no volume to grow.
        std::fs::remove_file(volumes.path(&row.id)).unwrap();
        let e = volumes.grow(&row).await.unwrap_err().to_string();
        assert!(e.starts_with("volume data: "), "{e}");
        volumes.erase(&row).await.unwrap();
        assert!(volumes.db.volume(&row.id).await.is_err());
    }

    #[tokio::test]
    async fn a_volume_that_somebody_has_open_is_given_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (volumes, row) = volumes(dir.path()).await;
        volumes.make(&row).await.unwrap();
        assert_eq!(volumes.is_open(&row).await.unwrap(), OpenFile::No);
        let keeper = File::open(volumes.path(&row.id)).unwrap();
        assert_eq!(volumes.is_open(&row).await.unwrap(), OpenFile::Yes);
        for refused in [
            volumes.open(&row).await.map(drop),
            volumes.grow(&row).await,
            volumes.make(&row).await,
        ] {
            let e = refused.unwrap_err().to_string();
            assert!(e.contains("volume data is open in another process"), "{e}");
        }
        drop(keeper);
        // One that was made longer than its record allows is not handed out either.
        let file = volumes.open(&row).await.unwrap();
        file.set_len(1 << 40).unwrap();
        drop(file);
        let e = volumes.open(&row).await.unwrap_err().to_string();
        assert!(e.contains("it is not used"), "{e}");
    }

    #[test]
    fn names_of_files_are_read_back() {
        let id = "00112233445566aa";
        assert_eq!(id_of(&file_name(id)), Some(id));
        for other in [
            "",
            "x.qcow2",
            "00112233445566AA.qcow2",
            "00112233445566aa.raw",
        ] {
            assert_eq!(id_of(other), None, "{other}");
        }
    }
}
