//! The task that owns a monitor's socket, and the state it shares with the handles.
//!
//! One task for each connection reads messages and writes commands at the same time; neither waits
//! for the other. Handles queue whole commands and wait for their replies, so a handle's future
//! can be dropped at any point.
//!
//! Invariants:
//! - every id in `slots` was issued and has not been answered; ids are never used twice;
//! - once `closed` is set nothing is added to `slots` or `unplugs`, and every waiting future has
//!   been woken;
//! - at most one command with a descriptor is in flight: QEMU keeps only the descriptor that came
//!   last, so a second one sent before the first command ran would replace it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::ClosedReason;
use crate::event::Event;
use crate::fdpass::send_all;
use crate::line::LineBuffer;
use crate::message::{Message, RawEvent, Refusal, Reply, ReplyId, parse};
use crate::ring::Ring;

/// How many commands may be abandoned (by their time limit, or by dropping their future) and still
/// unanswered before the connection is closed as [`ClosedReason::Unresponsive`].
pub const MAX_UNANSWERED: usize = 1024;

/// Commands queued for the writer beyond the one being written.
const QUEUE: usize = 32;

/// How long to go on reading after a write failed: the socket may still hold replies and events
/// that the peer sent before it closed.
const DRAIN_AFTER_WRITE_ERROR: Duration = Duration::from_secs(1);

/// Messages handled between two yields to the runtime's other tasks.
const BATCH: u32 = 64;

/// One command on its way to the writer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) command: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fd: Option<OwnedFd>,
    /// When the writer closes the connection because the peer does not read.
    pub(crate) deadline: Instant,
}

/// The outcome of asking a guest to release a device.
#[derive(Debug)]
pub(crate) enum Unplugged {
    Deleted,
    Refused,
}

#[derive(Debug)]
enum Waiter {
    Waiting(oneshot::Sender<Result<Box<RawValue>, Refusal>>),
    /// The caller gave the command up; its reply is still due.
    Abandoned,
}

#[derive(Debug)]
struct Slot {
    waiter: Waiter,
    /// Released with the slot, when the reply has come.
    _fd_turn: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    slots: HashMap<u64, Slot>,
    /// How many slots are `Waiter::Abandoned`.
    unanswered: usize,
    unplugs: HashMap<u64, (String, oneshot::Sender<Unplugged>)>,
}

/// What the task and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    closed: watch::Sender<Option<ClosedReason>>,
    next_id: AtomicU64,
    pub(crate) ring: Arc<Ring>,
    pub(crate) fd_turn: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            closed: watch::Sender::new(None),
            next_id: AtomicU64::new(1),
            ring: Arc::default(),
            fd_turn: Arc::new(Semaphore::new(1)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number never given before on this connection.
    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the connection ended, if it has.
    pub(crate) fn closed_reason(&self) -> Option<ClosedReason> {
        self.closed.borrow().clone()
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&self) -> ClosedReason {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ClosedReason::Local),
            Err(_) => ClosedReason::Local,
        }
    }

    /// Ends the connection and wakes all who wait. The first reason is kept.
    fn close(&self, reason: ClosedReason) {
        self.closed.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(reason);
            }
            first
        });
        let mut state = self.state();
        state.closed = true;
        state.unanswered = 0;
        let waiters = (
            std::mem::take(&mut state.slots),
            std::mem::take(&mut state.unplugs),
        );
        drop(state);
        drop(waiters);
        self.ring.end();
    }

    /// Expects a reply to `id`. `None` if the connection has ended.
    pub(crate) fn expect(
        self: &Arc<Self>,
        id: u64,
        fd_turn: Option<OwnedSemaphorePermit>,
    ) -> Option<Expected> {
        let (sender, reply) = oneshot::channel();
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.slots.insert(
            id,
            Slot {
                waiter: Waiter::Waiting(sender),
                _fd_turn: fd_turn,
            },
        );
        Some(Expected {
            shared: self.clone(),
            id,
            reply,
        })
    }

    /// Expects the end of device `device`. `None` if the connection has ended.
    pub(crate) fn expect_unplug(self: &Arc<Self>, device: &str) -> Option<ExpectedUnplug> {
        let (sender, outcome) = oneshot::channel();
        let id = self.fresh_id();
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.unplugs.insert(id, (device.to_owned(), sender));
        Some(ExpectedUnplug {
            shared: self.clone(),
            id,
            outcome,
        })
    }

    /// The caller no longer waits for the reply to `id`.
    fn abandon(&self, id: u64) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut(&id)
            && matches!(slot.waiter, Waiter::Waiting(_))
        {
            slot.waiter = Waiter::Abandoned;
            state.unanswered += 1;
        }
    }

    /// Forgets a command that was abandoned before it was sent. Returns whether it was.
    fn withdraw(&self, id: u64) -> bool {
        let mut state = self.state();
        let abandoned = matches!(
            state.slots.get(&id),
            Some(Slot {
                waiter: Waiter::Abandoned,
                ..
            })
        );
        if abandoned {
            state.slots.remove(&id);
            state.unanswered = state.unanswered.saturating_sub(1);
        }
        abandoned
    }

    fn on_reply(&self, reply: Reply) -> Result<(), ClosedReason> {
        let unsolicited =
            |id: &dyn std::fmt::Display| ClosedReason::UnsolicitedReply { id: id.to_string() };
        let id = match reply.id {
            Some(ReplyId::Number(id)) => id,
            Some(foreign) => return Err(unsolicited(&foreign)),
            None => return Err(unsolicited(&"none")),
        };
        let mut state = self.state();
        let slot = state.slots.remove(&id).ok_or_else(|| unsolicited(&id))?;
        match slot.waiter {
            // Fails if the caller gives up at this moment; the reply is then not needed.
            Waiter::Waiting(waiter) => _ = waiter.send(reply.result),
            Waiter::Abandoned => state.unanswered = state.unanswered.saturating_sub(1),
        }
        Ok(())
    }

    fn on_event(&self, raw: RawEvent) {
        if let Some((device, deleted)) = unplug_outcome(&raw) {
            let mut state = self.state();
            let ids: Vec<u64> = state
                .unplugs
                .iter()
                .filter(|(_, (waited, _))| *waited == device)
                .map(|(id, _)| *id)
                .collect();
            for id in ids {
                if let Some((_, sender)) = state.unplugs.remove(&id) {
                    _ = sender.send(if deleted {
                        Unplugged::Deleted
                    } else {
                        Unplugged::Refused
                    });
                }
            }
        }
        self.ring.push(raw);
    }

    /// Fails if more than [`MAX_UNANSWERED`] abandoned commands have no reply.
    fn check_backlog(&self) -> Result<(), ClosedReason> {
        let unanswered = self.state().unanswered;
        if unanswered > MAX_UNANSWERED {
            return Err(ClosedReason::Unresponsive { unanswered });
        }
        Ok(())
    }
}

/// For the two events that end an unplug request: the device, and whether it was removed.
fn unplug_outcome(raw: &RawEvent) -> Option<(String, bool)> {
    use qapi::Event as _;
    use qapi::qmp::{DEVICE_DELETED, DEVICE_UNPLUG_GUEST_ERROR};
    if raw.name != DEVICE_DELETED::NAME && raw.name != DEVICE_UNPLUG_GUEST_ERROR::NAME {
        return None;
    }
    match Event::from_raw(raw) {
        Event::DeviceDeleted {
            device: Some(device),
            ..
        } => Some((device, true)),
        Event::DeviceUnplugGuestError {
            device: Some(device),
            ..
        } => Some((device, false)),
        _ => None,
    }
}

/// A pending reply. Dropping it abandons the command.
#[derive(Debug)]
pub(crate) struct Expected {
    shared: Arc<Shared>,
    id: u64,
    reply: oneshot::Receiver<Result<Box<RawValue>, Refusal>>,
}

impl Expected {
    /// The reply; `None` if the connection ended first.
    pub(crate) async fn reply(mut self) -> Option<Result<Box<RawValue>, Refusal>> {
        (&mut self.reply).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.shared.abandon(self.id);
    }
}

/// A pending unplug.
#[derive(Debug)]
pub(crate) struct ExpectedUnplug {
    shared: Arc<Shared>,
    id: u64,
    outcome: oneshot::Receiver<Unplugged>,
}

impl ExpectedUnplug {
    /// The outcome; `None` if the connection ended first.
    pub(crate) async fn outcome(mut self) -> Option<Unplugged> {
        (&mut self.outcome).await.ok()
    }
}

impl Drop for ExpectedUnplug {
    fn drop(&mut self) {
        self.shared.state().unplugs.remove(&self.id);
    }
}

/// Ends the connection however the task ends: by itself, by a panic, or with its runtime.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(ClosedReason::Local);
    }
}

/// Starts the task for a stream whose greeting has been read. `lines` holds what came after it.
pub(crate) fn start(
    mut stream: UnixStream,
    mut lines: LineBuffer,
    shared: Arc<Shared>,
) -> mpsc::Sender<Request> {
    let (queue, mut requests) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let guard = CloseOnDrop(shared);
        let shared = &*guard.0;
        let (mut reader, writer) = stream.split();
        let reason = tokio::select! {
            reason = read(&mut reader, &mut lines, shared) => reason,
            reason = write(&writer, &mut requests, shared) => reason,
        };
        shared.close(reason);
    });
    queue
}

async fn read(reader: &mut ReadHalf<'_>, lines: &mut LineBuffer, shared: &Shared) -> ClosedReason {
    let mut handled = 0;
    loop {
        loop {
            match next_message(lines) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let outcome = match message {
                        Message::Reply(reply) => shared.on_reply(reply),
                        Message::Event(event) => {
                            shared.on_event(event);
                            Ok(())
                        }
                        Message::Greeting(_) => Err(ClosedReason::OutOfOrder {
                            found: "a greeting",
                            expected: "a reply or an event",
                        }),
                    };
                    if let Err(reason) = outcome {
                        return reason;
                    }
                }
                Err(reason) => return reason,
            }
            handled += 1;
            if handled % BATCH == 0 {
                yield_now().await;
            }
        }
        match lines.fill(reader).await {
            Ok(0) => return ClosedReason::PeerClosed,
            Ok(_) => {}
            Err(error) => return broken(&error),
        }
    }
}

/// The next whole message in `lines`; empty lines are skipped.
pub(crate) fn next_message(lines: &mut LineBuffer) -> Result<Option<Message>, ClosedReason> {
    loop {
        match lines.take_line() {
            Ok(None) => return Ok(None),
            Ok(Some(line)) if line.trim_ascii().is_empty() => {}
            Ok(Some(line)) => return Ok(Some(parse(&line)?)),
            Err(_) => return Err(ClosedReason::LineTooLong { limit: lines.max() }),
        }
    }
}

async fn write(
    writer: &WriteHalf<'_>,
    requests: &mut mpsc::Receiver<Request>,
    shared: &Shared,
) -> ClosedReason {
    while let Some(request) = requests.recv().await {
        if shared.withdraw(request.id) {
            continue;
        }
        if let Err(reason) = shared.check_backlog() {
            return reason;
        }
        let fd = request.fd.as_ref().map(AsFd::as_fd);
        match timeout_at(
            request.deadline,
            send_all(writer.as_ref(), &request.bytes, fd),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                sleep(DRAIN_AFTER_WRITE_ERROR).await;
                return broken(&error);
            }
            Err(_) => {
                return ClosedReason::WriteTimeout {
                    command: request.command,
                };
            }
        }
    }
    ClosedReason::Local
}

/// The reason for a failed read or write.
pub(crate) fn broken(error: &io::Error) -> ClosedReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ClosedReason::PeerClosed,
        _ => ClosedReason::Broken {
            detail: error.to_string(),
        },
    }
}
