//! Launch digests: against the reference implementation, on hostile firmware, and by the command.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod command;
mod cpus;
mod hostile;
mod idblock;
mod igvm;
mod properties;
mod published;
mod reference;
mod support;
