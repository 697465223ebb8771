//! Room on the state directory's file system for what makes room, or closes a door,
//! when there is none left: without it the database could not record a deletion, a
//! forced stop or a closed port.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    time::Duration,
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tracing::{debug, info, warn};

/// What is kept, bytes.
const SIZE: u64 = 32 << 20;
/// A file system with less free than this is full.
const FULL: u64 = 4 << 20;
/// So much must be free besides when the reserve is laid in again.
const AMPLE: u64 = 4 * SIZE;
/// So often that is tried.
const PAUSE: Duration = Duration::from_secs(60);

/// A file that takes up room until that is needed.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// A file at this path, which is the agent's.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Lays it in, where there is room for it. Blocking.
    ///
    /// # Errors
    /// Those of the file system; one that cannot set room aside, too.
    pub fn lay_in(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|m| m.len() == SIZE) || self.free()? < AMPLE {
            return Ok(());
        }
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        if let Err(e) = fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
            fs::remove_file(&self.path)?;
            return Err(e.into());
        }
        Ok(())
    }

    /// Gives it up if the file system is full. Blocking.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn give_up_if_full(&self) -> io::Result<()> {
        if self.free()? >= FULL {
            return Ok(());
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                warn!("the disk is full: its reserve is used for what was just asked for");
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Lays it in again whenever there is room.
    pub async fn keep(self) {
        let mut said = None;
        loop {
            let reserve = self.clone();
            match tokio::task::spawn_blocking(move || reserve.lay_in()).await {
                Ok(Ok(())) => said = None,
                Ok(Err(e)) => {
                    let e = e.to_string();
                    if said.as_ref() != Some(&e) {
                        info!("no room is kept for deletions on a full disk: {e}");
                        said = Some(e);
                    }
                }
                Err(e) => debug!("{e}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Bytes that this process, root's, may still use.
    fn free(&self) -> io::Result<u64> {
        let dir = self.path.parent().unwrap_or(&self.path);
        let stat = statvfs(dir)?;
        Ok(stat.f_bfree.saturating_mul(stat.f_frsize))
    }
}
