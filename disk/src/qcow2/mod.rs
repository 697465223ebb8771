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
//! - [`limits`]: largest sizes
//! - [`layout`]: where tables may lie, and the image of an empty disk; pure
//! - [`tables`]: L1, L2 and refcount tables of a file, read in bounded memory
//! - [`check`]: are refcounts what the tables say?
//! - [`first`]: the first sector of a disk, as its guest sees it
//! - [`grow`]: a larger virtual size for a disk that is not in use

pub(crate) mod check;
mod first;
pub(crate) mod grow;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod limits;
pub(crate) mod tables;
