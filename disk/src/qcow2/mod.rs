//! QCOW2 metadata: read with suspicion, written with care.
//!
//! Field names, limits and rules are those of QEMU's docs/interop/qcow2.rst and block/qcow2.c.
//!
//! The crate has its own small reader and writer, because what there is does not fit an agent
//! that faces strangers' images: `qcow2-rs` reads and writes guest data well, and the tests use
//! it as an independent reader of what is written here; but it cannot write a backing file into
//! a header, takes offsets and sizes from the file without comparing them with the file's
//! length, asserts and unwraps on what it reads, never syncs a new file, and brings an io_uring
//! runtime, a command line parser and a logger with it (and turns every user of `log` silent in
//! release builds).
//!
//! - [`header`]: the header and its extensions, bytes to fields and back; pure
//! - [`layout`]: where tables may lie, and the image of an empty disk; pure
//! - [`tables`]: L1, L2 and refcount tables of a file, read in bounded memory
//! - [`check`]: are refcounts what the tables say?
//! - [`grow`]: a larger virtual size for a disk that is not in use

pub mod header;

pub(crate) mod check;
pub(crate) mod grow;
pub(crate) mod layout;
pub(crate) mod tables;

/// Largest virtual size of any disk or image, in bytes: 16 TiB, ext4's largest file, which a
/// raw copy of the disk must fit in.
pub const MAX_VIRTUAL_SIZE: u64 = 16 << 40;

/// Largest L1 table that QEMU opens (`QCOW_MAX_L1_SIZE`), in bytes.
pub(crate) const MAX_L1_SIZE: u64 = 32 << 20;

/// Largest refcount table that QEMU opens (`QCOW_MAX_REFTABLE_SIZE`), in bytes.
pub(crate) const MAX_REFTABLE_SIZE: u64 = 8 << 20;

/// Bits 9 to 55 of an L1, L2 or refcount table entry: the offset.
pub(crate) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// Bit 63 of an L1 or L2 entry: the refcount is exactly one.
pub(crate) const COPIED: u64 = 1 << 63;

/// Bit 62 of an L2 entry: a compressed cluster.
pub(crate) const COMPRESSED: u64 = 1 << 62;
