//! The largest sizes that are read or written.

/// Largest virtual size of any disk or image, in bytes: 16 TiB, ext4's largest file, which a
/// raw copy of the disk must fit in.
pub const MAX_VIRTUAL_SIZE: u64 = 16 << 40;

/// Largest L1 table that QEMU opens (`QCOW_MAX_L1_SIZE`), in bytes.
pub(crate) const MAX_L1_SIZE: u64 = 32 << 20;

/// Largest refcount table that QEMU opens (`QCOW_MAX_REFTABLE_SIZE`), in bytes.
pub(crate) const MAX_REFTABLE_SIZE: u64 = 8 << 20;
