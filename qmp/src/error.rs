//! The errors of this crate.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::message::ParseError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket could not be reached.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The connection was not accepted in time.
    #[error("{path} accepted no connection within {limit:?}")]
    ConnectTimeout {
        /// The socket.
        path: PathBuf,
        /// [`Config::connect_timeout`](crate::Config::connect_timeout).
        limit: Duration,
    },
    /// The monitor accepted the connection but did not finish the handshake. Either it hangs, or
    /// it serves another client.
    #[error("no QMP greeting within {limit:?}: QEMU hangs, or its monitor serves another client")]
    GreetingTimeout {
        /// [`Config::greeting_timeout`](crate::Config::greeting_timeout).
        limit: Duration,
    },
    /// The peer refused the command. The connection goes on working.
    #[error("{command} was refused: {desc}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's class of the error: decide by this, not by `desc`.
        class: qapi::ErrorClass,
        /// QEMU's description, without control characters and at most 4 KiB.
        desc: String,
    },
    /// No reply in time. The command may still be carried out. A monitor's connection goes on
    /// working; a guest agent's is made anew by the next command.
    #[error("{command} was not answered within {limit:?}")]
    Timeout {
        /// The command.
        command: String,
        /// Its time limit.
        limit: Duration,
    },
    /// The connection ended before the reply came, or had ended before.
    #[error("{command}: {reason}")]
    Closed {
        /// The command, or the step of the handshake.
        command: String,
        /// Why the connection ended.
        reason: ClosedReason,
    },
    /// The reply is not of the type that the command returns.
    #[error("{command}: the reply has an unexpected form: {detail}")]
    UnexpectedReply {
        /// The command.
        command: String,
        /// What does not fit.
        detail: String,
    },
    /// The arguments cannot be sent: not JSON, or not an object.
    #[error("{command}: cannot encode the arguments: {detail}")]
    Encode {
        /// The command.
        command: String,
        /// What is wrong with them.
        detail: String,
    },
    /// A descriptor could not be prepared for passing, or the stream for use.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The guest refused to release a device (`DEVICE_UNPLUG_GUEST_ERROR`).
    #[error("the guest refuses to release device {device}")]
    UnplugRefused {
        /// The device's id.
        device: String,
    },
    /// The guest has not released a device in time. The request stays pending in QEMU.
    #[error("the guest has not released device {device} within {limit:?}")]
    UnplugTimeout {
        /// The device's id.
        device: String,
        /// The time limit.
        limit: Duration,
    },
    /// No guest agent answers on the channel: none is installed, it is not yet up, or the guest
    /// hangs.
    #[error("no guest agent answers at {path} within {limit:?}")]
    GuestAgentSilent {
        /// The channel's socket on the host.
        path: PathBuf,
        /// The time limit.
        limit: Duration,
    },
    /// A process in the guest has not ended in time; it is still running there.
    #[error("process {pid} in the guest is still running after {limit:?}")]
    ExecTimeout {
        /// Its id in the guest.
        pid: i64,
        /// The time limit.
        limit: Duration,
    },
}

impl Error {
    /// QEMU's class of the error if the peer refused the command.
    #[must_use]
    pub fn refused_class(&self) -> Option<&qapi::ErrorClass> {
        match self {
            Self::Refused { class, .. } => Some(class),
            _ => None,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClosedReason {
    /// The peer closed the connection: QEMU exited or its monitor was removed.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// Reading or writing failed.
    #[error("the connection broke: {detail}")]
    Broken {
        /// The system's error.
        detail: String,
    },
    /// The peer sent a line longer than [`Config::max_line`](crate::Config::max_line).
    #[error("the peer sent a line of more than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// The peer sent a line that is no message of the protocol.
    #[error("the peer sent something that is no QMP message: {0}")]
    Garbage(#[from] ParseError),
    /// The first message was something else than a greeting, or a greeting came later.
    #[error("out of order: {found} instead of {expected}")]
    OutOfOrder {
        /// What came.
        found: &'static str,
        /// What was due.
        expected: &'static str,
    },
    /// A reply with an id that was never issued or was answered before, or without an id.
    #[error("the peer sent an unsolicited reply (id {id})")]
    UnsolicitedReply {
        /// The id as the peer sent it, shortened; `none` if it had none.
        id: String,
    },
    /// The peer did not read a command within the command's time limit.
    #[error("the peer does not read: {command} could not be sent")]
    WriteTimeout {
        /// The command.
        command: String,
    },
    /// More than [`MAX_UNANSWERED`](crate::MAX_UNANSWERED) abandoned commands have no reply.
    #[error("the peer left {unanswered} commands unanswered")]
    Unresponsive {
        /// How many.
        unanswered: usize,
    },
    /// The last handle was dropped, or the runtime ended.
    #[error("the connection was closed on this side")]
    Local,
}
