//! The serial console: what the guest wrote, and the line itself.

use std::{
    collections::BTreeSet,
    io::{self, SeekFrom},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crn_api_types::ErrorCode;
use futures::{Stream, stream};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    net::UnixStream,
};

use super::{Caller, OpError, lookup, permission::Operation};
use crate::{ids::InstanceId, node::Node, paths::InstanceFile, qemu::plan::socket};

/// What is read of the log at a time.
const CHUNK: usize = 64 * 1024;
/// How soon a reader that waits sees what was written.
const POLL: Duration = Duration::from_millis(200);
/// QEMU accepts at once or never.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Which part of the console's log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    /// The last so many bytes; all of it unless given.
    pub tail: Option<u64>,
    /// Wait for more at the end, until the instance is gone.
    pub follow: bool,
}

struct Reading {
    node: Arc<Node>,
    id: InstanceId,
    path: PathBuf,
    file: Option<File>,
    at: u64,
    follow: bool,
}

/// What the guest wrote to its serial console: bytes, as they are.
///
/// # Errors
/// When there is no such instance, or the log cannot be read; in the stream too.
pub async fn log(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    query: LogQuery,
) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + use<>, OpError> {
    let row = lookup::instance(node, caller, Operation::ReadConsoleLog, reference).await?;
    let id = row.id;
    let path = node.paths.instance_file(&id, InstanceFile::ConsoleLog);
    let mut reading = Reading {
        node: node.clone(),
        id,
        path,
        file: None,
        at: 0,
        follow: query.follow,
    };
    reading.open().await?;
    if let (Some(tail), Some(file)) = (query.tail, &reading.file) {
        reading.at = file.metadata().await?.len().saturating_sub(tail);
    }
    Ok(stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        match reading.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
            Ok(None) => None,
            Err(e) => Some((Err(e), None)),
        }
    }))
}

impl Reading {
    /// Opens the log; before the first start there is none.
    async fn open(&mut self) -> io::Result<()> {
        match File::open(&self.path).await {
            Ok(file) => self.file = Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.file = None,
            Err(e) => return Err(e),
        }
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(bytes) = self.read().await? {
                return Ok(Some(bytes));
            }
            if !self.follow || self.node.task(&self.id).is_none() {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
            if self.file.is_none() {
                self.open().await?;
            }
        }
    }

    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let len = file.metadata().await?.len();
        if len < self.at {
            // Rotated: its older half is gone, and we have seen the newer one.
            self.at = len;
        }
        file.seek(SeekFrom::Start(self.at)).await?;
        let mut bytes = vec![0; CHUNK];
        let n = file.read(&mut bytes).await?;
        bytes.truncate(n);
        self.at += n as u64;
        Ok((n > 0).then_some(bytes))
    }
}

/// Instances whose console somebody has.
static TAKEN: Mutex<BTreeSet<InstanceId>> = Mutex::new(BTreeSet::new());

fn taken() -> std::sync::MutexGuard<'static, BTreeSet<InstanceId>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The console's line, as long as it lives.
#[derive(Debug)]
pub struct Console {
    /// Both directions, bytes as they are.
    pub line: UnixStream,
    _claim: Claim,
}

/// One at a time has an instance's console: QEMU talks to one only, and leaves
/// others waiting without a word.
#[derive(Debug)]
struct Claim(InstanceId);

impl Claim {
    fn new(id: &InstanceId) -> Option<Self> {
        taken().insert(id.clone()).then(|| Self(id.clone()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        taken().remove(&self.0);
    }
}

/// Takes the line of a running instance's console.
///
/// # Errors
/// When it does not run, or somebody else has the console.
pub async fn attach(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
) -> Result<Console, OpError> {
    let row = lookup::instance(node, caller, Operation::AttachConsole, reference).await?;
    let (id, name) = (row.id, row.name);
    let claim = Claim::new(&id).ok_or_else(|| {
        OpError::conflict(format!(
            "somebody else is attached to the console of {name}"
        ))
    })?;
    let path = node.paths.run(&id).join(socket::CONSOLE);
    match tokio::time::timeout(CONNECT_LIMIT, UnixStream::connect(&path)).await {
        Ok(Ok(line)) => Ok(Console {
            line,
            _claim: claim,
        }),
        Ok(Err(_)) => Err(OpError::conflict(format!("instance {name} does not run"))),
        Err(_) => {
            let message = format!("the console of {name} does not answer");
            Err(OpError::new(ErrorCode::Timeout, message))
        }
    }
}
