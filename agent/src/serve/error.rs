//! Why the agent cannot serve.

use std::{io, path::PathBuf};

use crate::{cgroup::CgroupError, db::DbError, images};

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
    /// The node's prefix is missing.
    #[error("network.prefix is not set: the IPv6 prefix that guests get their addresses from")]
    NoPrefix,
    /// A value of `[network]` that cannot be.
    #[error("{key}: {source}")]
    Network {
        /// The key.
        key: &'static str,
        /// Why.
        source: net::Error,
    },
    /// The host's network.
    #[error("network: {0}")]
    Net(#[from] net::Error),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The image store.
    #[error("image store: {0}")]
    Store(#[from] disk::Error),
    /// The configured images.
    #[error(transparent)]
    Catalogue(#[from] images::CatalogueError),
    /// cgroups.
    #[error("cgroups: {0}")]
    Cgroup(#[from] CgroupError),
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
