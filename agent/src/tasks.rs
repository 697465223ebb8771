//! The instances' tasks as the rest of the agent sees them: what can be asked of
//! one, what it tells, and which there are. The tasks themselves are in
//! [`crate::instance`].

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crn_api_types::WarningKind;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{
    copying::Copying, db::DbError, guest_net::GuestNetError, ids::InstanceId, life::Phase,
    volume::VolumeError,
};

/// Why a request to a live instance failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// QEMU's monitor.
    #[error("QEMU: {0}")]
    Monitor(#[from] qmp::Error),
    /// A disk.
    #[error("disk: {0}")]
    Disk(#[from] disk::Error),
    /// A volume.
    #[error(transparent)]
    Volume(VolumeError),
    /// The network.
    #[error(transparent)]
    Net(GuestNetError),
    /// Files.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not possible in this phase.
    #[error("{0}")]
    Refused(String),
    /// Not done yet; it goes on.
    #[error("{0}")]
    Pending(String),
    /// The task is gone.
    #[error("the instance is gone")]
    Gone,
}

impl From<GuestNetError> for TaskError {
    fn from(e: GuestNetError) -> Self {
        match e {
            GuestNetError::Db(e) => Self::Db(e),
            e => Self::Net(e),
        }
    }
}

impl From<VolumeError> for TaskError {
    fn from(e: VolumeError) -> Self {
        match e {
            VolumeError::Db(e) => Self::Db(e),
            e => Self::Volume(e),
        }
    }
}

/// Where a request's answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, TaskError>>;

/// What an instance's task can be asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Attach a volume.
    Attach {
        /// The volume's id.
        volume: String,
        /// Where the guest mounts it.
        mount: Option<String>,
        /// The answer.
        reply: Reply<()>,
    },
    /// Detach a volume.
    Detach {
        /// The volume's id.
        volume: String,
        /// The answer.
        reply: Reply<()>,
    },
    /// A volume is to have this size.
    Grow {
        /// The volume's id.
        volume: String,
        /// MiB.
        mib: u64,
        /// The answer.
        reply: Reply<()>,
    },
    /// Copy the root disk into a new file of the host, while there is no QEMU.
    Export {
        /// The file.
        target: PathBuf,
        /// Who waits for it.
        copying: Copying,
        /// The answer.
        reply: Reply<()>,
    },
    /// Somebody removed the tap.
    RepairTap,
}

/// What the task knows that the database does not.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where the instance is.
    pub phase: Phase,
    /// The guest's SSH server answers.
    pub ready: bool,
    /// QEMU's pid.
    pub pid: Option<i32>,
    /// Progress of an image's download: bytes done and, if known, in all.
    pub progress: Option<(u64, Option<u64>)>,
    /// When the stage of a stop that is going on runs out of time, RFC 3339.
    pub stage_ends_at: Option<String>,
    /// The guest is paused because a disk failed, for instance for lack of space;
    /// it is resumed again and again until that works.
    pub paused: bool,
    /// What the operator should know, such as missing limits.
    pub warnings: BTreeMap<WarningKind, Warned>,
}

/// The text of a warning, and since when there is one of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warned {
    /// A sentence for people.
    pub message: String,
    /// Since when.
    pub since: OffsetDateTime,
}

/// A cheap handle to an instance's task.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Command>,
    wake: Arc<Notify>,
    status: watch::Receiver<Status>,
}

impl Handle {
    pub(crate) fn new(
        inbox: mpsc::Sender<Command>,
        wake: Arc<Notify>,
        status: watch::Receiver<Status>,
    ) -> Self {
        Self {
            inbox,
            wake,
            status,
        }
    }

    /// What the task knows at the moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Tells the task that what is wanted of its instance changed in the database.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells the task that its tap is gone. Never waits: the next comparison of the
    /// network says it again.
    pub(crate) fn repair_tap(&self) {
        let _ = self.inbox.try_send(Command::RepairTap);
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, TaskError> {
        let (reply, answer) = oneshot::channel();
        self.inbox
            .send(command(reply))
            .await
            .map_err(|_| TaskError::Gone)?;
        answer.await.map_err(|_| TaskError::Gone)?
    }
}

/// Which instances have a task: all that are on record.
#[derive(Debug, Default)]
pub struct Tasks(Mutex<HashMap<InstanceId, Handle>>);

impl Tasks {
    /// The handle of an instance's task.
    #[must_use]
    pub fn get(&self, id: &InstanceId) -> Option<Handle> {
        self.locked().get(id).cloned()
    }

    pub(crate) fn insert(&self, id: InstanceId, handle: Handle) {
        self.locked().insert(id, handle);
    }

    pub(crate) fn remove(&self, id: &InstanceId) {
        self.locked().remove(id);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
