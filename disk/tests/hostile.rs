//! Images from outside that must be refused, one line each, before QEMU sees them and cheaply.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use disk::{ByteSize, Error, Flaw, Format, ImageStore, Import, StoreOptions, inspect};
use disk_support::{change64, empty_image, full_image, get64, put32, put64};

const CLUSTER: usize = 64 << 10;
/// Where the tables of our images are: refcount table, refcount block, L1.
const REFTABLE: usize = CLUSTER;
const L1: usize = 3 * CLUSTER;
const COPIED: u64 = 1 << 63;

type Bend = fn(&mut Vec<u8>);
type Check = fn(&Flaw) -> bool;

/// An extension after the header of our empty image (which has none), and the end mark.
fn extension(image: &mut [u8], at: usize, kind: u32, length: u32) -> usize {
    put32(image, at, kind);
    put32(image, at + 4, length);
    at + 8 + (length as usize).next_multiple_of(8)
}

fn backing(image: &mut [u8], name: &str) {
    put64(image, 8, 256);
    put32(image, 16, name.len() as u32);
    image[256..256 + name.len()].copy_from_slice(name.as_bytes());
}

/// Bent from an empty QCOW2 image.
const HEADERS: &[(&str, Bend, Check)] = &[
    (
        "a backing file",
        |i| backing(i, "/etc/shadow"),
        |f| matches!(f, Flaw::BackingFile { name } if name == "/etc/shadow"),
    ),
    (
        "a backing file in JSON",
        |i| backing(i, r#"json:{"driver":"nbd","host":"10.0.0.1"}"#),
        |f| matches!(f, Flaw::BackingFile { .. }),
    ),
    (
        "a backing file with a protocol",
        |i| backing(i, "nbd:unix:/run/x"),
        |f| matches!(f, Flaw::BackingFile { .. }),
    ),
    (
        "a backing file without a name",
        |i| put64(i, 8, 256),
        |f| matches!(f, Flaw::BackingName { .. }),
    ),
    (
        "a backing file name beyond the first cluster",
        |i| {
            put64(i, 8, CLUSTER as u64 - 4);
            put32(i, 16, 8);
        },
        |f| matches!(f, Flaw::BackingName { .. }),
    ),
    (
        "a backing file name in the header itself",
        |i| {
            put64(i, 8, 4);
            put32(i, 16, 8);
        },
        |f| matches!(f, Flaw::BackingName { .. }),
    ),
    (
        "a backing file name of 4 GiB",
        |i| {
            put64(i, 8, 256);
            put32(i, 16, u32::MAX);
        },
        |f| matches!(f, Flaw::BackingName { .. }),
    ),
    (
        "a backing file name at the end of all numbers",
        |i| {
            put64(i, 8, u64::MAX - 3);
            put32(i, 16, 8);
        },
        |f| matches!(f, Flaw::BackingName { .. }),
    ),
    (
        "a backing file name with a NUL",
        |i| backing(i, "/etc/\0"),
        |f| matches!(f, Flaw::BackingName { .. }),
    ),
    (
        "an external data file",
        |i| put64(i, 72, 1 << 2),
        |f| matches!(f, Flaw::ExternalData),
    ),
    (
        "the name of an external data file",
        |i| {
            extension(i, 112, 0x4441_5441, 11);
            i[120..131].copy_from_slice(b"/etc/shadow");
        },
        |f| matches!(f, Flaw::ExternalData),
    ),
    (
        "a raw external data file",
        |i| put64(i, 88, 1 << 1),
        |f| matches!(f, Flaw::ExternalData),
    ),
    (
        "an unknown incompatible feature",
        |i| put64(i, 72, 1 << 5),
        |f| matches!(f, Flaw::UnknownIncompatible { bits: 0x20 }),
    ),
    (
        "all incompatible features",
        |i| put64(i, 72, u64::MAX),
        |f| matches!(f, Flaw::UnknownIncompatible { .. }),
    ),
    (
        "a dirty image",
        |i| put64(i, 72, 1),
        |f| matches!(f, Flaw::Dirty),
    ),
    (
        "a corrupt image",
        |i| put64(i, 72, 2),
        |f| matches!(f, Flaw::Corrupt),
    ),
    (
        "version 1",
        |i| put32(i, 4, 1),
        |f| matches!(f, Flaw::Version { version: 1 }),
    ),
    (
        "version 4",
        |i| put32(i, 4, 4),
        |f| matches!(f, Flaw::Version { version: 4 }),
    ),
    (
        "clusters of 256 bytes",
        |i| put32(i, 20, 8),
        |f| matches!(f, Flaw::ClusterBits { bits: 8 }),
    ),
    (
        "clusters of 4 MiB",
        |i| put32(i, 20, 22),
        |f| matches!(f, Flaw::ClusterBits { .. }),
    ),
    (
        "clusters of 2^64 bytes",
        |i| put32(i, 20, 64),
        |f| matches!(f, Flaw::ClusterBits { .. }),
    ),
    (
        "clusters beyond all numbers",
        |i| put32(i, 20, u32::MAX),
        |f| matches!(f, Flaw::ClusterBits { .. }),
    ),
    (
        "no size",
        |i| put64(i, 24, 0),
        |f| matches!(f, Flaw::VirtualSize { size: 0, .. }),
    ),
    (
        "half a sector more",
        |i| put64(i, 24, (64 << 20) + 256),
        |f| matches!(f, Flaw::VirtualSize { .. }),
    ),
    (
        "a size of 8 EiB",
        |i| put64(i, 24, 1 << 63),
        |f| matches!(f, Flaw::VirtualSize { .. }),
    ),
    (
        "the largest of all sizes",
        |i| put64(i, 24, u64::MAX),
        |f| matches!(f, Flaw::VirtualSize { .. }),
    ),
    (
        "AES encryption",
        |i| put32(i, 32, 1),
        |f| matches!(f, Flaw::Encrypted { method: 1 }),
    ),
    (
        "LUKS encryption",
        |i| put32(i, 32, 2),
        |f| matches!(f, Flaw::Encrypted { method: 2 }),
    ),
    (
        "an unknown encryption",
        |i| put32(i, 32, 77),
        |f| matches!(f, Flaw::Encrypted { .. }),
    ),
    (
        "a LUKS header without LUKS",
        |i| {
            extension(i, 112, 0x0537_be77, 16);
        },
        |f| matches!(f, Flaw::Encrypted { .. }),
    ),
    (
        "an L1 table of 32 GiB",
        |i| put32(i, 36, u32::MAX),
        |f| matches!(f, Flaw::TableSize { .. }),
    ),
    (
        "an L1 table too small for the size",
        |i| put64(i, 24, 1 << 40),
        |f| {
            matches!(
                f,
                Flaw::L1TooSmall {
                    entries: 1,
                    needed: 2048
                }
            )
        },
    ),
    (
        "no L1 table",
        |i| put32(i, 36, 0),
        |f| matches!(f, Flaw::L1TooSmall { entries: 0, .. }),
    ),
    (
        "an L1 table beyond the end",
        |i| put64(i, 40, 1 << 30),
        |f| matches!(f, Flaw::TableBeyondFile { .. }),
    ),
    (
        "an L1 table at the end of all numbers",
        |i| put64(i, 40, !(CLUSTER as u64 - 1)),
        |f| matches!(f, Flaw::TableBeyondFile { .. }),
    ),
    (
        "an L1 table out of place",
        |i| put64(i, 40, L1 as u64 + 8),
        |f| matches!(f, Flaw::TableAlignment { .. }),
    ),
    (
        "an L1 table over the header",
        |i| put64(i, 40, 0),
        |f| matches!(f, Flaw::TablesOverlap { .. }),
    ),
    (
        "an L1 table over the refcount table",
        |i| put64(i, 40, REFTABLE as u64),
        |f| matches!(f, Flaw::TablesOverlap { .. }),
    ),
    (
        "no refcount table",
        |i| put32(i, 56, 0),
        |f| matches!(f, Flaw::NoRefcountTable),
    ),
    (
        "a refcount table of 256 TiB",
        |i| put32(i, 56, u32::MAX),
        |f| matches!(f, Flaw::TableSize { .. }),
    ),
    (
        "a refcount table beyond the end",
        |i| put64(i, 48, 1 << 40),
        |f| matches!(f, Flaw::TableBeyondFile { .. }),
    ),
    (
        "a refcount table over the header",
        |i| put64(i, 48, 0),
        |f| matches!(f, Flaw::TablesOverlap { .. }),
    ),
    (
        "refcounts of 128 bits",
        |i| put32(i, 96, 7),
        |f| matches!(f, Flaw::RefcountOrder { .. }),
    ),
    (
        "refcounts beyond all numbers",
        |i| put32(i, 96, u32::MAX),
        |f| matches!(f, Flaw::RefcountOrder { .. }),
    ),
    (
        "a header of no length",
        |i| put32(i, 100, 0),
        |f| matches!(f, Flaw::HeaderLength { .. }),
    ),
    (
        "a header shorter than version 3 has it",
        |i| put32(i, 100, 72),
        |f| matches!(f, Flaw::HeaderLength { .. }),
    ),
    (
        "a header of odd length",
        |i| put32(i, 100, 109),
        |f| matches!(f, Flaw::HeaderLength { .. }),
    ),
    (
        "a header longer than its cluster",
        |i| put32(i, 100, CLUSTER as u32 + 8),
        |f| matches!(f, Flaw::HeaderLength { .. }),
    ),
    (
        "a header of 4 GiB",
        |i| put32(i, 100, u32::MAX - 7),
        |f| matches!(f, Flaw::HeaderLength { .. }),
    ),
    (
        "an extension of 4 GiB",
        |i| {
            extension(&mut i[..CLUSTER], 112, 0x1234_5678, u32::MAX - 7);
        },
        |f| matches!(f, Flaw::ExtensionOverlap { .. }),
    ),
    (
        "an extension into the next cluster",
        |i| {
            extension(i, 112, 0x1234_5678, CLUSTER as u32);
        },
        |f| matches!(f, Flaw::ExtensionOverlap { .. }),
    ),
    (
        "extensions without end",
        |i| {
            let mut at = 112;
            for n in 1.. {
                if at + 16 > CLUSTER {
                    break;
                }
                at = extension(i, at, n, 0);
            }
        },
        |f| matches!(f, Flaw::TooManyExtensions { .. }),
    ),
    (
        "an extension twice",
        |i| {
            let at = extension(i, 112, 0x1234_5678, 8);
            extension(i, at, 0x1234_5678, 8);
        },
        |f| matches!(f, Flaw::ExtensionTwice { .. }),
    ),
    (
        "internal snapshots",
        |i| {
            put32(i, 60, 1);
            put64(i, 64, L1 as u64);
        },
        |f| matches!(f, Flaw::Snapshots { count: 1 }),
    ),
    (
        "snapshots without number",
        |i| put32(i, 60, u32::MAX),
        |f| matches!(f, Flaw::Snapshots { .. }),
    ),
    (
        "persistent bitmaps",
        |i| {
            extension(i, 112, 0x2385_2875, 24);
            put64(i, 88, 1);
        },
        |f| matches!(f, Flaw::Bitmaps),
    ),
    (
        "an unknown compression",
        |i| i[104] = 2,
        |f| matches!(f, Flaw::Compression { kind: 2 }),
    ),
    (
        "zstd without its feature bit",
        |i| i[104] = 1,
        |f| matches!(f, Flaw::Compression { .. }),
    ),
    (
        "zstd's feature bit without zstd",
        |i| put64(i, 72, 1 << 3),
        |f| matches!(f, Flaw::Compression { .. }),
    ),
    ("no magic", |i| i[3] = 0xfa, |f| matches!(f, Flaw::NoMagic)),
    (
        "three bytes",
        |i| i.truncate(3),
        |f| matches!(f, Flaw::NoMagic),
    ),
    (
        "the magic alone",
        |i| i.truncate(4),
        |f| matches!(f, Flaw::ShortHeader { .. }),
    ),
    (
        "a header cut off",
        |i| i.truncate(71),
        |f| matches!(f, Flaw::ShortHeader { .. }),
    ),
    (
        "a version 3 header cut off",
        |i| i.truncate(103),
        |f| matches!(f, Flaw::ShortHeader { .. }),
    ),
    (
        "a header and nothing else",
        |i| i.truncate(CLUSTER),
        |f| matches!(f, Flaw::TableBeyondFile { .. }),
    ),
    (
        "an L1 table cut off",
        |i| i.truncate(L1 + 4),
        |f| matches!(f, Flaw::TableBeyondFile { .. }),
    ),
    ("an empty file", |i| i.clear(), |f| matches!(f, Flaw::Empty)),
];

/// Bent from a QCOW2 image with data; its first L2 table is where L1 says.
const TABLES: &[(&str, Bend, Check)] = &[
    (
        "an L1 entry beyond the end",
        |i| put64(i, L1, COPIED | (1 << 40)),
        |f| matches!(f, Flaw::EntryBeyondFile { .. }),
    ),
    (
        "an L1 entry out of place",
        |i| change64(i, L1, |e| e + 512),
        |f| matches!(f, Flaw::EntryAlignment { .. }),
    ),
    (
        "an L1 entry with reserved bits",
        |i| change64(i, L1, |e| e | 1 << 60),
        |f| matches!(f, Flaw::ReservedBits { .. }),
    ),
    (
        "an L1 table that refers to itself",
        |i| put64(i, L1, COPIED | L1 as u64),
        |f| matches!(f, Flaw::EntryTwice { .. }),
    ),
    (
        "an L1 entry into the header",
        |i| put64(i, L1, COPIED | REFTABLE as u64),
        |f| matches!(f, Flaw::EntryTwice { .. }),
    ),
    (
        "an L2 table used twice",
        |i| {
            put64(i, 24, 1 << 30);
            put32(i, 36, 2);
            let table = get64(i, L1);
            put64(i, L1 + 8, table);
        },
        |f| matches!(f, Flaw::EntryTwice { .. }),
    ),
    (
        "an L2 table that refers to itself",
        |i| {
            let l2 = (get64(i, L1) & !COPIED) as usize;
            put64(i, l2, COPIED | l2 as u64);
        },
        |f| matches!(f, Flaw::EntryToMetadata { .. }),
    ),
    (
        "a guest cluster over the header",
        |i| {
            let l2 = (get64(i, L1) & !COPIED) as usize;
            put64(i, l2 + 8, COPIED | REFTABLE as u64);
        },
        |f| matches!(f, Flaw::EntryToMetadata { .. }),
    ),
    (
        "an L2 entry beyond the end",
        |i| {
            let l2 = (get64(i, L1) & !COPIED) as usize;
            put64(i, l2, COPIED | 1 << 50);
        },
        |f| matches!(f, Flaw::EntryBeyondFile { .. }),
    ),
    (
        "an L2 entry out of place",
        |i| {
            let l2 = (get64(i, L1) & !COPIED) as usize;
            change64(i, l2, |e| e + 512);
        },
        |f| matches!(f, Flaw::EntryAlignment { .. }),
    ),
    (
        "an L2 entry with reserved bits",
        |i| {
            let l2 = (get64(i, L1) & !COPIED) as usize;
            change64(i, l2, |e| e | 2);
        },
        |f| matches!(f, Flaw::ReservedBits { .. }),
    ),
    (
        "a compressed cluster beyond the end",
        |i| {
            let l2 = (get64(i, L1) & !COPIED) as usize;
            put64(i, l2, 1 << 62 | 1 << 40);
        },
        |f| matches!(f, Flaw::EntryBeyondFile { .. }),
    ),
    (
        "a compressed cluster that claims to be plain",
        |i| {
            let l2 = (get64(i, L1) & !COPIED) as usize;
            put64(i, l2, COPIED | 1 << 62 | 512);
        },
        |f| matches!(f, Flaw::ReservedBits { .. }),
    ),
    (
        "a refcount block beyond the end",
        |i| put64(i, REFTABLE, 1 << 40),
        |f| matches!(f, Flaw::EntryBeyondFile { .. }),
    ),
    (
        "a refcount block out of place",
        |i| put64(i, REFTABLE, 2 * CLUSTER as u64 + 512),
        |f| matches!(f, Flaw::EntryAlignment { .. }),
    ),
    (
        "a refcount entry with reserved bits",
        |i| put64(i, REFTABLE, 2 * CLUSTER as u64 + 1),
        |f| matches!(f, Flaw::ReservedBits { .. }),
    ),
    (
        "a refcount block used twice",
        |i| put64(i, REFTABLE + 8, 2 * CLUSTER as u64),
        |f| matches!(f, Flaw::EntryTwice { .. }),
    ),
    (
        "a refcount table that refers to itself",
        |i| put64(i, REFTABLE, REFTABLE as u64),
        |f| matches!(f, Flaw::EntryTwice { .. }),
    ),
    (
        "the second half missing",
        |i| i.truncate(i.len() / 2),
        |f| matches!(f, Flaw::EntryBeyondFile { .. }),
    ),
];

/// Starts of files that are no raw disk.
const NOT_RAW: &[(&str, usize, &[u8])] = &[
    (
        "QCOW version 1 shares QCOW2's magic",
        0,
        b"QFI\xfb\0\0\0\x01",
    ),
    ("QED", 0, b"QED\0"),
    ("VMDK", 0, b"KDMV\x01\0\0\0"),
    ("VMDK, ESX", 0, b"COWD"),
    (
        "VMDK descriptor, which names other files",
        0,
        b"# Disk DescriptorFile\n",
    ),
    ("VDI", 64, b"\x7f\x10\xda\xbe"),
    ("VHDX", 0, b"vhdxfile"),
    ("VHD, dynamic", 0, b"conectix"),
    ("VHD, fixed", 8192 - 512, b"conectix"),
    ("DMG", 8192 - 512, b"koly"),
    ("LUKS", 0, b"LUKS\xba\xbe\0\x01"),
    ("Parallels", 0, b"WithoutFreeSpace"),
    ("Bochs", 0, b"Bochs Virtual HD Image"),
    ("cloop", 0, b"#!/bin/sh\n#V2.0 Format\n"),
    ("gzip", 0, b"\x1f\x8b\x08"),
    ("xz", 0, b"\xfd7zXZ\0"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd"),
    ("tar", 257, b"ustar"),
    ("a web page", 0, b"<!DOCTYPE html>"),
    ("a web page in capitals", 0, b"<HTML><HEAD>"),
    ("a web page after a line", 0, b"\r\n<!DOCTYPE html>"),
    ("XML after a line", 0, b"\n<?xml version=\"1.0\"?><Error>"),
    ("JSON", 0, b"{\"error\":\"AccessDenied\"}"),
    (
        "a Git LFS pointer",
        0,
        b"version https://git-lfs.github.com/spec/v1\n",
    ),
    ("vma", 0, b"VMA\0"),
    ("lz4", 0, b"\x04\x22\x4d\x18"),
    ("lzma", 0, b"\x5d\0\0\x80\0"),
    ("squashfs", 0, b"hsqs"),
    ("Android sparse", 0, b"\x3a\xff\x26\xed"),
    ("wim", 0, b"MSWIM\0\0\0"),
    ("xar", 0, b"xar!"),
    ("rar", 0, b"Rar!\x1a\x07\x01\0"),
    ("an EFI program", 0, b"MZ"),
];

struct Bench {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            reserve: ByteSize::ZERO,
            ..StoreOptions::default()
        };
        let store = ImageStore::open_with(&dir.path().join("store"), options).unwrap();
        Bench { dir, store }
    }

    /// The image is refused, for the right reason, at once, and nothing stays of it.
    fn refused(
        &self,
        name: &str,
        path: &Path,
        format: Option<Format>,
        check: impl Fn(&Flaw) -> bool,
    ) {
        let began = Instant::now();
        let import = Import {
            format,
            expected: None,
        };
        let error = self.store.import(path, &import, |_| ()).unwrap_err();
        let took = began.elapsed();
        let Some(flaw) = error.flaw() else {
            panic!("{name}: {error}")
        };
        assert!(check(flaw), "{name}: {flaw} ({flaw:?})");
        assert!(matches!(error, Error::Refused { .. }), "{name}: {error:?}");
        assert!(took < Duration::from_secs(3), "{name}: {took:?}");
        assert_eq!(self.store.list().unwrap(), [], "{name}");
        let tmp = self.store.root().join("tmp");
        assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0, "{name}");
    }

    fn bent(&self, name: &str, image: &[u8], bend: Bend, format: Option<Format>, check: Check) {
        let mut image = image.to_vec();
        bend(&mut image);
        let path = self.dir.path().join("image");
        std::fs::write(&path, image).unwrap();
        self.refused(name, &path, format, check);
    }
}

#[test]
fn hostile_headers() {
    let (bench, image) = (Bench::new(), empty_image());
    for &(name, bend, check) in HEADERS {
        // The files without the magic are told apart from raw ones by what was announced.
        bench.bent(name, &image, bend, Some(Format::Qcow2), check);
    }
    assert!(HEADERS.len() >= 60);
}

#[test]
fn hostile_tables() {
    let (bench, image) = (Bench::new(), full_image());
    for &(name, bend, check) in TABLES {
        bench.bent(name, &image, bend, None, check);
    }
}

#[test]
fn files_that_pretend_to_be_raw() {
    let bench = Bench::new();
    let path = bench.dir.path().join("image");
    for &(name, at, magic) in NOT_RAW {
        let mut image = vec![0; 8192];
        image[at..at + magic.len()].copy_from_slice(magic);
        std::fs::write(&path, image).unwrap();
        bench.refused(name, &path, Some(Format::Raw), |f| {
            matches!(f, Flaw::Pretends { .. } | Flaw::Packed { .. })
        });
        // What is not announced is not taken for raw either.
        bench.refused(name, &path, None, |f| {
            matches!(
                f,
                Flaw::Pretends { .. }
                    | Flaw::Packed { .. }
                    | Flaw::Version { .. }
                    | Flaw::ShortHeader { .. }
            )
        });
    }
    std::fs::write(&path, empty_image()).unwrap();
    bench.refused("QCOW2 as raw", &path, Some(Format::Raw), |f| {
        matches!(f, Flaw::Pretends { .. })
    });
    std::fs::write(&path, [0; 1000]).unwrap();
    bench.refused("half a sector", &path, None, |f| {
        matches!(f, Flaw::UnalignedLength { len: 1000 })
    });
    std::fs::write(&path, [0; 4096]).unwrap();
    bench.refused("raw as QCOW2", &path, Some(Format::Qcow2), |f| {
        matches!(f, Flaw::NoMagic)
    });
}

#[test]
fn files_that_are_no_files() {
    let bench = Bench::new();
    let dir = bench.dir.path();
    let fifo = dir.join("fifo");
    disk_support::run("mkfifo", [&fifo]);
    let link = dir.join("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    for path in [
        dir,
        &fifo,
        &link,
        Path::new("/dev/zero"),
        Path::new("/dev/null"),
    ] {
        let name = path.display().to_string();
        bench.refused(&name, path, None, |f| matches!(f, Flaw::NotRegular));
    }
    let error = bench
        .store
        .import(&dir.join("none"), &Import::default(), |_| ())
        .unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

/// Files that are huge but sparse cost nothing to refuse.
#[test]
fn sparse_giants() {
    let bench = Bench::new();
    let path = bench.dir.path().join("giant");
    let file = File::create_new(&path).unwrap();
    file.write_all_at(&empty_image(), 0).unwrap();
    file.set_len(1 << 40).unwrap();
    // All tables are within the file now; the largest that QEMU allows are read, and no larger.
    let mut header = [0; 112];
    File::open(&path)
        .unwrap()
        .read_exact_at(&mut header, 0)
        .unwrap();
    put32(&mut header, 36, 4 << 20);
    put64(&mut header, 40, 1 << 30);
    put64(&mut header, 48, 2 << 30);
    put32(&mut header, 56, 128);
    file.write_all_at(&header, 0).unwrap();
    file.write_all_at(&(1_u64 << 62).to_be_bytes(), (1 << 30) + (32 << 20) - 8)
        .unwrap();
    let began = Instant::now();
    let error = inspect(&File::open(&path).unwrap(), None).unwrap_err();
    assert!(
        matches!(
            error.flaw(),
            Some(Flaw::ReservedBits {
                index: 0x3f_ffff,
                ..
            })
        ),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    let max = ByteSize::from_gib(256);
    let error = bench
        .store
        .import(&path, &Import::default(), |_| ())
        .unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { max: m, .. } if m == max),
        "{error}"
    );
}

/// A file of the right content mends what the store has under its name.
#[test]
fn an_import_mends_a_damaged_image() {
    let bench = Bench::new();
    let path = bench.dir.path().join("image");
    std::fs::write(&path, full_image()).unwrap();
    let import = || bench.store.import(&path, &Import::default(), |_| ());
    let image = import().unwrap();
    for len in [1000, 0] {
        std::fs::remove_file(&image.path).unwrap();
        std::fs::write(&image.path, &full_image()[..len]).unwrap();
        assert!(bench.store.verify(&image.digest, |_| ()).is_err());
        assert_eq!(import().unwrap(), image);
        bench.store.verify(&image.digest, |_| ()).unwrap();
    }
    let tmp = bench.store.root().join("tmp");
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
    assert_eq!(
        std::fs::read_dir(bench.store.root().join("sha256"))
            .unwrap()
            .count(),
        1
    );
}

/// What a firmware looks for, and a warning can be made of.
#[test]
fn an_image_says_whether_it_has_a_boot_mark() {
    let bench = Bench::new();
    let at = |name: &str| bench.dir.path().join(name);
    let (raw, qcow2) = (at("raw"), at("qcow2"));
    let found = |path: &Path| inspect(&File::open(path).unwrap(), None).unwrap().boot_mark;
    for (mark, expected) in [([0, 0], false), ([0x55, 0xaa], true)] {
        let mut image = vec![0; 1 << 20];
        image[510..512].copy_from_slice(&mark);
        // Something is there in any case.
        image[..440].fill(7);
        std::fs::write(&raw, image).unwrap();
        assert_eq!(found(&raw), Some(expected));
        for (options, expected) in [
            ("-o compat=0.10", Some(expected)),
            ("-c", Some(expected)),
            ("-c -o compression_type=zstd", None),
            ("-o extended_l2=on", None),
        ] {
            let words = format!("convert -f raw -O qcow2 {options}");
            let files = [raw.as_os_str(), qcow2.as_os_str()];
            let words = words.split(' ').map(std::ffi::OsStr::new).chain(files);
            disk_support::run("qemu-img", words);
            assert_eq!(found(&qcow2), expected, "{options}");
        }
    }
    std::fs::write(&qcow2, empty_image()).unwrap();
    assert_eq!(found(&qcow2), Some(false));
    // Marked in the file, and read as zeros.
    let mut image = full_image();
    let (l2, flag) = ((get64(&image, L1) & !COPIED) as usize, 1);
    let start = (get64(&image, l2) & !COPIED) as usize;
    image[start + 510..start + 512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&qcow2, &image).unwrap();
    assert_eq!(found(&qcow2), Some(true));
    disk_support::change64(&mut image, l2, |entry| entry | flag);
    std::fs::write(&qcow2, &image).unwrap();
    assert_eq!(found(&qcow2), Some(false));
}
