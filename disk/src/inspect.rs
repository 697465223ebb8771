//! Inspection of images from outside.
//!
//! An image is a stranger's program for QEMU's block layer. Before QEMU sees one it is held
//! against the format's rules, and refused if it reaches outside itself (backing file, external
//! data file), hides something (encryption, snapshots, bitmaps), is damaged (dirty, corrupt,
//! truncated), has tables of absurd size or place, or is not the kind of file it claims to be.
//!
//! Time and memory are bounded: no table is read twice, and even an image made for it costs less
//! than 80 MiB.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Flaw, ReadError},
    format::Format,
    qcow2::{header::MAGIC, limits::MAX_VIRTUAL_SIZE, tables::Qcow2},
    units::ByteSize,
};

/// What an acceptable image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Its format.
    pub format: Format,
    /// The disk that a guest sees.
    pub virtual_size: ByteSize,
    /// Length of the file.
    pub file_size: ByteSize,
    /// Cluster size; `None` for raw.
    pub cluster_size: Option<ByteSize>,
    /// Whether some clusters are compressed.
    pub compressed: bool,
}

/// Inspects an open image: QCOW2 by its magic, raw otherwise, and nothing that is neither.
///
/// `expect` is the format that the image was announced with; another one is refused. The file's
/// position does not matter and does not change.
///
/// # Errors
/// [`Error::Refused`] with the [`Flaw`]; those of the file system.
pub fn inspect(file: &File, expect: Option<Format>) -> Result<ImageInfo, Error> {
    inspect_named(file, expect, Path::new("(open file)"))
}

/// [`inspect`], with the name to use in errors.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_named(file: &File, expect: Option<Format>, name: &Path) -> Result<ImageInfo, Error> {
    read(file, expect).map_err(|e| e.image(name))
}

fn read(file: &File, expect: Option<Format>) -> Result<ImageInfo, ReadError> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Flaw::NotRegular.into());
    }
    let len = meta.size();
    if len == 0 {
        return Err(Flaw::Empty.into());
    }
    let mut start = [0; START];
    let start = start.get_mut(..START.min(usize::try_from(len).unwrap_or(START)));
    let start = start.unwrap_or_default();
    file.read_exact_at(start, 0)?;

    let found = if start.starts_with(&MAGIC.to_be_bytes()) {
        Format::Qcow2
    } else {
        Format::Raw
    };
    match (expect, found) {
        (Some(Format::Raw), Format::Qcow2) => Err(Flaw::Pretends {
            what: "QCOW2 image",
        }
        .into()),
        (Some(Format::Qcow2), Format::Raw) => Err(match pretends(file, start, len)? {
            Some(what) => Flaw::Pretends { what },
            None => Flaw::NoMagic,
        }
        .into()),
        (_, Format::Qcow2) => qcow2(file, len),
        (_, Format::Raw) => raw(file, start, len),
    }
}

fn qcow2(file: &File, len: u64) -> Result<ImageInfo, ReadError> {
    let image = Qcow2::open_foreign(file, len)?;
    let allocated = image.walk()?;
    Ok(ImageInfo {
        format: Format::Qcow2,
        virtual_size: image.header.virtual_size(),
        file_size: ByteSize::from_bytes(len),
        cluster_size: Some(ByteSize::from_bytes(image.header.cluster_size())),
        compressed: allocated.compressed > 0,
    })
}

fn raw(file: &File, start: &[u8], len: u64) -> Result<ImageInfo, ReadError> {
    if let Some(what) = pretends(file, start, len)? {
        return Err(Flaw::Pretends { what }.into());
    }
    if !len.is_multiple_of(512) {
        return Err(Flaw::UnalignedLength { len }.into());
    }
    if len > MAX_VIRTUAL_SIZE {
        return Err(Flaw::VirtualSize {
            size: len,
            max: MAX_VIRTUAL_SIZE,
        }
        .into());
    }
    Ok(ImageInfo {
        format: Format::Raw,
        virtual_size: ByteSize::from_bytes(len),
        file_size: ByteSize::from_bytes(len),
        cluster_size: None,
        compressed: false,
    })
}

/// Bytes at the start of a file that [`SIGNATURES`] looks at.
const START: usize = 512;

/// Offset, magic bytes, and what begins with them. QEMU probes most of these; the others are
/// what a wrong download link gives.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "QCOW image"),
    (0, b"QED\0", "QED image"),
    (0, b"KDMV", "VMDK image"),
    (0, b"COWD", "VMDK image"),
    (0, b"# Disk DescriptorFile", "VMDK descriptor"),
    (64, b"\x7f\x10\xda\xbe", "VDI image"),
    (0, b"vhdxfile", "VHDX image"),
    (0, b"conectix", "VHD image"),
    (0, b"LUKS\xba\xbe", "LUKS volume"),
    (0, b"WithoutFreeSpace", "Parallels image"),
    (0, b"WithouFreSpacExt", "Parallels image"),
    (0, b"Bochs Virtual HD Image", "Bochs image"),
    (0, b"#!/bin/sh\n#V2.0 Format", "cloop image"),
    (0, b"\x1f\x8b", "gzip file: decompress it first"),
    (0, b"\xfd7zXZ\0", "xz file: decompress it first"),
    (0, b"\x28\xb5\x2f\xfd", "zstd file: decompress it first"),
    (0, b"BZh", "bzip2 file: decompress it first"),
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (257, b"ustar", "tar archive"),
    (0, b"<!DOCTYPE", "web page"),
    (0, b"<!doctype", "web page"),
    (0, b"<html", "web page"),
    (0, b"<?xml", "XML document"),
    (0, b"\x7fELF", "ELF program"),
];

/// Formats that are recognised by the last 512 bytes.
const FOOTERS: &[(&[u8], &str)] = &[(b"conectix", "VHD image"), (b"koly", "DMG image")];

/// What a file that should be raw really is.
fn pretends(file: &File, start: &[u8], len: u64) -> io::Result<Option<&'static str>> {
    for &(at, magic, what) in SIGNATURES {
        if start.get(at..).is_some_and(|s| s.starts_with(magic)) {
            return Ok(Some(what));
        }
    }
    if let Some(at) = len.checked_sub(512) {
        let mut footer = [0; 8];
        file.read_exact_at(&mut footer, at)?;
        for &(magic, what) in FOOTERS {
            if footer.starts_with(magic) {
                return Ok(Some(what));
            }
        }
    }
    Ok(None)
}
