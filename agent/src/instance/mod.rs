//! One task for each instance: it alone moves the instance from phase to phase.
//!
//! The task reads what is wanted from the database, asks [`crate::life::decide`]
//! what to do, writes the phase down and carries it out. Requests that change a
//! live instance come by its inbox and are served when it rests, one at a time.

mod console_log;
mod hotplug;
pub(crate) mod prepare;
mod probe;
mod running;
mod start;
mod stop;
mod task;
mod volumes;

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use utoipa::ToSchema;

use crate::{db::DbError, life::Phase};

pub(crate) use task::spawn;

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
    /// The network.
    #[error("network: {0}")]
    Net(#[from] net::Error),
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

type Reply<T> = oneshot::Sender<Result<T, TaskError>>;

/// What an instance's task can be asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Attach a volume.
    Attach {
        /// The volume's name.
        volume: String,
        /// Where the guest mounts it.
        mount: Option<String>,
        /// The answer.
        reply: Reply<()>,
    },
    /// Detach a volume.
    Detach {
        /// The volume's name.
        volume: String,
        /// The answer.
        reply: Reply<()>,
    },
    /// A volume is to have this size.
    Grow {
        /// The volume's name.
        volume: String,
        /// MiB.
        mib: u64,
        /// The answer.
        reply: Reply<()>,
    },
    /// Somebody removed the tap.
    RepairTap,
}

/// What the task knows that the database does not.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Status {
    /// Where the instance is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The guest's SSH server has answered since this start.
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
    /// Something the operator should know, such as missing limits.
    pub warning: Option<String>,
}

/// A cheap handle to an instance's task.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Command>,
    poke: Arc<Notify>,
    status: watch::Receiver<Status>,
}

impl Handle {
    /// What the task knows at the moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Tells the task that the wish in the database changed.
    pub(crate) fn look(&self) {
        self.poke.notify_one();
    }

    /// Tells the task that its tap is gone. Never waits: it is said again.
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
