//! What tests and fuzz targets look at beside the crate's own interface.

/// QCOW2 headers.
pub mod qcow2 {
    pub use crate::qcow2::{header::*, limits::MAX_VIRTUAL_SIZE};
}

/// The image that a seed is.
pub mod iso9660 {
    pub use crate::seed::iso9660::*;
}

/// Digest lists.
pub mod sums {
    pub use crate::sums::*;
}

pub use crate::store::fuzz_partial_record as partial_record;
