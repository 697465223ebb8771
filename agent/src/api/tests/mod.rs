//! The API on a real unix socket, over a real database, store and tasks.
//! Instances are prepared for real and not started: what runs is tested end to end.

mod copies;
mod document;
pub(crate) mod harness;
mod hostile;
mod routes;
mod streams;
