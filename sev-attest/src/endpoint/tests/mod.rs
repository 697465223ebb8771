//! Owner and guest against each other on loopback, the guest's processor simulated. In this build a
//! foreign root counts (see `appraise::clearance`), so that a secret is sent where all else is right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

pub(crate) mod guest;
mod refusals;
mod relay;
mod strangers;
mod unlocks;
