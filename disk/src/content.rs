//! What a guest sees of a disk, copied into a disk of its own: exports, and volumes made of files.
//!
//! `imago` reads the layers and writes the new disk. QEMU may have written anything into a disk that
//! it had: what a header names is never opened, only the layers that the caller names, and each is
//! inspected before.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, file::File as Storage,
    qcow2::Qcow2, raw::Raw,
};

use crate::{
    disk::{BaseRef, info},
    error::{Error, Flaw},
    files::{self, NewFile, Published},
    format::Format,
    inspect::inspect_named,
    lock,
    qcow2::layout,
    space,
    store::Progress,
    units::ByteSize,
};

/// Most bytes that are copied at once, and that lie in memory.
const STEP: u64 = 1 << 20;
/// Space that a copy leaves free.
const RESERVE: ByteSize = ByteSize::from_mib(256);
/// Bytes written between two looks at the free space.
const SPACE_STEP: u64 = 64 << 20;

type Disk = FormatAccess<Storage>;

/// A disk to copy: what a guest sees of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its file. No QEMU may have it open.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// What it is layered over.
    pub base: Option<BaseRef>,
}

/// Copies what a guest sees of a disk into a new QCOW2 file, which stands alone and only its owner
/// can read. `stop` ends it early.
///
/// # Errors
/// [`Error::InUse`] while another process has the disk open; [`Error::Exists`] where a file has the
/// target's name; [`Error::Unusable`] of a disk that is not what it should be, or that has features
/// which only QEMU reads (zstd compression, extended L2 entries); [`Error::NoSpace`],
/// [`Error::Interrupted`]; those of the file system. No file is left then.
pub fn export(
    content: &Content,
    target: &Path,
    stop: &AtomicBool,
    progress: impl FnMut(Progress),
) -> Result<ByteSize, Error> {
    let path = &content.path;
    let size = match content.format {
        Format::Qcow2 => info(path, Format::Qcow2, content.base.as_ref())?.virtual_size,
        Format::Raw => info(path, Format::Raw, None)?.virtual_size,
    };
    let file = files::open_read(path)?;
    lock::claim(&file, path)?;
    let base = content.base.as_ref().map(open_base).transpose()?;
    let source = open(&file, content.format, base, path)?;
    copy(&source, path, size, target, stop, progress)?;
    Ok(size)
}

/// Makes a QCOW2 disk of `size` (that of the file's disk, where it is larger, is an error) out of a
/// file of this host: raw or QCOW2, inspected as an image is. The file is only read.
///
/// # Errors
/// [`Error::Refused`], [`Error::SmallerThanBase`]; as [`export`].
pub fn make_from(
    source: &Path,
    format: Option<Format>,
    size: Option<ByteSize>,
    target: &Path,
    stop: &AtomicBool,
    progress: impl FnMut(Progress),
) -> Result<ByteSize, Error> {
    let file = files::open_read(source).map_err(Error::into_refusal)?;
    lock::refuse_writer(&file, source)?;
    let found = inspect_named(&file, format, source)?;
    let size = size.unwrap_or(found.virtual_size);
    if size < found.virtual_size {
        return Err(Error::SmallerThanBase {
            size,
            base: found.virtual_size,
        });
    }
    let disk = open(&file, found.format, None, source)?;
    copy(&disk, source, size, target, stop, progress)?;
    // Who began to write in between may have torn the copy.
    if let Err(e) = lock::refuse_writer(&file, source) {
        files::remove(target)?;
        return Err(e);
    }
    Ok(size)
}

/// What a file of this host would be as a disk, for [`make_from`].
///
/// # Errors
/// [`Error::Refused`]; those of the file system.
pub fn size_of(source: &Path, format: Option<Format>) -> Result<ByteSize, Error> {
    let file = files::open_read(source).map_err(Error::into_refusal)?;
    Ok(inspect_named(&file, format, source)?.virtual_size)
}

fn open_base(base: &BaseRef) -> Result<Disk, Error> {
    let file = files::open_read(&base.path)?;
    // A base stands alone: it was inspected when it was stored, and is again.
    inspect_named(&file, Some(base.format), &base.path)?;
    open(&file, base.format, None, &base.path)
}

/// The layer as imago sees it. Nothing that its header names is opened.
fn open(file: &File, format: Format, base: Option<Disk>, path: &Path) -> Result<Disk, Error> {
    let unreadable = |e: io::Error| Error::Unusable {
        path: path.to_owned(),
        flaw: Flaw::Unreadable { why: e.to_string() },
    };
    let storage = file
        .try_clone()
        .and_then(Storage::try_from)
        .map_err(Error::io("open", path))?;
    let gate = DenyImplicitOpenGate::default();
    match format {
        Format::Qcow2 => Qcow2::<Storage>::builder(storage)
            .backing(base)
            .open(gate)
            .map(Disk::new)
            .map_err(unreadable),
        Format::Raw => Raw::builder(storage)
            .open(gate)
            .map(Disk::new)
            .map_err(unreadable),
    }
}

fn copy(
    source: &Disk,
    name: &Path,
    size: ByteSize,
    target: &Path,
    stop: &AtomicBool,
    mut progress: impl FnMut(Progress),
) -> Result<(), Error> {
    let new = NewFile::create(target)?;
    let write = |e| Error::io("write", target)(e);
    layout::write_empty(new.file(), size.bytes()).map_err(write)?;
    let storage = new
        .file()
        .try_clone()
        .and_then(Storage::try_from)
        .map_err(write)?;
    let made = Qcow2::<Storage>::builder(storage)
        .backing(None)
        .write(true)
        .open(DenyImplicitOpenGate::default())
        .map(Disk::new)
        .map_err(write)?;
    let dir = files::parent(target);
    let mut block = Vec::new();
    let end = source.size().min(size.bytes());
    let (mut at, mut written, mut space_at) = (0, 0, 0);
    while at < end {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted {
                url: name.display().to_string(),
            });
        }
        let (mapping, len) = source
            .get_mapping(at, end - at)
            .map_err(Error::io("read", name))?;
        let is_hole = matches!(mapping, Mapping::Zero { .. } | Mapping::Eof { .. });
        if is_hole && len > 0 {
            at += len.min(end - at);
        } else {
            let len = STEP.min(end - at);
            block.clear();
            block.resize(usize::try_from(len).unwrap_or_default(), 0);
            source
                .read(&mut block, at)
                .map_err(Error::io("read", name))?;
            if block.iter().any(|&b| b != 0) {
                if written >= space_at {
                    space::require(dir, SPACE_STEP, RESERVE)?;
                    space_at = written + SPACE_STEP;
                }
                made.write(&block, at).map_err(write)?;
                written += len;
            }
            at += len;
        }
        progress(Progress::new(at, Some(end)));
    }
    made.flush().map_err(write)?;
    drop(made);
    match new.publish()? {
        Published::New => Ok(()),
        Published::Existed => Err(Error::Exists {
            path: target.to_owned(),
            difference: "it was there before".to_owned(),
        }),
    }
}
