//! The CRN hypervisor agent: instances, their lives, the API and the command line.
//!
//! The map is in docs/architecture.md. Modules that decide are pure
//! ([`life`], [`qemu::plan`], [`capacity`], [`config`]); those that touch the
//! world are small and apply plans.

pub mod api;
pub mod capacity;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod config;
pub mod db;
pub mod doctor;
pub mod events;
pub mod fault;
pub mod fs;
pub mod guest_net;
pub mod host;
pub mod ids;
pub mod images;
pub mod instance;
pub mod life;
pub(crate) mod locks;
pub mod mounts;
pub mod node;
pub mod ops;
pub mod paths;
pub mod qemu;
pub mod reconcile;
pub mod reserve;
pub mod serve;
pub mod spec;
pub mod tasks;
pub mod volume;
