//! What tests that start real QEMUs have in common. It knows the agent's libraries, not the
//! agent: hosts with an agent on them are in `tests::harness`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

pub mod boot_sector;
pub mod network;
pub mod proc;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Waits until `check` gives something; fails after `limit`.
///
/// # Panics
/// When it does not in time.
pub fn until<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "{what}: not within {} s",
            limit.as_secs()
        );
        sleep(Duration::from_millis(10));
    }
}
