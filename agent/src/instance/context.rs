//! What an instance's task shares with the jobs that it has started: the node, whose
//! task it is, and where it tells what happens.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, PoisonError},
};

use crn_api_types::{EventKind, WarningKind};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::{sync::watch, time::Instant};
use tracing::warn;

use super::{
    console_log,
    rate_limit::{RateLimit, peer_text},
};
use crate::{
    db::{DbError, InstanceRow},
    fs::blocking,
    ids::InstanceId,
    life::{Failure, FailureCode},
    node::Node,
    paths::InstanceFile,
    tasks::{Status, TaskError, Warned},
    volume::VolumeError,
};

/// As much of QEMU's own last words goes into a failure, bytes.
const LAST_WORDS: u64 = 400;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) node: Arc<Node>,
    pub(super) id: InstanceId,
    pub(super) status: watch::Sender<Status>,
    /// Events and lines of the log apart: one kind may be both.
    events: Arc<Mutex<RateLimit>>,
    lines: Arc<Mutex<RateLimit>>,
}

impl Context {
    pub(super) fn new(node: Arc<Node>, id: InstanceId, status: watch::Sender<Status>) -> Self {
        Self {
            node,
            id,
            status,
            events: Arc::default(),
            lines: Arc::default(),
        }
    }

    /// The record as it is now.
    pub(super) async fn row(&self) -> Result<InstanceRow, DbError> {
        self.node.db.instance(&self.id).await
    }

    /// Records an event and tells it.
    pub(super) fn event(&self, kind: EventKind, data: Value) {
        self.node.events.emit(Some(&self.id), kind, data);
    }

    /// [`Self::event`] for what a guest or its QEMU can cause as often as it likes:
    /// every now and then one of each kind is recorded, with the number of those
    /// that were not.
    pub(super) fn event_rate_limited(&self, kind: EventKind, mut data: Value) {
        if let Some(suppressed) = admit(&self.events, kind.as_str()) {
            if suppressed > 0
                && let Some(fields) = data.as_object_mut()
            {
                fields.insert("suppressed".into(), suppressed.into());
            }
            self.event(kind, data);
        }
    }

    /// Logs what a guest or its QEMU can cause as often as it likes: every now and
    /// then one of each kind, the peer's text cut and on one line.
    pub(super) fn warn_rate_limited(&self, kind: &'static str, text: impl Display) {
        if let Some(suppressed) = admit(&self.lines, kind) {
            let text = peer_text(&text.to_string());
            match suppressed {
                0 => warn!(kind, "{text}"),
                _ => warn!(kind, suppressed, "{text}"),
            }
        }
    }

    /// Sets the warning of one kind. Others stay.
    pub(super) fn set_warning(&self, kind: WarningKind, text: impl Display) {
        self.set_warning_since(kind, OffsetDateTime::now_utc(), text);
    }

    /// The same, of what began at that time. One that is there already keeps its own.
    pub(super) fn set_warning_since(
        &self,
        kind: WarningKind,
        since: OffsetDateTime,
        text: impl Display,
    ) {
        let text = peer_text(&text.to_string());
        self.status.send_if_modified(|s| {
            let new = Warned {
                message: String::new(),
                since,
            };
            let warned = s.warnings.entry(kind).or_insert(new);
            let changes = warned.message != text;
            warned.message = text;
            changes
        });
    }

    /// Clears the warning of one kind; gives whether there was one. Others stay.
    pub(super) fn clear_warning(&self, kind: WarningKind) -> bool {
        self.status
            .send_if_modified(|s| s.warnings.remove(&kind).is_some())
    }

    /// `what` happened, and the last line that QEMU wrote to its log from the byte
    /// `log_from` on, if it wrote any.
    pub(super) async fn with_last_words(&self, what: &str, log_from: Option<u64>) -> String {
        let Some(from) = log_from else {
            return what.to_owned();
        };
        let path = self
            .node
            .paths
            .instance_file(&self.id, InstanceFile::QemuLog);
        let read = move || {
            let mut file = File::open(path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(end.saturating_sub(LAST_WORDS))))?;
            let mut bytes = Vec::new();
            file.take(LAST_WORDS).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = blocking(read).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().rev().map(str::trim);
        match lines.find(|line| !line.is_empty()) {
            // It may hold what a guest had QEMU say.
            Some(line) => format!("{what}: {}", peer_text(line)),
            None => what.to_owned(),
        }
    }

    /// Keeps the logs that the guest can grow within their bounds.
    pub(super) async fn bound_logs(self) {
        let most = self.node.config.qemu.console_log_kib.saturating_mul(1024);
        let file = |f| self.node.paths.instance_file(&self.id, f);
        let logs = [file(InstanceFile::ConsoleLog), file(InstanceFile::QemuLog)];
        let work = move || {
            for log in &logs {
                console_log::bound(log, most)?;
            }
            Ok::<_, io::Error>(())
        };
        if let Err(e) = blocking(work).await {
            self.warn_rate_limited("log-bound", format!("a log cannot be kept small: {e}"));
        }
    }
}

fn admit(limit: &Mutex<RateLimit>, kind: &'static str) -> Option<u64> {
    let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
    limit.admit(kind, Instant::now())
}

/// Why a step did not succeed.
#[derive(Debug)]
pub(super) enum StepError {
    /// The database refused: nothing is decided, and the step is tried again.
    Db(DbError),
    /// The step failed, and the instance with it.
    Failed(Failure),
}

impl From<DbError> for StepError {
    fn from(e: DbError) -> Self {
        Self::Db(e)
    }
}

impl From<Failure> for StepError {
    fn from(e: Failure) -> Self {
        Self::Failed(e)
    }
}

impl From<VolumeError> for StepError {
    fn from(e: VolumeError) -> Self {
        match e {
            VolumeError::Db(e) => Self::Db(e),
            e => Self::Failed(failure(FailureCode::Disk, e)),
        }
    }
}

impl From<StepError> for TaskError {
    fn from(e: StepError) -> Self {
        match e {
            StepError::Db(e) => Self::Db(e),
            StepError::Failed(failure) => Self::Refused(failure.message),
        }
    }
}

/// A failure with its code.
pub(super) fn failure(code: FailureCode, message: impl Display) -> Failure {
    Failure {
        code,
        message: message.to_string(),
    }
}
