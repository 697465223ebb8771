//! The crate's one error type.
//!
//! [`Error`] says what was attempted on which file; [`Flaw`] names the one thing that is wrong
//! with an image. Both are `Clone`, because one download can be awaited by several callers.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    digest::{Digest, Sha256},
    format::Format,
    layers::ChainError,
    sums::SumsError,
    units::ByteSize,
};

/// Everything that can go wrong with images, disks and downloads.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was attempted, as a verb ("open", "sync").
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },

    /// An image is not acceptable; nothing was stored or changed.
    #[error("image {image} is refused: {flaw}")]
    Refused {
        /// File name or URL of the image.
        image: String,
        /// What is wrong with it.
        flaw: Flaw,
    },

    /// One of the agent's own disks is not what it should be.
    #[error("disk {path} is unusable: {flaw}")]
    Unusable {
        /// The disk.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },

    /// A file of that name exists and is something else; it was left alone.
    #[error("{path} exists already and differs: {difference}; it was not touched")]
    Exists {
        /// The existing file.
        path: PathBuf,
        /// Wanted and found, in words.
        difference: String,
    },

    /// A size that no disk can have.
    #[error(
        "disk size {size} is not possible: it must be a multiple of 512 bytes, above 0 and at most {max}"
    )]
    ImpossibleSize {
        /// The size asked for.
        size: ByteSize,
        /// The largest disk supported.
        max: ByteSize,
    },

    /// The disk would be smaller than the image it shows.
    #[error("a disk of {size} cannot hold its base image of {base}; ask for at least that much")]
    SmallerThanBase {
        /// The size asked for.
        size: ByteSize,
        /// Virtual size of the base image.
        base: ByteSize,
    },

    /// A disk never shrinks.
    #[error("{path} has {current}; shrinking it to {wanted} would destroy data and is never done")]
    Shrink {
        /// The disk.
        path: PathBuf,
        /// Its size now.
        current: ByteSize,
        /// The size asked for.
        wanted: ByteSize,
    },

    /// A backing path that QEMU could not follow.
    #[error(
        "base path {path:?} cannot be named in a QCOW2 header: it must be absolute, UTF-8, without NUL and at most 1023 bytes"
    )]
    BasePath {
        /// The path.
        path: PathBuf,
    },

    /// Another process has the disk open.
    #[error("{path} is in use by another process (a running QEMU?); stop that first")]
    InUse {
        /// The disk.
        path: PathBuf,
    },

    /// The store's directory is held by another agent.
    #[error("image store {path} is in use by another process")]
    StoreInUse {
        /// The store's root.
        path: PathBuf,
    },

    /// The content is not what was announced.
    #[error("{what} has digest {found}, expected {expected}; nothing was stored")]
    DigestMismatch {
        /// File name or URL.
        what: String,
        /// The digest asked for.
        expected: Box<Digest>,
        /// The digest of the content.
        found: Box<Digest>,
    },

    /// An image in the store no longer has the content it is named for.
    #[error(
        "stored image {path} is damaged: its content has digest {found}; pull or import it again, which mends it"
    )]
    Damaged {
        /// The image's file.
        path: PathBuf,
        /// The digest that its content has now.
        found: Sha256,
    },

    /// The store has no such image.
    #[error("no image {digest} in the store")]
    NotFound {
        /// The digest asked for.
        digest: Digest,
    },

    /// Larger than the caller allows.
    #[error("{what} is {size} long, holes counted: more than the {max} of images.max_mib")]
    TooLarge {
        /// File name or URL.
        what: String,
        /// Its size (for a download without a length: what has arrived).
        size: ByteSize,
        /// The limit.
        max: ByteSize,
    },

    /// The file system has not enough room.
    #[error("not enough space in {dir}: {needed} needed, {free} free")]
    NoSpace {
        /// The directory to be written to.
        dir: PathBuf,
        /// Bytes still to be written, with the reserve.
        needed: ByteSize,
        /// Bytes free now.
        free: ByteSize,
    },

    /// A URL that may not be downloaded from.
    #[error("{url} is refused: {reason}")]
    Url {
        /// The URL, without credentials.
        url: String,
        /// Why.
        reason: &'static str,
    },

    /// The server answered with an error status.
    #[error("{url}: the server answers {status}")]
    Status {
        /// The URL.
        url: String,
        /// HTTP status code.
        status: u16,
        /// Its `Retry-After`, where given.
        retry_after: Option<Duration>,
    },

    /// The connection failed or broke.
    #[error("{url}: {reason}")]
    Transfer {
        /// The URL.
        url: String,
        /// What happened, with its causes.
        reason: String,
    },

    /// The server sent nothing for too long.
    #[error("{url}: no data for {}", humantime(*.after))]
    Stalled {
        /// The URL.
        url: String,
        /// The time limit that passed.
        after: Duration,
    },

    /// The server broke the rules of HTTP ranges.
    #[error("{url}: {reason}")]
    Protocol {
        /// The URL.
        url: String,
        /// The rule that was broken.
        reason: &'static str,
    },

    /// The content kept changing while it was downloaded.
    #[error("{url}: the content changed on the server during the download; try again")]
    Changed {
        /// The URL.
        url: String,
    },

    /// Too many attempts.
    #[error("giving up after {attempts} attempts without progress: {last}")]
    GaveUp {
        /// How many attempts failed in a row.
        attempts: u32,
        /// The last failure.
        last: Box<Error>,
    },

    /// The list of digests is not usable.
    #[error("digest list {url}: {reason}")]
    Sums {
        /// URL of the list.
        url: String,
        /// What is wrong with it.
        reason: SumsError,
    },

    /// The download's task ended without a result.
    #[error("the download of {url} was interrupted; what arrived is kept for the next attempt")]
    Interrupted {
        /// The URL.
        url: String,
    },

    /// Layers that form no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// What is wrong with an image. Offsets and sizes are in bytes.
///
/// Field names are those of QEMU's docs/interop/qcow2.rst.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each field is named in the sentence above it")]
pub enum Flaw {
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is empty")]
    Empty,
    #[error("its {found} format was not asked for: {expected} was")]
    WrongFormat { expected: Format, found: Format },
    #[error("it is not a raw disk but {what}")]
    Pretends { what: &'static str },
    #[error("it is a {how} file that cannot be unpacked: {why}")]
    Packed { how: &'static str, why: String },
    #[error("it cannot be read here: {why}")]
    Unreadable { why: String },
    #[error("its length {len} is no multiple of 512")]
    UnalignedLength { len: u64 },
    #[error("it is truncated: {len} bytes are no QCOW2 header")]
    ShortHeader { len: u64 },
    #[error("it has no QCOW2 magic")]
    NoMagic,
    #[error("QCOW2 version {version} is unknown (2 and 3 are known)")]
    Version { version: u32 },
    #[error("cluster_bits {bits} is outside 9 to 21")]
    ClusterBits { bits: u32 },
    #[error("refcount_order {order} is above 6")]
    RefcountOrder { order: u32 },
    #[error("header_length {length} is impossible")]
    HeaderLength { length: u32 },
    #[error("virtual size {size} is impossible (a multiple of 512, above 0, at most {max})")]
    VirtualSize { size: u64, max: u64 },
    #[error(
        "it names a backing file ({name:?}): images must stand alone (`qemu-img convert` makes them so)"
    )]
    BackingFile { name: String },
    #[error("its backing file is {found:?}, not {expected:?}")]
    WrongBacking {
        expected: Option<String>,
        found: Option<String>,
    },
    #[error(
        "its backing file name ({len} bytes at {offset}) is outside the first cluster, above 1023 bytes or no UTF-8"
    )]
    BackingName { offset: u64, len: u32 },
    #[error("it keeps its data in an external file: images must stand alone")]
    ExternalData,
    #[error("it is encrypted (crypt_method {method})")]
    Encrypted { method: u32 },
    #[error("unknown incompatible_features bits {bits:#x}")]
    UnknownIncompatible { bits: u64 },
    #[error("it is marked dirty: it was not closed properly; `qemu-img check -r all` repairs it")]
    Dirty,
    #[error("it is marked corrupt; `qemu-img check -r all` may repair it")]
    Corrupt,
    #[error("its compression type {kind} is unknown or does not match its feature bit")]
    Compression { kind: u8 },
    #[error("extended L2 entries need clusters of 16 KiB or more")]
    ExtendedL2,
    #[error(
        "it holds {count} internal snapshots: images must be flat (`qemu-img convert` makes them so)"
    )]
    Snapshots { count: u32 },
    #[error("it holds persistent bitmaps: images must be plain (`qemu-img convert` makes them so)")]
    Bitmaps,
    #[error("header extension {kind:#010x} ({length} bytes at {offset}) overlaps what follows")]
    ExtensionOverlap { kind: u32, offset: u64, length: u32 },
    #[error("header extension {kind:#010x} appears twice")]
    ExtensionTwice { kind: u32 },
    #[error("more than {max} header extensions")]
    TooManyExtensions { max: usize },
    #[error("{table} of {size} bytes at {offset}: above the limit of {max} bytes")]
    TableSize {
        table: Table,
        offset: u64,
        size: u64,
        max: u64,
    },
    #[error("{table} at {offset} is not aligned to a cluster")]
    TableAlignment { table: Table, offset: u64 },
    #[error("{table} ({size} bytes at {offset}) reaches beyond the file's {len} bytes: truncated?")]
    TableBeyondFile {
        table: Table,
        offset: u64,
        size: u64,
        len: u64,
    },
    #[error("{a} and {b} overlap")]
    TablesOverlap { a: Table, b: Table },
    #[error("there is no refcount table")]
    NoRefcountTable,
    #[error("an L1 table of {entries} entries is too small for the virtual size ({needed} needed)")]
    L1TooSmall { entries: u32, needed: u64 },
    #[error("{table} entry {index} ({entry:#018x}) has reserved bits set")]
    ReservedBits {
        table: Table,
        index: u64,
        entry: u64,
    },
    #[error("{table} entry {index} points to {offset}, which is not aligned to a cluster")]
    EntryAlignment {
        table: Table,
        index: u64,
        offset: u64,
    },
    #[error("{table} entry {index} points to {offset}, beyond the file's {len} bytes: truncated?")]
    EntryBeyondFile {
        table: Table,
        index: u64,
        offset: u64,
        len: u64,
    },
    #[error("{table} entry {index} points to {offset}, which another entry uses too")]
    EntryTwice {
        table: Table,
        index: u64,
        offset: u64,
    },
    #[error("L2 table entry {index} points to {offset}, which is metadata")]
    EntryToMetadata { index: u64, offset: u64 },
    #[error(
        "L2 table entry {index} has a bitmap of subclusters ({bitmap:#018x}) that contradicts itself or the entry"
    )]
    Subclusters { index: u64, bitmap: u64 },
    #[error("{what} is not supported here")]
    Unsupported { what: &'static str },
}

/// A metadata structure of a QCOW2 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are QCOW2's own")]
pub enum Table {
    Header,
    L1,
    L2,
    RefcountTable,
    RefcountBlock,
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Table::Header => "header",
            Table::L1 => "L1 table",
            Table::L2 => "L2 table",
            Table::RefcountTable => "refcount table",
            Table::RefcountBlock => "refcount block",
        })
    }
}

impl Error {
    /// Whether the same request may succeed later although nobody changes it: the network or the
    /// server was in the way, not the content.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Status { .. }
                | Self::Transfer { .. }
                | Self::Stalled { .. }
                | Self::Protocol { .. }
                | Self::Changed { .. }
                | Self::GaveUp { .. }
                | Self::Interrupted { .. }
                | Self::NoSpace { .. }
        )
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            what,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn sys(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Error {
        move |errno| Error::io(what, path)(errno.into())
    }

    /// A file from outside that could not even be opened as one.
    pub(crate) fn into_refusal(self) -> Error {
        match self {
            Error::Unusable {
                path,
                flaw: flaw @ Flaw::NotRegular,
            } => Error::Refused {
                image: path.display().to_string(),
                flaw,
            },
            other => other,
        }
    }

    /// The flaw, where an image or disk was refused for one.
    #[must_use]
    pub fn flaw(&self) -> Option<&Flaw> {
        match self {
            Error::Refused { flaw, .. } | Error::Unusable { flaw, .. } => Some(flaw),
            _ => None,
        }
    }
}

/// Reading metadata fails either because of the file system or because of the content; callers
/// add whose file it is.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    Flaw(Flaw),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<Flaw> for ReadError {
    fn from(flaw: Flaw) -> Self {
        ReadError::Flaw(flaw)
    }
}

impl ReadError {
    /// As an error about an image from outside.
    pub(crate) fn image(self, path: &Path) -> Error {
        match self {
            ReadError::Io(e) => Error::io("read", path)(e),
            ReadError::Flaw(flaw) => Error::Refused {
                image: path.display().to_string(),
                flaw,
            },
        }
    }

    /// As an error about a disk of our own.
    pub(crate) fn disk(self, path: &Path) -> Error {
        match self {
            ReadError::Io(e) => Error::io("read", path)(e),
            ReadError::Flaw(flaw) => Error::Unusable {
                path: path.to_owned(),
                flaw,
            },
        }
    }
}

fn humantime(d: Duration) -> String {
    if d.as_secs() > 0 {
        format!("{} s", d.as_secs())
    } else {
        format!("{} ms", d.as_millis())
    }
}
