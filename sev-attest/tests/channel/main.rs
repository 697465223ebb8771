//! The attested channel's messages, and the released command against a simulated guest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod command;
mod messages;
mod properties;
