//! End-to-end test harness: a host, an internet and guests made of namespaces and real QEMU.

pub mod conformance;
pub mod fuzz;
pub mod harness;
