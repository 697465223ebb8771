//! Verification of reports: real ones, simulated ones, and all that must be refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod assembling;
mod command;
mod exhaustive;
mod formats;
mod forms;
mod negative;
mod peer_sev;
mod policies;
mod properties;
mod support;
mod tcb_worth;
mod vectors;
mod verdict;
mod words;
