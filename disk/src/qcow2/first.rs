//! The first sector of a disk, as its guest sees it.

use std::io::Read as _;

use flate2::read::DeflateDecoder;

use crate::{
    error::ReadError,
    qcow2::tables::{Mapping, Qcow2, read_padded},
};

/// Bytes of a sector.
const SECTOR: usize = 512;

impl Qcow2<'_> {
    /// The first sector of an image that stands alone and was walked; `None` where it is not
    /// read here: compressed with zstd or not soundly, or with extended L2 entries.
    pub(crate) fn first_sector(&self) -> Result<Option<[u8; SECTOR]>, ReadError> {
        let mut sector = [0; SECTOR];
        if self.header.l2_entry_size() != 8 {
            return Ok(None);
        }
        let word = |offset| {
            let mut word = [0; 8];
            read_padded(self.file, &mut word, offset).map(|()| u64::from_be_bytes(word))
        };
        let Some(table) = self.l1_target(0, word(self.header.l1_table_offset)?)? else {
            return Ok(Some(sector));
        };
        let entry = word(table)?;
        match self.l2_target(0, entry)? {
            Mapping::Unallocated => (),
            // Bit 0: it reads as zeros, whatever is there.
            Mapping::Standard { .. } if entry & 1 != 0 => (),
            Mapping::Standard { offset, .. } => read_padded(self.file, &mut sector, offset)?,
            Mapping::Compressed { offset, len } => {
                if self.header.compression_type != 0 {
                    return Ok(None);
                }
                // No more than a cluster and a sector.
                let mut packed = vec![0; usize::try_from(len).unwrap_or(0)];
                read_padded(self.file, &mut packed, offset)?;
                let mut unpacked = DeflateDecoder::new(packed.as_slice());
                if unpacked.read_exact(&mut sector).is_err() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(sector))
    }
}
