//! Why the agent cannot serve.

use std::{io, path::PathBuf};

use crate::{db::DbError, guest_net::GuestNetError, node::NodeError};

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The log's filter.
    #[error("log.level: {0}")]
    LogLevel(String),
    /// A file or directory.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory of the agent's that somebody else rules.
    #[error(
        "{path} belongs to user {uid}, who could read and replace what is in it: give it to root \
         (chown root: {path}), or set another state_dir or run_dir"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Another agent has the directory.
    #[error("another agent is using {dir}: each has a state_dir and a run_dir of its own")]
    Locked {
        /// The state or run directory.
        dir: PathBuf,
    },
    /// Disks without records.
    #[error(
        "there is no database, but {found} exists: bring agent.db back from a backup, or move the \
         disks away; nothing was removed"
    )]
    RecordsLost {
        /// One of the disks.
        found: PathBuf,
    },
    /// The node: its network, images, cgroups.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The guests' network at the start.
    #[error(transparent)]
    Net(#[from] GuestNetError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The status page.
    #[error("api.status_listen {address}: {source}")]
    StatusPage {
        /// Where it was to be.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be had.
    #[error("signals: {0}")]
    Signal(io::Error),
    /// Anything else of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}
