//! A writer of small ISO 9660 images with Joliet and Rock Ridge; pure.
//!
//! Why our own: of the Rust crates only `hadris-iso` writes all three, and its last stable
//! version (2.5) stamps images with the present time. Version 3, which does not, is a release
//! candidate that needs Rust 1.88. A seed needs one flat directory and nothing else. What is
//! written:
//!
//! | sector | content |
//! |---|---|
//! | 0-15 | system area, zeros (ECMA-119 6.2.1) |
//! | 16 | primary volume descriptor (8.4) |
//! | 17 | supplementary volume descriptor, Joliet level 3 (8.5; Joliet 1) |
//! | 18 | volume descriptor set terminator (8.3) |
//! | 19, 20 | path table of the primary tree, type L and type M (9.4) |
//! | 21, 22 | path table of the Joliet tree, type L and type M |
//! | 23 | continuation area with the Rock Ridge `ER` entry (SUSP 5.1) |
//! | 24... | root directory, Rock Ridge names in the system use fields |
//! | ... | root directory, Joliet names |
//! | ... | the files, each from a sector of its own |
//!
//! Invariants: the bytes depend on nothing but the arguments (one fixed time stamp, no random
//! numbers); directory records are sorted (9.3) and do not cross sectors (6.8.1.1); the image is
//! a whole number of sectors long.

use std::{cmp::Ordering, collections::BTreeSet};

/// Bytes in a logical sector and in a logical block (ECMA-119 6.1.2, 6.2.2).
pub const SECTOR: usize = 2048;
/// Most files in an image.
pub const MAX_FILES: usize = 64;
/// Longest file name in bytes: the limit of Joliet, 64 characters.
pub const MAX_NAME: usize = 64;
/// Most bytes of content in an image: 16 MiB.
pub const MAX_CONTENT: usize = 16 << 20;

/// Every date in the image: 2000-01-01 00:00:00 UTC, in the long form of ECMA-119 8.4.26.1.
const DATE_LONG: &[u8; 17] = b"2000010100000000\0";
/// The same in the short form of 9.1.5: years since 1900, month, day, hour, minute, second, zone.
const DATE_SHORT: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
/// A date that is not specified (8.4.26.1).
const NO_DATE: &[u8; 17] = b"0000000000000000\0";

const PRIMARY: usize = 16;
const JOLIET: usize = 17;
const TERMINATOR: usize = 18;
const PATH_TABLES: usize = 19;
const CONTINUATION: usize = 23;
const ROOT: usize = 24;

/// One file of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsoFile<'a> {
    /// Name, 1 to [`MAX_NAME`] of `A-Z a-z 0-9 . _ -`; shown as it is by Rock Ridge and Joliet.
    pub name: &'a str,
    /// Content.
    pub data: &'a [u8],
}

/// Why an image cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsoError {
    /// The volume identifier has a length or a character that a label cannot have.
    #[error("volume id {0:?} must be 1 to 16 of A-Z a-z 0-9 _ -")]
    VolumeId(String),
    /// A file name has a length or a character that not all three name spaces can carry.
    #[error("file name {0:?} must be 1 to 64 of A-Z a-z 0-9 . _ - and not `.` or `..`")]
    Name(String),
    /// The same name twice, ignoring case (Joliet readers often ignore it).
    #[error("file name {0:?} occurs twice")]
    Duplicate(String),
    /// More than [`MAX_FILES`] files.
    #[error("{0} files are more than an image may have (64)")]
    TooManyFiles(usize),
    /// More than [`MAX_CONTENT`] bytes.
    #[error("{0} bytes of content are more than an image may have (16 MiB)")]
    TooLarge(usize),
}

/// Writes `files` into an image labelled `volume_id`.
///
/// # Errors
/// [`IsoError`]: a name, a number or a size is out of bounds; nothing is allocated then.
pub fn image(volume_id: &str, files: &[IsoFile<'_>]) -> Result<Vec<u8>, IsoError> {
    check(volume_id, files)?;

    let entries = entries(files);
    let mut by_primary: Vec<&Entry<'_>> = entries.iter().collect();
    by_primary.sort_by_key(|entry| entry.primary);
    let mut by_joliet: Vec<&Entry<'_>> = entries.iter().collect();
    by_joliet.sort_by(|a, b| joliet_order(a.file.name, b.file.name));

    // Lengths of records do not depend on where things are, so one dry run gives the layout.
    let primary_sectors = sectors(primary_directory(ROOT, SECTOR, &by_primary, &[]).len());
    let joliet_root = ROOT + primary_sectors;
    let joliet_sectors = sectors(joliet_directory(joliet_root, SECTOR, &by_joliet, &[]).len());
    let mut next = joliet_root + joliet_sectors;
    let mut extents = vec![0; entries.len()];
    for (extent, entry) in extents.iter_mut().zip(&entries) {
        *extent = next;
        // An empty file has a sector too: its extent then lies within the volume for any reader.
        next += sectors(entry.file.data.len()).max(1);
    }
    let total = next;

    let mut out = Vec::with_capacity(total * SECTOR);
    out.resize(PRIMARY * SECTOR, 0);
    volume_descriptor(
        &mut out,
        &Volume {
            joliet: false,
            id: volume_id,
            sectors: total,
            path_table: PATH_TABLES,
            root: ROOT,
            root_len: primary_sectors * SECTOR,
        },
    );
    debug_assert_eq!(out.len(), JOLIET * SECTOR);
    volume_descriptor(
        &mut out,
        &Volume {
            joliet: true,
            id: volume_id,
            sectors: total,
            path_table: PATH_TABLES + 2,
            root: joliet_root,
            root_len: joliet_sectors * SECTOR,
        },
    );
    debug_assert_eq!(out.len(), TERMINATOR * SECTOR);
    out.extend_from_slice(b"\xffCD001\x01");
    pad(&mut out);

    for root in [ROOT, joliet_root] {
        path_table(&mut out, u32_of(root).to_le_bytes(), 1u16.to_le_bytes());
        path_table(&mut out, u32_of(root).to_be_bytes(), 1u16.to_be_bytes());
    }
    debug_assert_eq!(out.len(), CONTINUATION * SECTOR);
    out.extend_from_slice(&extension_reference());
    pad(&mut out);

    out.extend_from_slice(&primary_directory(
        ROOT,
        primary_sectors * SECTOR,
        &by_primary,
        &extents,
    ));
    pad(&mut out);
    out.extend_from_slice(&joliet_directory(
        joliet_root,
        joliet_sectors * SECTOR,
        &by_joliet,
        &extents,
    ));
    pad(&mut out);
    for entry in &entries {
        out.extend_from_slice(entry.file.data);
        if entry.file.data.is_empty() {
            out.resize(out.len() + SECTOR, 0);
        }
        pad(&mut out);
    }
    debug_assert_eq!(out.len(), total * SECTOR);
    Ok(out)
}

fn check(volume_id: &str, files: &[IsoFile<'_>]) -> Result<(), IsoError> {
    // Joliet has room for 16 characters. Lower case is beyond the d-characters of 8.4.6, but
    // `cidata` is the label by which NoCloud has always been found.
    let label = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    if volume_id.is_empty() || volume_id.len() > 16 || !volume_id.bytes().all(label) {
        return Err(IsoError::VolumeId(
            volume_id.chars().take(MAX_NAME).collect(),
        ));
    }
    if files.len() > MAX_FILES {
        return Err(IsoError::TooManyFiles(files.len()));
    }
    let mut seen = BTreeSet::new();
    for file in files {
        let name = file.name;
        if name.is_empty()
            || name.len() > MAX_NAME
            || matches!(name, "." | "..")
            || !name.bytes().all(|c| label(c) || c == b'.')
        {
            return Err(IsoError::Name(name.chars().take(MAX_NAME).collect()));
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(IsoError::Duplicate(name.to_owned()));
        }
    }
    let content = files
        .iter()
        .fold(0usize, |sum, f| sum.saturating_add(f.data.len()));
    if content > MAX_CONTENT {
        return Err(IsoError::TooLarge(content));
    }
    Ok(())
}

/// A file with its name in the primary tree.
struct Entry<'a> {
    file: IsoFile<'a>,
    index: usize,
    primary: ShortName,
}

/// A name of interchange level 1 (ECMA-119 10.1): eight and three d-characters. Both are padded
/// with spaces here, which makes the derived order that of 9.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ShortName {
    stem: [u8; 8],
    extension: [u8; 3],
}

impl ShortName {
    fn identifier(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(14);
        out.extend_from_slice(self.stem.trim_ascii_end());
        out.push(b'.');
        out.extend_from_slice(self.extension.trim_ascii_end());
        out.extend_from_slice(b";1");
        out
    }
}

fn entries<'a>(files: &[IsoFile<'a>]) -> Vec<Entry<'a>> {
    let mut taken = BTreeSet::new();
    let mut out = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        let mut primary = short_name(file.name);
        // At most MAX_FILES names are taken, so three digits always find a free one.
        for number in 0..1000u32 {
            if taken.insert(primary) {
                break;
            }
            primary.stem = fixed(&format!("{:_<5}{number:03}", prefix(file.name)));
        }
        out.push(Entry {
            file: *file,
            index,
            primary,
        });
    }
    out
}

fn short_name(name: &str) -> ShortName {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, extension),
        _ => (name, ""),
    };
    ShortName {
        stem: fixed(&d_characters(stem)),
        extension: fixed(&d_characters(extension)),
    }
}

fn prefix(name: &str) -> String {
    d_characters(name).chars().take(5).collect()
}

/// The d-characters (7.4.1) nearest to `text`.
fn d_characters(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [b' '; N];
    for (to, from) in out.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    out
}

/// The order of 9.3 for Joliet names: the name, then the extension.
fn joliet_order(a: &str, b: &str) -> Ordering {
    let split = |name: &str| match name.rsplit_once('.') {
        Some((stem, extension)) => (stem.to_owned(), extension.to_owned()),
        None => (name.to_owned(), String::new()),
    };
    split(a).cmp(&split(b))
}

struct Volume<'a> {
    joliet: bool,
    id: &'a str,
    sectors: usize,
    path_table: usize,
    root: usize,
    root_len: usize,
}

/// A primary (8.4) or supplementary (8.5) volume descriptor: one sector.
fn volume_descriptor(out: &mut Vec<u8>, volume: &Volume<'_>) {
    let text = |out: &mut Vec<u8>, text: &str, len: usize| {
        let end = out.len() + len;
        if volume.joliet {
            // Joliet: UCS-2, big endian, filled with the wide space.
            out.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
            while out.len() + 1 < end {
                out.extend_from_slice(&[0, b' ']);
            }
            out.resize(end, 0);
        } else {
            out.extend_from_slice(text.as_bytes());
            out.resize(end, b' ');
        }
    };

    out.push(if volume.joliet { 2 } else { 1 });
    out.extend_from_slice(b"CD001\x01\x00");
    text(out, "LINUX", 32); // 8.4.5 system identifier
    text(out, volume.id, 32); // 8.4.6 volume identifier
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&both32(u32_of(volume.sectors))); // 8.4.8 volume space size
    if volume.joliet {
        out.extend_from_slice(b"%/E"); // 8.5.6, Joliet 1: UCS-2 level 3
        out.extend_from_slice(&[0; 29]);
    } else {
        out.extend_from_slice(&[0; 32]);
    }
    out.extend_from_slice(&both16(1)); // 8.4.10 volume set size
    out.extend_from_slice(&both16(1)); // 8.4.11 volume sequence number
    out.extend_from_slice(&both16(SECTOR as u16)); // 8.4.12 logical block size
    out.extend_from_slice(&both32(10)); // 8.4.13 path table size: the root only
    out.extend_from_slice(&u32_of(volume.path_table).to_le_bytes()); // 8.4.14 type L
    out.extend_from_slice(&[0; 4]); // 8.4.15 no optional table
    out.extend_from_slice(&u32_of(volume.path_table + 1).to_be_bytes()); // 8.4.16 type M
    out.extend_from_slice(&[0; 4]);
    record(out, &[0], volume.root, volume.root_len, true, &[]); // 8.4.18 root directory
    for len in [128, 128, 128, 128, 37, 37, 37] {
        text(out, "", len); // 8.4.19-25: volume set, publisher, preparer, application, files
    }
    out.extend_from_slice(DATE_LONG); // 8.4.26 creation
    out.extend_from_slice(DATE_LONG); // 8.4.27 modification
    out.extend_from_slice(NO_DATE); // 8.4.28 expiration
    out.extend_from_slice(DATE_LONG); // 8.4.29 effective
    out.push(1); // 8.4.30 file structure version
    pad(out);
}

/// A path table with the root alone (9.4): one sector.
fn path_table(out: &mut Vec<u8>, extent: [u8; 4], parent: [u8; 2]) {
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&extent);
    out.extend_from_slice(&parent);
    out.extend_from_slice(&[0, 0]);
    pad(out);
}

fn primary_directory(at: usize, len: usize, entries: &[&Entry<'_>], extents: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SECTOR);
    let directory = posix(0o040_755, 2, 1);
    // SUSP 5.3: SP comes first in the "." record of the root; CE leads to ER, which is too long
    // for the record.
    let mut itself = b"SP\x07\x01\xbe\xef\x00".to_vec();
    itself.extend_from_slice(&directory);
    itself.extend_from_slice(b"CE\x1c\x01");
    itself.extend_from_slice(&both32(u32_of(CONTINUATION)));
    itself.extend_from_slice(&both32(0));
    itself.extend_from_slice(&both32(u32_of(extension_reference().len())));
    record(&mut out, &[0], at, len, true, &itself);
    record(&mut out, &[1], at, len, true, &directory);
    for (serial, entry) in (2u32..).zip(entries) {
        let mut system_use = posix(0o100_644, 1, serial);
        // RRIP 4.1.4: the alternate name. At most 64 bytes, so one NM entry always does.
        system_use.extend_from_slice(b"NM");
        system_use.push(entry.file.name.len() as u8 + 5);
        system_use.extend_from_slice(&[1, 0]);
        system_use.extend_from_slice(entry.file.name.as_bytes());
        let extent = extents.get(entry.index).copied().unwrap_or_default();
        let name = entry.primary.identifier();
        record(
            &mut out,
            &name,
            extent,
            entry.file.data.len(),
            false,
            &system_use,
        );
    }
    out
}

fn joliet_directory(at: usize, len: usize, entries: &[&Entry<'_>], extents: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SECTOR);
    record(&mut out, &[0], at, len, true, &[]);
    record(&mut out, &[1], at, len, true, &[]);
    for entry in entries {
        // Without a version number, as mkisofs writes them: not every reader takes it off.
        let name: Vec<u8> = entry
            .file
            .name
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let extent = extents.get(entry.index).copied().unwrap_or_default();
        record(&mut out, &name, extent, entry.file.data.len(), false, &[]);
    }
    out
}

/// Appends a directory record (9.1), in the next sector if this one has no room for it.
fn record(
    out: &mut Vec<u8>,
    id: &[u8],
    extent: usize,
    len: usize,
    directory: bool,
    system_use: &[u8],
) {
    let id_pad = usize::from(id.len().is_multiple_of(2)); // 9.1.12
    let length = (33 + id.len() + id_pad + system_use.len()).next_multiple_of(2); // 9.1.13
    // A record inside a volume descriptor is 34 bytes at offset 156 and never moves.
    if out.len() % SECTOR + length > SECTOR {
        pad(out);
    }
    let end = out.len() + length;
    out.extend_from_slice(&[length as u8, 0]);
    out.extend_from_slice(&both32(u32_of(extent)));
    out.extend_from_slice(&both32(u32_of(len)));
    out.extend_from_slice(&DATE_SHORT);
    out.extend_from_slice(&[if directory { 2 } else { 0 }, 0, 0]); // flags, unit size, gap
    out.extend_from_slice(&both16(1));
    out.push(id.len() as u8);
    out.extend_from_slice(id);
    out.resize(out.len() + id_pad, 0);
    out.extend_from_slice(system_use);
    out.resize(end, 0);
}

/// PX (RRIP 4.1.1): mode, links, owner root, serial number; TF (4.1.6): the three usual times.
fn posix(mode: u32, links: u32, serial: u32) -> Vec<u8> {
    let mut out = b"PX\x2c\x01".to_vec();
    for value in [mode, links, 0, 0, serial] {
        out.extend_from_slice(&both32(value));
    }
    out.extend_from_slice(b"TF\x1a\x01\x0e");
    for _ in 0..3 {
        out.extend_from_slice(&DATE_SHORT);
    }
    out
}

/// ER (SUSP 5.5) with the texts of RRIP 1.12 section 4.3, closed by ST (SUSP 5.4).
fn extension_reference() -> Vec<u8> {
    const ID: &[u8] = b"IEEE_P1282";
    const DESCRIPTION: &[u8] =
        b"THE IEEE P1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS";
    const SOURCE: &[u8] = b"PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA \
        FOR THE P1282 SPECIFICATION.";
    let lengths = [ID.len(), DESCRIPTION.len(), SOURCE.len()].map(|len| len as u8);
    let mut out = b"ER".to_vec();
    out.push(8 + lengths.iter().sum::<u8>());
    out.push(1);
    out.extend_from_slice(&lengths);
    out.push(1); // extension version
    out.extend_from_slice(ID);
    out.extend_from_slice(DESCRIPTION);
    out.extend_from_slice(SOURCE);
    out.extend_from_slice(b"ST\x04\x01");
    out
}

/// Both byte orders (7.2.3).
fn both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

/// Both byte orders (7.3.3).
fn both32(value: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Sizes and sector numbers are bounded by [`MAX_CONTENT`] and [`MAX_FILES`], far below 2^32.
fn u32_of(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn sectors(len: usize) -> usize {
    len.div_ceil(SECTOR)
}

/// Zeros up to the next sector.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(SECTOR), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_legal_and_differ() {
        let names = [
            "user-data",
            "user-data-2",
            "User.Data.txt",
            ".profile",
            "user_datA-3",
        ];
        let files: Vec<_> = names
            .iter()
            .map(|name| IsoFile { name, data: b"" })
            .collect();
        let ids: Vec<_> = entries(&files)
            .iter()
            .map(|e| String::from_utf8(e.primary.identifier()).unwrap())
            .collect();
        assert_eq!(
            ids,
            [
                "USER_DAT.;1",
                "USER_000.;1",
                "USER_DAT.TXT;1",
                "_PROFILE.;1",
                "USER_001.;1"
            ]
        );
    }

    #[test]
    fn bounds_are_kept() {
        let file = |name| [IsoFile { name, data: b"x" }];
        let long = "n".repeat(65);
        for name in ["", ".", "..", "a/b", "a b", "ä", "a\0", long.as_str()] {
            assert!(
                matches!(image("cidata", &file(name)), Err(IsoError::Name(_))),
                "{name:?}"
            );
        }
        for id in ["", "has space", "seventeen-letters", "a\n"] {
            assert!(
                matches!(image(id, &file("a")), Err(IsoError::VolumeId(_))),
                "{id:?}"
            );
        }
        let twice = [
            IsoFile {
                name: "a",
                data: b"",
            },
            IsoFile {
                name: "A",
                data: b"",
            },
        ];
        assert_eq!(
            image("cidata", &twice),
            Err(IsoError::Duplicate("A".to_owned()))
        );
        let names: Vec<_> = (0..65).map(|n| format!("f{n}")).collect();
        let many: Vec<_> = names
            .iter()
            .map(|name| IsoFile { name, data: b"" })
            .collect();
        assert_eq!(image("cidata", &many), Err(IsoError::TooManyFiles(65)));
        let big = vec![0; MAX_CONTENT + 1];
        let big = [IsoFile {
            name: "a",
            data: &big,
        }];
        assert_eq!(
            image("cidata", &big),
            Err(IsoError::TooLarge(MAX_CONTENT + 1))
        );
    }
}
