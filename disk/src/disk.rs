//! Disks of instances: overlays over base images, and persistent volumes.
//!
//! Invariants: a disk's file appears complete and synced or not at all; an existing file is
//! never truncated, replaced or shrunk; creating the same disk again changes nothing; a disk
//! that a QEMU has open is never changed here.
//!
//! A new QCOW2 disk is three small writes and holes (see [`crate::qcow2`]): its cost is that of
//! the two `fsync`s, whatever its size.

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Flaw, ReadError},
    files::{self, NewFile, Published},
    format::Format,
    lock,
    qcow2::{
        check, grow,
        header::{Backing, Header, MAX_BACKING_NAME, backing_format},
        layout,
        limits::MAX_VIRTUAL_SIZE,
        tables::Qcow2,
    },
    units::ByteSize,
};

pub use crate::qcow2::check::CheckReport;

/// The file that an overlay shows where it has nothing of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRef {
    /// Absolute path of the base image or lower layer.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The size that it shows.
    pub virtual_size: ByteSize,
}

/// An overlay to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySpec {
    /// What it builds on.
    pub base: BaseRef,
    /// Its virtual size: a multiple of 512 bytes, at least the base's.
    pub size: ByteSize,
    /// Whether the header names the base's path and format, so that `qemu-img` and people can
    /// follow it. QEMU itself is given the whole chain explicitly and does not need it.
    pub name_base: bool,
}

impl OverlaySpec {
    /// An overlay of `size` that names its base.
    #[must_use]
    pub fn new(base: BaseRef, size: ByteSize) -> Self {
        OverlaySpec {
            base,
            size,
            name_base: true,
        }
    }
}

/// Whether a disk had to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New,
    /// The same disk existed; its content is as it was.
    Existed,
}

/// What a disk of ours is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Its format.
    pub format: Format,
    /// The size that a guest sees.
    pub virtual_size: ByteSize,
    /// Length of its file.
    pub file_size: ByteSize,
    /// Bytes that its file really occupies.
    pub allocated: ByteSize,
    /// Cluster size; `None` for raw.
    pub cluster_size: Option<ByteSize>,
    /// Path of the backing file that the header names.
    pub backing: Option<PathBuf>,
}

/// Creates an overlay at `path`, or finds that the same one is there.
///
/// # Errors
/// [`Error::Exists`] where a different file has the name; [`Error::SmallerThanBase`],
/// [`Error::ImpossibleSize`], [`Error::BasePath`]; those of the file system.
pub fn create_overlay(path: &Path, spec: &OverlaySpec) -> Result<Created, Error> {
    require_size(spec.size)?;
    if spec.size < spec.base.virtual_size {
        let base = spec.base.virtual_size;
        return Err(Error::SmallerThanBase {
            size: spec.size,
            base,
        });
    }
    let backing = if spec.name_base {
        Some(backing_of(&spec.base)?)
    } else {
        None
    };
    create_qcow2(path, spec.size, backing)
}

/// Creates an empty volume at `path`, or finds that the same one is there.
///
/// # Errors
/// [`Error::Exists`] where a different file has the name; [`Error::ImpossibleSize`]; those of the
/// file system.
pub fn create_volume(path: &Path, size: ByteSize, format: Format) -> Result<Created, Error> {
    require_size(size)?;
    match format {
        Format::Qcow2 => create_qcow2(path, size, None),
        Format::Raw => create_raw(path, size),
    }
}

/// What the disk at `path` is. A QCOW2 disk must name exactly `backing` (or no backing file).
///
/// # Errors
/// [`Error::Unusable`] where it is not such a disk; those of the file system.
pub fn info(path: &Path, format: Format, backing: Option<&BaseRef>) -> Result<DiskInfo, Error> {
    let file = files::open_read(path)?;
    let info = info_of(&file, path, format)?;
    let expected = backing.map(|b| b.path.as_path());
    if info.backing.as_deref() != expected {
        let text = |p: Option<&Path>| p.map(|p| p.display().to_string());
        let (expected, found) = (text(expected), text(info.backing.as_deref()));
        let flaw = Flaw::WrongBacking { expected, found };
        return Err(Error::Unusable {
            path: path.to_owned(),
            flaw,
        });
    }
    Ok(info)
}

/// Gives the disk at `path` a larger virtual size. The disk must not be in use; the same size is
/// no change, a smaller one is refused. So is a QCOW2 disk that reaches outside its file, whatever
/// its size: who had it last may have written its header.
///
/// # Errors
/// [`Error::InUse`] while another process has it open; [`Error::Shrink`], [`Error::Unusable`],
/// [`Error::ImpossibleSize`]; those of the file system.
pub fn grow(path: &Path, format: Format, new_size: ByteSize) -> Result<(), Error> {
    require_size(new_size)?;
    let file = files::open_write(path)?;
    lock::claim(&file, path)?;
    let current = match format {
        Format::Raw => info_of(&file, path, format)?.virtual_size,
        Format::Qcow2 => usable_size(&file, path)?,
    };
    if new_size < current {
        return Err(Error::Shrink {
            path: path.to_owned(),
            current,
            wanted: new_size,
        });
    }
    if new_size == current {
        return Ok(());
    }
    match format {
        Format::Raw => file
            .set_len(new_size.bytes())
            .and_then(|()| file.sync_all())
            .map_err(Error::io("grow", path)),
        Format::Qcow2 => grow::grow(&file, new_size.bytes()).map_err(|e| e.disk(path)),
    }
}

/// Compares the refcounts of the QCOW2 disk at `path` with its tables. Reads only; the disk must
/// not be in use.
///
/// # Errors
/// [`Error::InUse`] while another process has it open; [`Error::Unusable`] where it has no tables
/// to compare with; those of the file system.
pub fn check(path: &Path) -> Result<CheckReport, Error> {
    let file = files::open_read(path)?;
    lock::claim(&file, path)?;
    let len = file.metadata().map_err(Error::io("examine", path))?.size();
    check::check(&file, len).map_err(|e| e.disk(path))
}

/// The virtual size of a QCOW2 disk that is fit for use.
fn usable_size(file: &File, path: &Path) -> Result<ByteSize, Error> {
    let len = file.metadata().map_err(Error::io("examine", path))?.size();
    let disk = Qcow2::open(file, len).map_err(|e| e.disk(path))?;
    match disk.header.refuse_unusable() {
        Ok(()) => Ok(disk.header.virtual_size()),
        Err(flaw) => Err(Error::Unusable {
            path: path.to_owned(),
            flaw,
        }),
    }
}

fn require_size(size: ByteSize) -> Result<(), Error> {
    let max = ByteSize::from_bytes(MAX_VIRTUAL_SIZE);
    if size == ByteSize::ZERO || !size.bytes().is_multiple_of(512) || size > max {
        return Err(Error::ImpossibleSize { size, max });
    }
    Ok(())
}

/// QEMU takes an absolute path as a plain file name, whatever colons it has.
fn backing_of(base: &BaseRef) -> Result<Backing, Error> {
    match base.path.to_str() {
        Some(name)
            if base.path.is_absolute()
                && name.len() <= MAX_BACKING_NAME
                && !name.contains('\0') =>
        {
            Ok(Backing {
                name: name.to_owned(),
                format: Some(backing_format(base.format)),
            })
        }
        _ => Err(Error::BasePath {
            path: base.path.clone(),
        }),
    }
}

fn create_qcow2(path: &Path, size: ByteSize, backing: Option<Backing>) -> Result<Created, Error> {
    let header = layout::empty_header(size.bytes(), backing);
    if path.symlink_metadata().is_ok() {
        return same_qcow2(path, &header);
    }
    let empty = layout::empty(&header).ok_or_else(|| Error::BasePath {
        path: header
            .backing
            .as_ref()
            .map(|b| PathBuf::from(&b.name))
            .unwrap_or_default(),
    })?;
    let new = NewFile::create(path)?;
    let write = || {
        new.file().set_len(empty.len)?;
        for (offset, bytes) in &empty.pieces {
            new.file().write_all_at(bytes, *offset)?;
        }
        Ok(())
    };
    write().map_err(Error::io("write", path))?;
    match new.publish()? {
        Published::New => Ok(Created::New),
        Published::Existed => same_qcow2(path, &header),
    }
}

fn same_qcow2(path: &Path, wanted: &Header) -> Result<Created, Error> {
    let file = files::open_read(path)?;
    let len = file.metadata().map_err(Error::io("examine", path))?.size();
    let differs = |difference| Error::Exists {
        path: path.to_owned(),
        difference,
    };
    let found = match Qcow2::open(&file, len) {
        Ok(disk) => disk.header,
        Err(ReadError::Flaw(flaw)) => return Err(differs(flaw.to_string())),
        Err(e) => return Err(e.disk(path)),
    };
    if found.size != wanted.size {
        let (found, wanted) = (found.virtual_size(), wanted.virtual_size());
        return Err(differs(format!("it has {found}, {wanted} was asked for")));
    }
    if found.backing != wanted.backing {
        let name = |h: &Header| match &h.backing {
            Some(b) => format!(
                "{} ({})",
                b.name,
                b.format.as_deref().unwrap_or("no format")
            ),
            None => "no base".to_owned(),
        };
        let (found, wanted) = (name(&found), name(wanted));
        return Err(differs(format!(
            "it builds on {found}, {wanted} was asked for"
        )));
    }
    Ok(Created::Existed)
}

fn create_raw(path: &Path, size: ByteSize) -> Result<Created, Error> {
    if path.symlink_metadata().is_err() {
        let new = NewFile::create(path)?;
        new.file()
            .set_len(size.bytes())
            .map_err(Error::io("grow", path))?;
        if let Published::New = new.publish()? {
            return Ok(Created::New);
        }
    }
    let file = files::open_read(path)?;
    let found = file.metadata().map_err(Error::io("examine", path))?.size();
    if found == size.bytes() {
        return Ok(Created::Existed);
    }
    let found = ByteSize::from_bytes(found);
    let difference = format!("it has {found}, {size} was asked for");
    Err(Error::Exists {
        path: path.to_owned(),
        difference,
    })
}

fn info_of(file: &File, path: &Path, format: Format) -> Result<DiskInfo, Error> {
    let meta = file.metadata().map_err(Error::io("examine", path))?;
    let mut info = DiskInfo {
        format,
        virtual_size: ByteSize::from_bytes(meta.size()),
        file_size: ByteSize::from_bytes(meta.size()),
        allocated: ByteSize::from_bytes(meta.blocks().saturating_mul(512)),
        cluster_size: None,
        backing: None,
    };
    match format {
        Format::Raw => require_size(info.virtual_size)?,
        Format::Qcow2 => {
            let disk = Qcow2::open(file, meta.size()).map_err(|e| e.disk(path))?;
            info.virtual_size = disk.header.virtual_size();
            info.cluster_size = Some(ByteSize::from_bytes(disk.header.cluster_size()));
            info.backing = disk.header.backing.map(|b| b.name.into());
        }
    }
    Ok(info)
}
