//! The embedded database: what the agent intends and what it has done.
//!
//! SQLite in WAL mode with `synchronous = FULL`: a transaction that returned is
//! on disk, also after a power cut. One thread owns the connection, so nothing
//! blocks the runtime and writes are serial; readers wait in the same queue
//! (queries take microseconds).

mod events;
mod images;
mod instances;
mod migrations;
mod row;
mod scope;
mod totals;
mod volumes;

use std::{
    fs::{OpenOptions, Permissions, set_permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::mpsc,
};

use crn_api_types::{NoRoom, Subject};
use rusqlite::Connection;
use time::OffsetDateTime;
use tokio::sync::oneshot;

pub use crn_api_types::VolumeState;
pub use events::About;
pub use images::ImageRow;
pub use instances::{GuestHealth, Hardware, InstanceRow, NewInstance, ProcessRow};
pub use scope::Scope;
pub use volumes::{NewVolume, VolumeRow};

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite said no.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Its file cannot be made, or not closed to others.
    #[error("database: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The schema could not be brought up to date.
    #[error("database schema: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// A stored value is not what this version writes.
    #[error("database: {what} of {key} cannot be read: {message}")]
    Stored {
        /// Which column.
        what: &'static str,
        /// Which row.
        key: String,
        /// Why.
        message: String,
    },
    /// The name is taken.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// No such thing.
    #[error("there is no {what} {key}")]
    NotFound {
        /// Of what kind.
        what: Subject,
        /// As it was named.
        key: String,
    },
    /// A volume is attached elsewhere, or in use.
    #[error("volume {volume} is attached to {instance}")]
    VolumeInUse {
        /// The volume's name.
        volume: String,
        /// The instance's name.
        instance: String,
    },
    /// A rule over several rows.
    #[error("{0}")]
    Conflict(String),
    /// The kernel gives no random numbers.
    #[error("no random numbers: {0}")]
    Entropy(getrandom::Error),
    /// More than the node has to give.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// No slot or no network is left.
    #[error("{0}")]
    Capacity(String),
    /// The database's thread is gone.
    #[error("the database is closed")]
    Closed,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A cheap handle to the database.
#[derive(Clone)]
pub struct Db {
    jobs: mpsc::Sender<Job>,
}

impl Db {
    /// Opens or creates the database, brings its schema up to date and starts
    /// its thread. The boolean says whether it is new.
    ///
    /// # Errors
    /// When the file cannot be opened, is damaged, or is from a newer agent.
    pub fn open(path: &Path) -> Result<(Self, bool), DbError> {
        let fresh = !path.exists();
        make_private(path).map_err(|source| DbError::File {
            path: path.to_owned(),
            source,
        })?;
        let mut connection = Connection::open(path)?;
        migrations::prepare(&mut connection)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("database".into())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    job(&mut connection);
                }
            })
            .map_err(|_| DbError::Closed)?;
        Ok((Self { jobs }, fresh))
    }

    /// Brings everything into the database's one file, so that a copy of it is whole.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn settle(&self) -> Result<(), DbError> {
        self.call(|c| checkpoint(c)).await
    }

    /// Runs `work` on the database's thread.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, DbError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = reply.send(work(connection));
        });
        self.jobs.send(job).map_err(|_| DbError::Closed)?;
        result.await.map_err(|_| DbError::Closed)?
    }
}

/// Moves what the write-ahead log has into the database's file, and empties the log:
/// what was deleted is in neither then (`secure_delete` overwrites it).
fn checkpoint(c: &Connection) -> Result<(), DbError> {
    c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Makes the file before SQLite would, by the umask: users' secrets are in it. SQLite
/// gives its other files the mode of this one; those of an earlier run are closed too.
fn make_private(path: &Path) -> io::Result<()> {
    let private = || Permissions::from_mode(0o600);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(private())?;
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut other = path.as_os_str().to_owned();
        other.push(suffix);
        match set_permissions(&other, private()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// A value as JSON, for the column `what` of the row `key`.
fn json<T: serde::Serialize>(what: &'static str, key: &str, value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|e| DbError::Stored {
        what,
        key: key.to_owned(),
        message: e.to_string(),
    })
}

/// A time as the database and the API write it (RFC 3339).
#[must_use]
pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    // Only years beyond 9999 cannot be written.
    at.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// Now, in UTC.
#[must_use]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

#[cfg(test)]
mod tests;
