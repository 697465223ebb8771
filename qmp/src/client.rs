//! The handle to a monitor.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::connect::connect;
use crate::connection::{Request, Shared, broken, next_message, start};
use crate::error::{ClosedReason, Error};
use crate::line::LineBuffer;
use crate::message::{Greeting, Message, printable};
use crate::ring::Events;

/// The longest greeting accepted, in bytes. QEMU's is below 200.
const MAX_GREETING: usize = 64 << 10;

/// A limit for those who set none.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// QEMU's version, ordered by its numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number; 50 and up are development versions.
    pub micro: u32,
    /// The distributor's name of the build, may be empty.
    pub package: String,
}

impl Version {
    /// Whether this is version `major.minor` or later.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A handle to one QEMU monitor. Clones share the connection; it ends with the last of them.
#[derive(Clone)]
pub struct Qmp {
    queue: mpsc::Sender<Request>,
    pub(crate) shared: Arc<Shared>,
    version: Arc<Version>,
    command_timeout: Duration,
}

impl fmt::Debug for Qmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qmp")
            .field("version", &self.version)
            .field("closed", &self.shared.closed_reason())
            .finish_non_exhaustive()
    }
}

/// A command as it goes over the wire.
#[derive(Serialize)]
struct Wire<'a, A> {
    execute: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<A>,
    id: u64,
}

impl Qmp {
    /// Connects to the monitor at `path` and shakes hands: its greeting, then `qmp_capabilities`.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::ConnectTimeout`], [`Error::GreetingTimeout`], or
    /// [`Error::Closed`] for a peer that breaks the protocol or goes away.
    pub async fn connect(path: &Path, config: &Config) -> Result<(Self, Events), Error> {
        Self::shake_hands(connect(path, config.connect_timeout).await?, config).await
    }

    /// Shakes hands over a connected stream.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Io`] if the stream cannot be made non-blocking.
    pub async fn from_stream(
        stream: std::os::unix::net::UnixStream,
        config: &Config,
    ) -> Result<(Self, Events), Error> {
        let what = "cannot use the stream";
        stream
            .set_nonblocking(true)
            .map_err(|source| Error::Io { what, source })?;
        let stream = UnixStream::from_std(stream).map_err(|source| Error::Io { what, source })?;
        Self::shake_hands(stream, config).await
    }

    async fn shake_hands(stream: UnixStream, config: &Config) -> Result<(Self, Events), Error> {
        let limit = config.greeting_timeout;
        let late = || Error::GreetingTimeout { limit };
        let deadline = deadline(limit);
        let mut stream = stream;
        let mut lines = LineBuffer::new(config.max_line.min(MAX_GREETING));
        let greeting = timeout_at(deadline, greeting(&mut stream, &mut lines))
            .await
            .map_err(|_| late())?
            .map_err(|reason| Error::Closed {
                command: "greeting".into(),
                reason,
            })?;
        lines.set_max(config.max_line);

        let numbers = greeting.version.qemu;
        let shared = Arc::new(Shared::new());
        let events = Events::new(shared.ring.clone());
        let qmp = Self {
            queue: start(stream, lines, shared.clone()),
            shared,
            version: Arc::new(Version {
                major: numbers.major,
                minor: numbers.minor,
                micro: numbers.micro,
                package: printable(greeting.version.package.trim(), 256),
            }),
            command_timeout: config.command_timeout,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match qmp
            .execute_within(qapi::qmp::qmp_capabilities { enable: None }, left)
            .await
        {
            Ok(_) => Ok((qmp, events)),
            Err(Error::Timeout { .. }) => Err(late()),
            Err(error) => Err(error),
        }
    }

    /// QEMU's version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The time limit of commands that name none.
    #[must_use]
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// Executes a command with the default time limit.
    ///
    /// # Errors
    /// [`Error::Refused`] if QEMU refuses it, [`Error::UnexpectedReply`], [`Error::Timeout`] and
    /// [`Error::Closed`].
    pub async fn execute<C: qapi::Command>(&self, command: C) -> Result<C::Ok, Error> {
        self.execute_within(command, self.command_timeout).await
    }

    /// Executes a command with a time limit for all of it: queueing, sending and the reply.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_within<C: qapi::Command>(
        &self,
        command: C,
        limit: Duration,
    ) -> Result<C::Ok, Error> {
        let reply = self.call(C::NAME, Some(&command), None, limit).await?;
        decode(C::NAME, &reply)
    }

    /// Executes a command by name. `args` is an object, or null for none.
    ///
    /// For peers that are trusted: an answer may take a hundred times its length of memory as a
    /// [`serde_json::Value`].
    ///
    /// # Errors
    /// As [`execute_as`](Self::execute_as).
    pub async fn execute_raw(
        &self,
        name: &str,
        args: serde_json::Value,
    ) -> Result<serde_json::Value, Error> {
        self.execute_as(name, args).await
    }

    /// Executes a command by name, and reads of its answer what `T` has: the rest takes no memory.
    /// `args` is an object, or null for none.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); [`Error::Encode`] if `args` is something else.
    pub async fn execute_as<T: DeserializeOwned>(
        &self,
        name: &str,
        args: serde_json::Value,
    ) -> Result<T, Error> {
        self.execute_as_within(name, args, self.command_timeout)
            .await
    }

    /// [`execute_as`](Self::execute_as) with a time limit.
    ///
    /// # Errors
    /// As [`execute_as`](Self::execute_as).
    pub async fn execute_as_within<T: DeserializeOwned>(
        &self,
        name: &str,
        args: serde_json::Value,
        limit: Duration,
    ) -> Result<T, Error> {
        let args = match &args {
            serde_json::Value::Null => None,
            serde_json::Value::Object(_) => Some(&args),
            _ => {
                let detail = "not an object".into();
                return Err(Error::Encode {
                    command: name.to_owned(),
                    detail,
                });
            }
        };
        let reply = self.call(name, args, None, limit).await?;
        decode(name, &reply)
    }

    /// Executes a command that takes a descriptor; QEMU gets a copy of it.
    pub(crate) async fn execute_with_fd<C: qapi::Command>(
        &self,
        command: C,
        fd: BorrowedFd<'_>,
    ) -> Result<C::Ok, Error> {
        let fd = fd.try_clone_to_owned().map_err(|source| Error::Io {
            what: "cannot duplicate the descriptor",
            source,
        })?;
        let reply = self
            .call(C::NAME, Some(&command), Some(fd), self.command_timeout)
            .await?;
        decode(C::NAME, &reply)
    }

    /// Resolves when the connection has ended; at once if it already has.
    pub async fn closed(&self) -> ClosedReason {
        self.shared.closed().await
    }

    /// Why the connection ended, if it has.
    #[must_use]
    pub fn closed_reason(&self) -> Option<ClosedReason> {
        self.shared.closed_reason()
    }

    pub(crate) fn closed_error(&self, command: &str) -> Error {
        Error::Closed {
            command: command.to_owned(),
            reason: self.shared.closed_reason().unwrap_or(ClosedReason::Local),
        }
    }

    async fn call<A: Serialize + Sync>(
        &self,
        name: &str,
        args: Option<&A>,
        fd: Option<OwnedFd>,
        limit: Duration,
    ) -> Result<Box<RawValue>, Error> {
        let id = self.shared.fresh_id();
        let mut bytes = serde_json::to_vec(&Wire {
            execute: name,
            arguments: args,
            id,
        })
        .map_err(|error| Error::Encode {
            command: name.to_owned(),
            detail: error.to_string(),
        })?;
        bytes.extend_from_slice(b"\r\n");
        let deadline = deadline(limit);
        let exchange = async {
            let fd_turn = match fd {
                Some(_) => Some(self.shared.fd_turn.clone().acquire_owned().await.ok()?),
                None => None,
            };
            let place = self.queue.reserve().await.ok()?;
            let expected = self.shared.expect(id, fd_turn)?;
            place.send(Request {
                id,
                command: name.to_owned(),
                bytes,
                fd,
                deadline,
            });
            expected.reply().await
        };
        match timeout_at(deadline, exchange).await {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(refusal))) => Err(Error::Refused {
                command: name.to_owned(),
                class: refusal.class,
                desc: refusal.desc,
            }),
            Ok(None) => Err(self.closed_error(name)),
            Err(_) => Err(Error::Timeout {
                command: name.to_owned(),
                limit,
            }),
        }
    }
}

async fn greeting(
    stream: &mut UnixStream,
    lines: &mut LineBuffer,
) -> Result<Greeting, ClosedReason> {
    loop {
        match next_message(lines)? {
            Some(Message::Greeting(greeting)) => return Ok(greeting),
            Some(other) => {
                let (found, expected) = (other.kind(), "the greeting");
                return Err(ClosedReason::OutOfOrder { found, expected });
            }
            None => match lines.fill(stream).await {
                Ok(0) => return Err(ClosedReason::PeerClosed),
                Ok(_) => {}
                Err(error) => return Err(broken(&error)),
            },
        }
    }
}

/// `limit` from now; a limit beyond the clock's range counts as a century.
pub(crate) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit.min(FAR)
}

/// Reads a reply as the type that the command returns.
pub(crate) fn decode<'de, T: Deserialize<'de>>(
    command: &str,
    value: &'de RawValue,
) -> Result<T, Error> {
    serde_json::from_str(value.get()).map_err(|error| Error::UnexpectedReply {
        command: command.to_owned(),
        detail: printable(&error.to_string(), 256),
    })
}
