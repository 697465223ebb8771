//! Firmware images for tests: real suffixes behind deterministic bytes, and images built entry by entry.

use sev_attest::measure::{Guid, sha256};

pub(crate) const AMD_SEV: &[u8] = include_bytes!("data/ovmf_AmdSev_suffix.bin");
pub(crate) const OVMF_X64: &[u8] = include_bytes!("data/ovmf_OvmfX64_suffix.bin");

/// An image of `len` bytes that ends in a real suffix: noise, with runs of 0x00 and 0xff pages as real
/// images have them.
pub(crate) fn firmware(suffix: &[u8], len: usize) -> Vec<u8> {
    let mut image = noise("firmware", len - suffix.len());
    for (index, page) in image.chunks_mut(4096).enumerate() {
        match index % 16 {
            3..=5 => page.fill(0xff),
            9 => page.fill(0),
            _ => {}
        }
    }
    image.extend_from_slice(suffix);
    image
}

/// `len` deterministic bytes that don't compress.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let blocks = (0u32..).flat_map(|i| sha256(format!("{seed} {i}").as_bytes()));
    blocks.take(len).collect()
}

pub(crate) const RESET_BLOCK: Guid = Guid::from_u128(0x00f771de_1a7e_4fcb_890e_68c77e2fb44e);
pub(crate) const HASH_TABLE: Guid = Guid::from_u128(0x7255371f_3a3b_4b04_927b_1da6efa8d454);
pub(crate) const METADATA: Guid = Guid::from_u128(0xdc886566_984a_4798_a75e_5585a7bf67cc);
const FOOTER: Guid = Guid::from_u128(0x96b582de_1fb2_45f7_baea_a366c55a082d);

/// A firmware image written field by field, so that each can lie.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) len: usize,
    /// GUID, data and what is added to the entry's true length.
    pub(crate) entries: Vec<(Guid, Vec<u8>, i32)>,
    /// Added to the table's true length.
    pub(crate) table_skew: i32,
    /// Bytes between the table's start and its first entry.
    pub(crate) junk: usize,
    pub(crate) footer: Guid,
    pub(crate) signature: [u8; 4],
    pub(crate) version: u32,
    /// Added to the true metadata length.
    pub(crate) size_skew: i32,
    /// Claimed number of sections, if not the true one.
    pub(crate) count: Option<u32>,
    /// Address, length, type.
    pub(crate) sections: Vec<(u32, u32, u32)>,
    /// Where the metadata begins, in bytes from the end, and what the table says of it unless
    /// [`Image::entries`] were changed.
    pub(crate) metadata_offset: u32,
}

/// Distance of the metadata of an [`Image`] from its end, unless it is said.
pub(crate) const METADATA_OFFSET: u32 = 0x800;

impl Default for Image {
    /// A good image with all that measured direct boot needs.
    fn default() -> Self {
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .collect::<Vec<_>>()
        };
        Self {
            len: 0x4000,
            entries: vec![
                (RESET_BLOCK, words(&[0x80b004]), 0),
                (HASH_TABLE, words(&[0x810c00, 0x400]), 0),
                (METADATA, words(&[METADATA_OFFSET]), 0),
            ],
            table_skew: 0,
            junk: 0,
            footer: FOOTER,
            signature: *b"ASEV",
            version: 1,
            size_skew: 0,
            count: None,
            sections: vec![
                (0x800000, 0x9000, 1),
                (0x80d000, 0x1000, 2),
                (0x80e000, 0x1000, 3),
                (0x80f000, 0x1000, 4),
                (0x810000, 0x1000, 0x10),
            ],
            metadata_offset: METADATA_OFFSET,
        }
    }
}

impl Image {
    /// The entry of that GUID.
    pub(crate) fn entry(&mut self, guid: Guid) -> &mut (Guid, Vec<u8>, i32) {
        self.entries.iter_mut().find(|(g, ..)| *g == guid).unwrap()
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut table = vec![0; self.junk];
        for (guid, data, skew) in &self.entries {
            let moved = *guid == METADATA && *data == METADATA_OFFSET.to_le_bytes();
            let data = match moved {
                true => self.metadata_offset.to_le_bytes().to_vec(),
                false => data.clone(),
            };
            table.extend_from_slice(&data);
            table.extend_from_slice(&skewed(data.len() + 18, *skew).to_le_bytes());
            table.extend_from_slice(&guid.0);
        }
        let table_len = skewed(table.len() + 18, self.table_skew);
        table.extend_from_slice(&table_len.to_le_bytes());
        table.extend_from_slice(&self.footer.0);

        let mut metadata = self.signature.to_vec();
        let size = skewed(16 + 12 * self.sections.len(), self.size_skew);
        let count = self.count.unwrap_or(self.sections.len() as u32);
        let words = [u32::from(size), self.version, count];
        let sections = self
            .sections
            .iter()
            .flat_map(|(base, len, kind)| [*base, *len, *kind]);
        metadata.extend(words.into_iter().chain(sections).flat_map(u32::to_le_bytes));

        let mut image = vec![0xa5; self.len];
        let end = self.len - 32;
        image[end - table.len()..end].copy_from_slice(&table);
        let room =
            (end - table.len()).checked_sub(self.len.saturating_sub(self.metadata_offset as usize));
        if let (Some(start), Some(room)) =
            (self.len.checked_sub(self.metadata_offset as usize), room)
        {
            let room = metadata.len().min(room);
            image[start..start + room].copy_from_slice(&metadata[..room]);
        }
        image
    }
}

fn skewed(len: usize, skew: i32) -> u16 {
    u16::try_from(len as i32 + skew).unwrap()
}
