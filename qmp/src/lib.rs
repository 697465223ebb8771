//! A typed async client for QEMU's monitor (QMP) and for the QEMU guest agent (QGA).
//!
//! [`Qmp`] is a cheap handle to one monitor socket: any number of commands may be in flight, each
//! with its own time limit, while [`Events`] delivers what QEMU reports. [`Qga`] talks to the
//! agent inside a guest, one command at a time, and reconnects by itself.
//!
//! ```no_run
//! # async fn example() -> Result<(), qmp::Error> {
//! use qmp::{Config, Event, Qmp};
//!
//! let (qmp, mut events) = Qmp::connect("/run/vm/qmp.sock".as_ref(), &Config::default()).await?;
//! println!("QEMU {}, {}", qmp.version(), qmp.status().await?);
//! qmp.power_down().await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Shutdown { guest, reason } = event {
//!         println!("shut down by {}: {reason}", if guest { "the guest" } else { "the host" });
//!         qmp.quit().await?;
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # What it refuses
//!
//! Both peers are treated as hostile: QEMU may have been taken over by its guest, and the guest
//! agent belongs to the guest.
//!
//! - A line longer than [`Config::max_line`], a line that is no QMP message, an unsolicited reply
//!   (its id unknown, missing, or answered before) and an event of more than [`MAX_EVENT`] bytes
//!   end the connection. [`Qmp::closed`] tells every holder of a handle why ([`ClosedReason`]),
//!   and commands in flight end with [`Error::Closed`].
//! - A reply of the wrong type ends only its own command ([`Error::UnexpectedReply`]).
//! - A peer that stays silent ends each command at its time limit ([`Error::Timeout`]); the handle
//!   goes on working, and the late reply is thrown away. A peer that does not even read ends the
//!   connection ([`ClosedReason::WriteTimeout`]), and so does one that leaves more than
//!   [`MAX_UNANSWERED`] commands unanswered.
//! - Events wait in a ring of bounded size. A reader that lags loses the oldest ones, is told how
//!   many ([`Event::Lagged`]), and never delays commands or other events.
//! - Memory for one connection is bounded by about three times the longest line plus what the
//!   caller's reply type needs. Nesting deeper than serde_json's limit of 128 is refused.
//!
//! Dropping the future of a command never damages the stream: bytes are written by the
//! connection's own task, all or (if none has been written) not at all. A command whose future was
//! dropped or whose limit passed may still be carried out by QEMU.
//!
//! # Why not the streams of `qapi`
//!
//! The command and reply types are those of the crate [`qapi`]. Its own streams are not used: they
//! read lines of any length, end at the first event of unknown name or shape, treat a reply to a
//! cancelled command as an error, serialise commands when QEMU offers no out-of-band execution,
//! and can neither pass file descriptors nor resynchronise with a guest agent.

mod client;
mod commands;
mod config;
mod connect;
mod connection;
mod error;
mod event;
mod fdpass;
mod line;
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "see `testing`")
)]
mod message;
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "see `testing`")
)]
mod qga;
mod ring;
mod timestamp;

/// The parsers of what a peer sends, for the fuzz targets. No part of the interface.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    pub use crate::message::{Message, parse};
    pub use crate::qga::wire::{self, SyncScanner};
}

pub use client::{Qmp, Version};
pub use config::Config;
pub use connection::MAX_UNANSWERED;
pub use error::{ClosedReason, Error};
pub use event::{Event, ResetReason, RunState, ShutdownReason};
pub use message::{MAX_EVENT, ParseError, RawEvent};
pub use qapi;
pub use qga::{ExecResult, Qga, ShutdownMode};
pub use ring::{Events, MAX_QUEUED_BYTES, MAX_QUEUED_EVENTS};
pub use timestamp::Timestamp;
