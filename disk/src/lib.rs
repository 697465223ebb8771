//! Base images, QCOW2 overlays, persistent volumes and the cloud-init seed.

pub mod seed;
