//! Fetching certificates from a service that misbehaves in every way a network has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod command;
mod failures;
mod server;
mod support;
mod trusted;
mod words;
