//! The CRN hypervisor agent: instances, their lives, the API and the command line.
//!
//! The map is in docs/architecture.md. Modules that decide are pure
//! ([`life`], [`qemu::plan`], [`capacity`], [`config`]); those that touch the
//! world are small and apply plans.

pub mod capacity;
pub mod cgroup;
pub mod config;
pub mod db;
pub mod doctor;
pub mod events;
pub mod fault;
pub mod host;
pub mod ids;
pub mod life;
pub mod qemu;
pub mod spec;
