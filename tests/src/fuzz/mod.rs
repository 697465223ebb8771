//! Bodies of the fuzz targets in `tests/fuzz`, one module per crate; each also replays its corpus in the
//! normal test run.

pub mod agent;
pub mod disk;
pub mod net;
pub mod qmp;
pub mod seed;
pub mod sev_attest;
