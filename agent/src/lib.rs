//! The CRN hypervisor agent: instances, their lives, the API and the command line.
//!
//! The map is in docs/architecture.md. Modules that decide are pure (`life`,
//! `qemu::plan`, `capacity`, `config`); those that touch the world are small and
//! apply plans. Others use the program only, so [`cli`] alone is public: the compiler
//! sees what nobody calls.

#![allow(
    unreachable_pub,
    reason = "`pub` is what a module offers to the others; none of it is the world's"
)]

mod api;
mod backoff;
mod capacity;
mod cgroup;
pub mod cli;
mod client;
mod config;
mod copying;
mod db;
mod doctor;
mod events;
mod fault;
mod fs;
mod guest_net;
mod host;
mod ids;
mod images;
mod instance;
mod life;
mod locks;
mod mounts;
mod node;
mod ops;
mod paths;
mod qemu;
mod reconcile;
mod reserve;
mod serve;
mod spec;
mod tasks;
mod volume;

#[cfg(feature = "testing")]
pub mod testing;
