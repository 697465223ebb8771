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
    /// Whether the first sector has the mark of a disk that a firmware boots from (55 AA; GPT has
    /// it too). `None` where only QEMU reads it. Without it a guest most likely finds "not a
    /// bootable disk".
    #[serde(default)]
    pub boot_mark: Option<bool>,
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
            what: "a QCOW2 image",
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
        boot_mark: image.first_sector()?.map(|start| has_boot_mark(&start)),
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
        boot_mark: Some(has_boot_mark(start)),
    })
}

/// Bytes at the start of a file that [`SIGNATURES`] looks at.
const START: usize = 512;

/// Offset, magic bytes, and what begins with them. QEMU probes most of these; the others are
/// what a wrong download link gives.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xfb", "a QCOW image"),
    (
        0,
        b"QED\0",
        "a QED image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (
        0,
        b"KDMV",
        "a VMDK image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (
        0,
        b"COWD",
        "a VMDK image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (
        0,
        b"# Disk DescriptorFile",
        "a VMDK descriptor, without the disk",
    ),
    (
        64,
        b"\x7f\x10\xda\xbe",
        "a VDI image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (
        0,
        b"vhdxfile",
        "a VHDX image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (
        0,
        b"conectix",
        "a VHD image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (
        0,
        b"WithoutFreeSpace",
        "a Parallels image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (
        0,
        b"WithouFreSpacExt",
        "a Parallels image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (0, b"Bochs Virtual HD Image", "a Bochs image"),
    (0, b"#!/bin/sh\n#V2.0 Format", "a cloop image"),
    (0, b"\x1f\x8b", "a gzip file: decompress it first"),
    (0, b"\xfd7zXZ\0", "an xz file: decompress it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file: decompress it first"),
    (0, b"BZh", "a bzip2 file: decompress it first"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file: decompress it first"),
    (0, b"\x5d\0\0\x80\0", "an lzma file: decompress it first"),
    (0, b"PK\x03\x04", "a zip archive: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (0, b"Rar!\x1a\x07", "a rar archive: unpack it first"),
    (0, b"xar!", "a xar archive: unpack it first"),
    (257, b"ustar", "a tar archive (an OVA?): unpack it first"),
    (
        0,
        b"VMA\0",
        "a Proxmox backup (vma): extract its disk first",
    ),
    (0, b"hsqs", "a squashfs file system, which is no disk"),
    (
        0,
        b"\x3a\xff\x26\xed",
        "an Android sparse image: convert it with simg2img",
    ),
    (0, b"MSWIM\0\0\0", "a Windows image (wim)"),
    (0, b"\x7fELF", "an ELF program"),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, without the file",
    ),
];

/// Texts that servers send instead of a file, in lower case, after blanks.
const TEXTS: &[(&str, &str)] = &[
    ("<!doctype", "a web page"),
    ("<html", "a web page"),
    ("<?xml", "an XML document"),
    ("{\"", "a JSON document"),
];

/// Formats that are recognised by the last 512 bytes.
const FOOTERS: &[(&[u8], &str)] = &[
    (
        b"conectix",
        "a VHD image: `qemu-img convert -O qcow2` makes an image of it",
    ),
    (b"koly", "a DMG image"),
];

/// 55 AA at the end of the first sector: MBR, the protective MBR of GPT, hybrid ISO, boot sector.
fn has_boot_mark(start: &[u8]) -> bool {
    start.get(510..512) == Some(&[0x55, 0xaa])
}

/// What a file that should be raw really is.
fn pretends(file: &File, start: &[u8], len: u64) -> io::Result<Option<&'static str>> {
    for &(at, magic, what) in SIGNATURES {
        if start.get(at..).is_some_and(|s| s.starts_with(magic)) {
            return Ok(Some(what));
        }
    }
    let text: String = start
        .trim_ascii_start()
        .iter()
        .take(16)
        .map(|b| char::from(b.to_ascii_lowercase()))
        .collect();
    if let Some((_, what)) = TEXTS.iter().find(|(begin, _)| text.starts_with(begin)) {
        return Ok(Some(what));
    }
    // An EFI program; a disk whose boot code begins so has the mark of one.
    if start.starts_with(b"MZ") && !has_boot_mark(start) {
        return Ok(Some("an EFI or DOS program"));
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
