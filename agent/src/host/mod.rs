//! What this host is and can: facts, gathered without changing anything.
//!
//! Each module has a pure half (parsers, verdicts; table-tested) and a small half
//! that reads. [`kvm`] measures, [`accel`] decides what guests run on.

pub mod accel;
pub mod kvm;
