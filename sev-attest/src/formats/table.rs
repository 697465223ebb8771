//! The certificate table of an extended report: entries of GUID, offset and length, then what they
//! point at (AMD 56421, section 4.1.8.1).

use super::{Bundle, FormatError, TableError};
use crate::measure::Guid;
use crate::report::SigningKey;

const ENTRY: usize = 24;
/// Most entries that are read.
const MAX_ENTRIES: usize = 32;

/// AMD Root Key.
pub const ARK: u128 = 0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae;
/// AMD SEV Key; an ASVK in tables with a VLEK.
pub const ASK: u128 = 0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782;
/// Chip's key.
pub const VCEK: u128 = 0x63da_758d_e664_4564_adc5_f4b9_3be8_accd;
/// Cloud provider's key.
pub const VLEK: u128 = 0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1;
/// Revocation list.
pub const CRL: u128 = 0x92f8_1bc3_5811_4d3d_97ff_d19f_88dc_67ea;
const KNOWN: [u128; 5] = [ARK, ASK, VCEK, VLEK, CRL];

/// A GUID as the number of its text form. Tables are seen with the text's byte order and with
/// UEFI's; the known GUIDs can't be mistaken for each other.
fn known(bytes: [u8; 16]) -> Option<u128> {
    let as_text = u128::from_be_bytes(bytes);
    KNOWN
        .into_iter()
        .find(|guid| *guid == as_text || Guid::from_u128(*guid).0 == bytes)
}

/// Whether the bytes start with an entry of a known GUID.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    bytes
        .first_chunk()
        .is_some_and(|guid| known(*guid).is_some())
}

struct Entry<'a> {
    guid: [u8; 16],
    start: usize,
    data: &'a [u8],
}

/// Reads a table. Entries of unknown GUIDs are skipped.
///
/// # Errors
/// For a table that can be read in two ways or not at all.
pub fn read(bytes: &[u8]) -> Result<Bundle, TableError> {
    let entries = entries(bytes)?;
    let mut bundle = Bundle::default();
    let mut seen = Vec::new();
    for entry in &entries {
        let Some(guid) = known(entry.guid) else {
            continue;
        };
        let name = name(guid);
        if seen.contains(&guid) {
            return Err(TableError::Duplicate(name.to_owned()));
        }
        seen.push(guid);
        let content = |error| TableError::Content(name.to_owned(), Box::new(error));
        let inner = super::certificates::plain(entry.data).map_err(content)?;
        let fits = if guid == CRL {
            inner.certificates.is_empty()
        } else {
            inner.crls.is_empty()
        };
        if !fits {
            return Err(content(FormatError::Other("another kind of thing")));
        }
        bundle.add(inner).map_err(content)?;
    }
    Ok(bundle)
}

fn name(guid: u128) -> &'static str {
    match guid {
        ARK => "ARK",
        ASK => "ASK",
        VCEK => SigningKey::Vcek.name(),
        VLEK => SigningKey::Vlek.name(),
        _ => "CRL",
    }
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, TableError> {
    let mut entries = Vec::new();
    let mut chunks = bytes.chunks_exact(ENTRY);
    let end = loop {
        let header = chunks.next().ok_or(TableError::NoEnd)?;
        if header.iter().all(|byte| *byte == 0) {
            break (entries.len() + 1) * ENTRY;
        }
        if entries.len() == MAX_ENTRIES {
            return Err(TableError::NoEnd);
        }
        let number = |at: usize| {
            let bytes: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let out = || TableError::OutOfBounds(entries.len());
        let (start, len) = (number(16).ok_or_else(out)?, number(20).ok_or_else(out)?);
        let range = start..start.checked_add(len).ok_or_else(out)?;
        let data = bytes.get(range).ok_or_else(out)?;
        let guid = header.first_chunk().copied().ok_or(TableError::NoEnd)?;
        entries.push(Entry { guid, start, data });
    };
    check_layout(bytes, end, &entries)?;
    Ok(entries)
}

/// Entries lie after the list, don't overlap, and leave nothing between them but zeros.
fn check_layout(bytes: &[u8], end: usize, entries: &[Entry<'_>]) -> Result<(), TableError> {
    let mut spans: Vec<(usize, usize, usize)> = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| (entry.start, entry.start + entry.data.len(), i))
        .collect();
    spans.sort_unstable();
    let mut at = end;
    for (start, stop, index) in spans {
        if start < end {
            return Err(TableError::OutOfBounds(index));
        }
        if start < at {
            return Err(TableError::Overlap);
        }
        stray(bytes.get(at..start))?;
        at = stop;
    }
    stray(bytes.get(at..))
}

fn stray(bytes: Option<&[u8]>) -> Result<(), TableError> {
    match bytes {
        Some(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(()),
        _ => Err(TableError::Stray),
    }
}
