//! What the tests that start virtual machines have in common.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod network;
pub(crate) mod proc;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Waits until `check` gives something; fails after `limit`.
pub(crate) fn until<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
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
