//! The QEMU guest agent, over the socket of its virtio-serial port.
//!
//! The agent belongs to the guest: it may be absent, hang, lie or be somebody else. Its protocol
//! has no ids that every version echoes, so one command is in flight at a time, and the channel
//! keeps what the guest wrote for earlier clients. Each new connection therefore begins with
//! `guest-sync-delimited`: everything is thrown away up to a 0xFF byte that is followed by the
//! reply with this connection's random number (QEMU, qga/qapi-schema.json).
//!
//! Invariant: a connection is kept for the next command only after a complete exchange. A command
//! that failed, ran out of time or was dropped takes its connection with it, so its late reply can
//! never be taken for that of another.

mod commands;
mod exec;
pub mod wire;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

pub use commands::ShutdownMode;
pub use exec::ExecResult;

use crate::client::{deadline, decode};
use crate::config::Config;
use crate::connect::connect;
use crate::connection::broken;
use crate::error::{ClosedReason, Error};
use crate::fdpass::send_all;
use crate::line::LineBuffer;
use crate::message::{Refusal, Reply};
use wire::SyncScanner;

/// A handle to one guest's agent. Clones share it and take turns.
#[derive(Clone)]
pub struct Qga {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    config: Config,
    link: Mutex<Option<Link>>,
}

impl fmt::Debug for Qga {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qga")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

/// A synchronised connection.
struct Link {
    stream: UnixStream,
    lines: LineBuffer,
}

/// A command as it goes over the wire. No id: agents before QEMU 4.0 refuse it.
#[derive(Serialize)]
struct Wire<'a, A> {
    execute: &'a str,
    arguments: &'a A,
}

impl Qga {
    /// A handle that connects when the first command is given.
    #[must_use]
    pub fn new(path: &Path, config: &Config) -> Self {
        let inner = Inner {
            path: path.to_owned(),
            config: config.clone(),
            link: Mutex::new(None),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Connects and synchronises, which shows that an agent answers.
    ///
    /// # Errors
    /// [`Error::Connect`] and [`Error::ConnectTimeout`] if QEMU's end of the channel cannot be
    /// reached; [`Error::GuestAgentSilent`] if no agent in the guest answers within
    /// [`Config::greeting_timeout`]; [`Error::Closed`].
    pub async fn connect(path: &Path, config: &Config) -> Result<Self, Error> {
        let qga = Self::new(path, config);
        let link = qga.link(deadline(config.greeting_timeout)).await?;
        *qga.inner.link.lock().await = Some(link);
        Ok(qga)
    }

    /// Executes a command with the default time limit.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), [`Error::Refused`], [`Error::UnexpectedReply`],
    /// [`Error::Timeout`] and [`Error::Closed`]. The next command starts afresh after each.
    pub async fn execute<C: qapi::Command>(&self, command: C) -> Result<C::Ok, Error> {
        self.execute_within(command, self.inner.config.command_timeout)
            .await
    }

    /// Executes a command with a time limit for all of it: waiting for its turn, connecting if
    /// need be (never longer than [`Config::greeting_timeout`]), and the reply.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_within<C: qapi::Command>(
        &self,
        command: C,
        limit: Duration,
    ) -> Result<C::Ok, Error> {
        let mut exchange = Exchange::new(self, C::NAME, limit);
        let mut turn = exchange.turn().await?;
        let (link, reply) = exchange.run(turn.take(), &command).await?;
        match reply {
            Ok(value) => {
                // A reply of the wrong type may be that of another command: start afresh.
                let value = decode(C::NAME, &value)?;
                *turn = Some(link);
                Ok(value)
            }
            Err(refusal) => {
                *turn = Some(link);
                Err(refused(C::NAME, refusal))
            }
        }
    }

    /// Executes a command that is answered only if it is refused. Waits `grace` for that.
    async fn execute_unanswered<C: qapi::Command>(
        &self,
        command: C,
        grace: Duration,
    ) -> Result<(), Error> {
        let mut exchange = Exchange::new(self, C::NAME, self.inner.config.command_timeout);
        let mut turn = exchange.turn().await?;
        let mut link = exchange.send(turn.take(), &command).await?;
        match timeout_at(deadline(grace), link.reply()).await {
            Ok(Ok(Err(refusal))) => Err(refused(C::NAME, refusal)),
            // The guest goes down, and the channel with it.
            Ok(Ok(Ok(_)) | Err(_)) | Err(_) => Ok(()),
        }
    }

    /// A new synchronised connection.
    async fn link(&self, until: Instant) -> Result<Link, Error> {
        let config = &self.inner.config;
        let start = Instant::now();
        let until = until.min(deadline(config.greeting_timeout));
        let left = until.saturating_duration_since(start);
        let stream = connect(&self.inner.path, config.connect_timeout.min(left)).await?;
        match timeout_at(until, Link::synchronise(stream, config.max_line)).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(reason)) => Err(Error::Closed {
                command: "guest-sync-delimited".into(),
                reason,
            }),
            Err(_) => Err(Error::GuestAgentSilent {
                path: self.inner.path.clone(),
                limit: left,
            }),
        }
    }
}

/// One command and its time limit.
struct Exchange<'a> {
    qga: &'a Qga,
    command: &'static str,
    limit: Duration,
    until: Instant,
}

impl<'a> Exchange<'a> {
    fn new(qga: &'a Qga, command: &'static str, limit: Duration) -> Self {
        Self {
            qga,
            command,
            limit,
            until: deadline(limit),
        }
    }

    fn late(&self) -> Error {
        Error::Timeout {
            command: self.command.to_owned(),
            limit: self.limit,
        }
    }

    fn closed(&self, reason: ClosedReason) -> Error {
        Error::Closed {
            command: self.command.to_owned(),
            reason,
        }
    }

    async fn turn(&mut self) -> Result<tokio::sync::MutexGuard<'a, Option<Link>>, Error> {
        timeout_at(self.until, self.qga.inner.link.lock())
            .await
            .map_err(|_| self.late())
    }

    async fn send<A: Serialize>(&mut self, link: Option<Link>, args: &A) -> Result<Link, Error> {
        let mut bytes = serde_json::to_vec(&Wire {
            execute: self.command,
            arguments: args,
        })
        .map_err(|error| Error::Encode {
            command: self.command.to_owned(),
            detail: error.to_string(),
        })?;
        bytes.push(b'\n');
        let link = match link.filter(Link::is_quiet) {
            Some(link) => link,
            None => self.qga.link(self.until).await?,
        };
        match timeout_at(self.until, send_all(&link.stream, &bytes, None)).await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(error)) => Err(self.closed(broken(&error))),
            Err(_) => Err(self.late()),
        }
    }

    async fn run<A: Serialize>(
        &mut self,
        link: Option<Link>,
        args: &A,
    ) -> Result<(Link, Result<Box<RawValue>, Refusal>), Error> {
        let mut link = self.send(link, args).await?;
        match timeout_at(self.until, link.reply()).await {
            Ok(Ok(reply)) => Ok((link, reply)),
            Ok(Err(reason)) => Err(self.closed(reason)),
            Err(_) => Err(self.late()),
        }
    }
}

impl Link {
    async fn synchronise(mut stream: UnixStream, max_line: usize) -> Result<Self, ClosedReason> {
        let mut scanner = SyncScanner::new(random_id().map_err(|error| broken(&error))?);
        send_all(&stream, &scanner.request(), None)
            .await
            .map_err(|error| broken(&error))?;
        let mut chunk = vec![0; 4 << 10];
        loop {
            let read = stream
                .read(&mut chunk)
                .await
                .map_err(|error| broken(&error))?;
            if read == 0 {
                return Err(ClosedReason::PeerClosed);
            }
            let bytes = chunk.get(..read).unwrap_or_default();
            if let Some(used) = scanner.feed(bytes) {
                let mut lines = LineBuffer::new(max_line);
                lines.extend(bytes.get(used..).unwrap_or_default());
                return Ok(Self { stream, lines });
            }
        }
    }

    /// Whether the channel is open and nothing came unasked. Otherwise it must not be used again.
    fn is_quiet(&self) -> bool {
        let mut byte = [0];
        self.lines.is_empty()
            && matches!(self.stream.try_read(&mut byte),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn reply(&mut self) -> Result<Result<Box<RawValue>, Refusal>, ClosedReason> {
        loop {
            match self.lines.take_line() {
                Ok(Some(line)) if line.trim_ascii().is_empty() => {}
                Ok(Some(line)) => {
                    let Reply { result, .. } = wire::parse(&line)?;
                    return Ok(result);
                }
                Ok(None) => match self.lines.fill(&mut self.stream).await {
                    Ok(0) => return Err(ClosedReason::PeerClosed),
                    Ok(_) => {}
                    Err(error) => return Err(broken(&error)),
                },
                Err(_) => {
                    return Err(ClosedReason::LineTooLong {
                        limit: self.lines.max(),
                    });
                }
            }
        }
    }
}

fn refused(command: &str, refusal: Refusal) -> Error {
    Error::Refused {
        command: command.to_owned(),
        class: refusal.class,
        desc: refusal.desc,
    }
}

/// A positive number that no earlier connection has used.
fn random_id() -> io::Result<i64> {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if got != bytes.len() {
        return Err(io::Error::other("the system gave too few random bytes"));
    }
    Ok(i64::from_ne_bytes(bytes) & i64::MAX)
}
