//! What OVMF tells a hypervisor about itself: the GUID table in its footer and the SEV metadata.
//!
//! The table ends 32 bytes (the reset vector) before the end of the image and is read backwards:
//! each entry is data, then a 16-bit length of the whole entry, then its GUID (edk2,
//! `OvmfPkg/ResetVector`, `OvmfSevMetadata.asm`; QEMU, `hw/i386/pc_sysfw_ovmf.c`).
//!
//! Invariants of a parsed [`Firmware`]: every section is made of whole pages below 4 GiB, of a
//! known type, overlapping neither another one nor the image; there is at most one secrets, one
//! CPUID and one kernel-hashes section, each one page. Whatever breaks one is refused, since QEMU,
//! the firmware and this program could otherwise read the same image in different ways.

use std::io;

use super::error::MeasureError;
use super::guid::Guid;
use super::pages::{cores, page_digests, page_digests_from};
use super::section::{Section, SectionKind};
use super::sha384::{PAGE, Sha384Digest};

/// Largest firmware image accepted, in bytes. Real images have 2 to 16 MiB.
pub const MAX_FIRMWARE: usize = 64 << 20;
/// Most metadata sections accepted.
pub(super) const MAX_SECTIONS: u32 = 128;
/// Most bytes of guest memory that all sections together may cover.
pub(super) const MAX_SECTION_BYTES: u64 = 256 << 20;

/// Bytes at the end that are read first when an image is not kept. The table has at most 64 KiB,
/// and the metadata of most images lies near it; where it does not, the whole image is read.
const TAIL: usize = 128 << 10;
/// Firmware is mapped so that it ends here.
const END: u64 = 1 << 32;
/// Bytes between the end of the table and the end of the image.
const AFTER_TABLE: usize = 32;
/// Length (u16) and GUID of a table entry.
const ENTRY_HEADER: usize = 18;
/// Signature, length, version, number of sections.
const METADATA_HEADER: usize = 16;
/// Address, length, type of one section.
const SECTION: usize = 12;

const FOOTER: Guid = Guid::from_u128(0x96b582de_1fb2_45f7_baea_a366c55a082d);
const HASH_TABLE: Guid = Guid::from_u128(0x7255371f_3a3b_4b04_927b_1da6efa8d454);
const RESET_BLOCK: Guid = Guid::from_u128(0x00f771de_1a7e_4fcb_890e_68c77e2fb44e);
const SVSM_INFO: Guid = Guid::from_u128(0xa789a612_0597_4c4b_a49f_cbb1fe9d1ddd);
const METADATA: Guid = Guid::from_u128(0xdc886566_984a_4798_a75e_5585a7bf67cc);

/// Where the firmware wants the table of kernel hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashTableArea {
    /// Guest physical address; not zero.
    pub base: u32,
    /// Room in bytes.
    pub len: u32,
}

/// A firmware image with what it says about SEV, checked.
#[derive(Debug, Clone)]
pub struct Firmware {
    body: Body,
    len: usize,
    layout: Option<Layout>,
}

/// What of the image is kept to be measured.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// All of it.
    Bytes(Vec<u8>),
    /// The digests of its pages: enough for SNP.
    Pages(Vec<Sha384Digest>),
}

/// Why a firmware image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareReadError {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The image was refused.
    #[error(transparent)]
    Firmware(#[from] MeasureError),
}

/// Where an image lies in guest memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Bytes of the image.
    pub(super) len: usize,
    /// The guest physical address after its last byte.
    pub(super) end: u64,
}

impl Place {
    /// Directly below 4 GiB, as all firmware.
    fn below_4g(len: usize) -> Self {
        Self { len, end: END }
    }

    /// The guest physical address of the first byte.
    pub(super) fn base(self) -> u64 {
        self.end.saturating_sub(self.len as u64)
    }
}

/// What the GUID table says.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    reset_eip: Option<u32>,
    hash_table: Option<HashTableArea>,
    pub(super) sections: Option<Vec<Section>>,
    /// Where an SVSM starts, from its first byte on.
    pub(super) svsm_entry: Option<u32>,
}

impl Layout {
    /// Reads the table at the end of an image, given the last of its bytes; `None` when there is no
    /// table.
    pub(super) fn parse(tail: &[u8], place: Place) -> Result<Option<Self>, MeasureError> {
        let Some(entries) = table_entries(tail)? else {
            return Ok(None);
        };
        let mut layout = Self::default();
        for (guid, bytes) in entries {
            match guid {
                RESET_BLOCK => {
                    let [eip] = words("SEV-ES reset block", bytes)?;
                    // QEMU takes zero as 'no reset vector'.
                    layout.reset_eip = (eip != 0).then_some(eip);
                }
                HASH_TABLE => {
                    let [base, len] = words("SEV hash table", bytes)?;
                    layout.hash_table = (base != 0).then_some(HashTableArea { base, len });
                }
                METADATA => {
                    let [offset] = words("SEV metadata offset", bytes)?;
                    layout.sections = Some(metadata_sections(tail, place, offset)?);
                }
                // The entry point comes first; newer SVSMs may say more.
                SVSM_INFO => {
                    let [entry] = words("SVSM info", bytes.get(..4).unwrap_or(bytes))?;
                    layout.svsm_entry = Some(entry);
                }
                _ => {}
            }
        }
        Ok(Some(layout))
    }
}

impl Firmware {
    /// Parses an image. An image without a GUID table is accepted here, since plain SEV measures
    /// any; the accessors then say what is missing.
    ///
    /// # Errors
    /// When a length, offset, type or overlap breaks one of the module's invariants.
    pub fn parse(data: Vec<u8>) -> Result<Self, MeasureError> {
        check_len(data.len())?;
        let layout = Layout::parse(&data, Place::below_4g(data.len()))?;
        Ok(Self {
            len: data.len(),
            layout,
            body: Body::Bytes(data),
        })
    }

    /// Reads an image of `len` bytes for SNP alone, keeping only its pages' digests. `read` fills a
    /// buffer from a byte offset, and is called from several threads.
    ///
    /// The answer is that of [`Self::parse`], digest by digest and error by error: where the last
    /// 128 KiB do not hold all that has to be parsed, the whole image is read into memory.
    ///
    /// # Errors
    /// As [`Self::parse`], when the image is not whole pages, and when reading fails.
    pub fn read_pages(
        len: usize,
        read: impl Fn(usize, &mut [u8]) -> io::Result<()> + Sync,
    ) -> Result<Self, FirmwareReadError> {
        check_len(len)?;
        if len % PAGE != 0 {
            return Err(MeasureError::FirmwareNotPaged { len }.into());
        }
        let start = len - len.min(TAIL);
        let mut tail = vec![0; len - start];
        read(start, &mut tail)?;
        // The bytes that were parsed are the ones that are measured, whatever happens to the file.
        let (layout, pages) = match Layout::parse(&tail, Place::below_4g(len)) {
            Ok(layout) => {
                let mut pages = page_digests_from(start / PAGE, cores(), read)?;
                pages.extend(page_digests(&tail));
                (layout, pages)
            }
            // What is refused by its end alone may only lie further in front.
            Err(_) if start > 0 => {
                let mut image = vec![0; len];
                read(0, &mut image)?;
                (
                    Layout::parse(&image, Place::below_4g(len))?,
                    page_digests(&image),
                )
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            body: Body::Pages(pages),
            len,
            layout,
        })
    }

    pub(super) fn body(&self) -> &Body {
        &self.body
    }

    /// Length of the image in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no firmware is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Guest physical address of the image's first byte.
    #[must_use]
    pub fn gpa(&self) -> u64 {
        Place::below_4g(self.len).base()
    }

    /// Where application processors start.
    ///
    /// # Errors
    /// When the firmware doesn't say.
    pub fn reset_eip(&self) -> Result<u32, MeasureError> {
        self.layout()?.reset_eip.ok_or(MeasureError::NoResetBlock)
    }

    /// The metadata sections, in the order in which QEMU launches them.
    ///
    /// # Errors
    /// When the firmware has no SEV metadata.
    pub fn sections(&self) -> Result<&[Section], MeasureError> {
        self.layout()?
            .sections
            .as_deref()
            .ok_or(MeasureError::NoMetadata)
    }

    /// Where the table of kernel hashes goes.
    ///
    /// # Errors
    /// When the firmware reserves no place for it.
    pub fn hash_table(&self) -> Result<HashTableArea, MeasureError> {
        self.layout()?
            .hash_table
            .ok_or(MeasureError::NoKernelHashes {
                missing: "SEV hash table entry in its GUID table",
            })
    }

    /// The section reserved for the page of kernel hashes, if any.
    #[must_use]
    pub fn kernel_hashes_section(&self) -> Option<&Section> {
        self.layout
            .as_ref()?
            .sections
            .as_ref()?
            .iter()
            .find(|s| s.kind == SectionKind::KernelHashes)
    }

    fn layout(&self) -> Result<&Layout, MeasureError> {
        self.layout.as_ref().ok_or(MeasureError::NoFooterTable)
    }
}

pub(super) fn check_len(len: usize) -> Result<(), MeasureError> {
    if len == 0 || len > MAX_FIRMWARE {
        return Err(MeasureError::FirmwareSize {
            len,
            max: MAX_FIRMWARE,
        });
    }
    Ok(())
}

/// The `N` little-endian words that an entry consists of.
fn words<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u32; N], MeasureError> {
    if bytes.len() != N * 4 {
        return Err(MeasureError::EntryData {
            what,
            len: bytes.len(),
            expected: N * 4,
        });
    }
    let mut out = [0; N];
    for (word, chunk) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = le32(chunk);
    }
    Ok(out)
}

/// A little-endian word of exactly four bytes.
fn le32(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// Splits the header off the end of a table.
fn split_entry_header(bytes: &[u8]) -> Option<(&[u8], usize, Guid)> {
    let (front, header) = bytes.split_at_checked(bytes.len().checked_sub(ENTRY_HEADER)?)?;
    let (len, guid) = header.split_at_checked(2)?;
    Some((front, le32(len) as usize, Guid(guid.try_into().ok()?)))
}

type Entries<'a> = Vec<(Guid, &'a [u8])>;

/// The entries of the footer table, or `None` when there is no table.
fn table_entries(data: &[u8]) -> Result<Option<Entries<'_>>, MeasureError> {
    let Some(front) = data
        .len()
        .checked_sub(AFTER_TABLE)
        .and_then(|end| data.get(..end))
    else {
        return Ok(None);
    };
    let Some((front, claimed, FOOTER)) = split_entry_header(front) else {
        return Ok(None);
    };
    let bad_length = || MeasureError::FooterTableLength {
        claimed,
        available: front.len().saturating_add(ENTRY_HEADER),
    };
    let len = claimed.checked_sub(ENTRY_HEADER).ok_or_else(bad_length)?;
    let start = front.len().checked_sub(len).ok_or_else(bad_length)?;
    let mut rest = front.get(start..).unwrap_or_default();
    // The length has 16 bits and an entry at least 18 bytes: the search below stays cheap.
    let mut entries = Entries::new();
    while let Some((front, claimed, guid)) = split_entry_header(rest) {
        let data_start = claimed
            .checked_sub(ENTRY_HEADER)
            .and_then(|len| front.len().checked_sub(len))
            .ok_or(MeasureError::FooterEntryLength {
                guid,
                claimed,
                available: rest.len(),
            })?;
        let (before, data) = front.split_at_checked(data_start).unwrap_or_default();
        if entries.iter().any(|(known, _)| *known == guid) {
            return Err(MeasureError::DuplicateEntry { guid });
        }
        entries.push((guid, data));
        rest = before;
    }
    if !rest.is_empty() {
        return Err(MeasureError::FooterTableRest { bytes: rest.len() });
    }
    Ok(Some(entries))
}

/// Reads and checks the SEV metadata that begins `offset` bytes before the end of an image, given
/// the last of its bytes.
fn metadata_sections(tail: &[u8], image: Place, offset: u32) -> Result<Vec<Section>, MeasureError> {
    let outside = MeasureError::MetadataOffset {
        offset,
        len: image.len,
    };
    let start = tail
        .len()
        .checked_sub(offset as usize)
        .ok_or_else(|| outside.clone())?;
    let bytes = tail.get(start..).unwrap_or_default();
    let (header, body) = bytes.split_at_checked(METADATA_HEADER).ok_or(outside)?;
    let (signature, header) = header.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    if signature != b"ASEV" {
        return Err(MeasureError::MetadataSignature { found: *signature });
    }
    let [size, version, count] = words("SEV metadata header", header)?;
    if version != 1 {
        return Err(MeasureError::MetadataVersion(version));
    }
    let bad_length = MeasureError::MetadataLength {
        size,
        count,
        max: MAX_SECTIONS,
    };
    if count > MAX_SECTIONS || size as usize != METADATA_HEADER + SECTION * count as usize {
        return Err(bad_length);
    }
    let body = body.get(..SECTION * count as usize).ok_or(bad_length)?;
    let mut sections: Vec<Section> = Vec::with_capacity(count as usize);
    for (index, bytes) in body.chunks_exact(SECTION).enumerate() {
        let [base, len, raw] = words("SEV metadata section", bytes)?;
        let kind =
            SectionKind::from_raw(raw).ok_or(MeasureError::SectionType { index, kind: raw })?;
        let section = Section { base, len, kind };
        check_section(index, section, &sections, image)?;
        sections.push(section);
    }
    let bytes = sections.iter().map(|s| u64::from(s.len)).sum();
    if bytes > MAX_SECTION_BYTES {
        return Err(MeasureError::SectionsTooLarge {
            bytes,
            max: MAX_SECTION_BYTES,
        });
    }
    Ok(sections)
}

fn check_section(
    index: usize,
    section: Section,
    before: &[Section],
    image: Place,
) -> Result<(), MeasureError> {
    let Section { base, len, kind } = section;
    let aligned = |n: u32| n as usize % PAGE == 0;
    if len == 0 || !aligned(base) || !aligned(len) || section.end() > END {
        return Err(MeasureError::SectionRange {
            index,
            kind,
            base,
            len,
        });
    }
    if kind.single_page() {
        if len as usize != PAGE {
            return Err(MeasureError::SectionNotOnePage { index, kind, len });
        }
        if before.iter().any(|s| s.kind == kind) {
            return Err(MeasureError::SectionRepeated { index, kind });
        }
    }
    if section.overlaps(image.base(), image.end) {
        return Err(MeasureError::SectionOverlap {
            index,
            kind,
            other: "the firmware image".into(),
        });
    }
    let overlapped = before
        .iter()
        .enumerate()
        .find(|(_, s)| section.overlaps(u64::from(s.base), s.end()));
    if let Some((other, s)) = overlapped {
        let other = format!("section {other} ({})", s.kind);
        return Err(MeasureError::SectionOverlap { index, kind, other });
    }
    Ok(())
}
