//! Reading a QCOW2 file's tables: every offset is compared with the file's length before it is
//! followed, and memory is bounded by the largest L1 table (32 MiB), the list of the clusters it
//! points to (as much again) and one cluster.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::{
    error::{Flaw, ReadError, Table},
    qcow2::{
        header::{Header, PROBE_LENGTH, probe_cluster_size},
        layout,
    },
};

/// Bits 9 to 55 of an L1, L2 or refcount table entry: the offset.
pub(crate) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

/// Bit 63 of an L1 or L2 entry: the refcount is exactly one.
pub(crate) const COPIED: u64 = 1 << 63;

/// Bit 62 of an L2 entry: a compressed cluster.
pub(crate) const COMPRESSED: u64 = 1 << 62;

/// L1 entry bits that must be zero: 0-8 and 56-62.
const L1_RESERVED: u64 = !(OFFSET_MASK | COPIED);
/// Standard L2 entry bits that must be zero: 1-8 and 56-61. Bit 0 is the zero flag.
const L2_RESERVED: u64 = !(OFFSET_MASK | COPIED | COMPRESSED | 1);

/// Bytes of a table that are read at a time.
const READ: usize = 1 << 20;

/// A QCOW2 file whose header and table positions have been checked.
pub(crate) struct Qcow2<'a> {
    pub(crate) file: &'a File,
    pub(crate) len: u64,
    pub(crate) header: Header,
}

/// What an L2 entry maps a guest cluster to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Nothing of its own.
    Unallocated,
    /// A cluster at `offset`; `copied` is the entry's COPIED flag.
    Standard { offset: u64, copied: bool },
    /// `len` compressed bytes (rounded up to sectors) at `offset`.
    Compressed { offset: u64, len: u64 },
}

impl<'a> Qcow2<'a> {
    /// Reads and checks the header of `file`, which has `len` bytes.
    pub(crate) fn open(file: &'a File, len: u64) -> Result<Self, ReadError> {
        let header = Header::parse(&first_cluster(file, len)?)?;
        layout::check_tables(&header, len)?;
        Ok(Qcow2 { file, len, header })
    }

    /// [`Qcow2::open`] for an image from outside. What the header asks for is refused before
    /// where its tables lie is looked at: the first is the better explanation.
    pub(crate) fn open_foreign(file: &'a File, len: u64) -> Result<Self, ReadError> {
        let header = Header::parse(&first_cluster(file, len)?)?;
        header.refuse_foreign()?;
        layout::check_tables(&header, len)?;
        Ok(Qcow2 { file, len, header })
    }

    /// The L1 table's entries.
    pub(crate) fn l1(&self) -> Result<Vec<u64>, ReadError> {
        Ok(read_entries(
            self.file,
            self.header.l1_table_offset,
            u64::from(self.header.l1_size),
        )?)
    }

    /// The refcount table's entries.
    pub(crate) fn refcount_table(&self) -> Result<Vec<u64>, ReadError> {
        let clusters = u64::from(self.header.refcount_table_clusters);
        let entries = clusters * self.header.cluster_size() / 8;
        Ok(read_entries(
            self.file,
            self.header.refcount_table_offset,
            entries,
        )?)
    }

    /// The offset that an L1 entry points to, checked; `None` for none.
    pub(crate) fn l1_target(&self, index: u64, entry: u64) -> Result<Option<u64>, Flaw> {
        if entry & L1_RESERVED != 0 {
            return Err(Flaw::ReservedBits {
                table: Table::L1,
                index,
                entry,
            });
        }
        self.table_target(Table::L1, index, entry & OFFSET_MASK)
    }

    /// The offset of a refcount block, checked; `None` for none.
    pub(crate) fn refcount_target(&self, index: u64, entry: u64) -> Result<Option<u64>, Flaw> {
        // Bits 0 to 8 are reserved; an offset has all others.
        if entry & 0x1ff != 0 {
            return Err(Flaw::ReservedBits {
                table: Table::RefcountTable,
                index,
                entry,
            });
        }
        self.table_target(Table::RefcountTable, index, entry)
    }

    /// A table of one cluster: aligned, and begun in the file. Some writers leave out the zeros at
    /// the end of the last one; QEMU reads what a file does not have as zeros.
    fn table_target(&self, table: Table, index: u64, offset: u64) -> Result<Option<u64>, Flaw> {
        if offset == 0 {
            return Ok(None);
        }
        let cluster_size = self.header.cluster_size();
        if !offset.is_multiple_of(cluster_size) {
            return Err(Flaw::EntryAlignment {
                table,
                index,
                offset,
            });
        }
        if offset >= self.len {
            return Err(Flaw::EntryBeyondFile {
                table,
                index,
                offset,
                len: self.len,
            });
        }
        Ok(Some(offset))
    }

    /// The words of the L2 table at `offset` that describe clusters. The bitmaps of extended
    /// entries are compared with them, and left out. `first` counts guest clusters before the
    /// table's.
    pub(crate) fn l2(&self, offset: u64, first: u64) -> Result<Vec<u64>, ReadError> {
        let words = read_entries(self.file, offset, self.header.cluster_size() / 8)?;
        if self.header.l2_entry_size() == 8 {
            return Ok(words);
        }
        let mut entries = Vec::with_capacity(words.len() / 2);
        for (index, pair) in (first..).zip(words.chunks_exact(2)) {
            let &[entry, bitmap] = pair else { continue };
            // Bits 0 to 31: subclusters that are there; 32 to 63: that read as zeros.
            let (there, zeros) = (bitmap & 0xffff_ffff, bitmap >> 32);
            let compressed = entry & COMPRESSED != 0;
            let nowhere = !compressed && entry & OFFSET_MASK == 0;
            if there & zeros != 0 || nowhere && there != 0 || compressed && bitmap != 0 {
                return Err(Flaw::Subclusters { index, bitmap }.into());
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// What an L2 entry means, checked. `index` counts guest clusters from the disk's start.
    pub(crate) fn l2_target(&self, index: u64, entry: u64) -> Result<Mapping, Flaw> {
        let (table, len) = (Table::L2, self.len);
        if entry & COMPRESSED != 0 {
            // x = 62 - (cluster_bits - 8): offset in bits 0 to x-1, additional sectors above.
            let x = 70 - self.header.cluster_bits;
            let offset = entry & ((1 << x) - 1);
            let sectors = ((entry & (COMPRESSED - 1)) >> x) + 1;
            if entry & COPIED != 0 {
                return Err(Flaw::ReservedBits {
                    table,
                    index,
                    entry,
                });
            }
            if offset >= len {
                return Err(Flaw::EntryBeyondFile {
                    table,
                    index,
                    offset,
                    len,
                });
            }
            return Ok(Mapping::Compressed {
                offset,
                len: sectors * 512 - offset % 512,
            });
        }
        // Bit 0 reads as zeros in version 3, without extended entries: these have a bitmap.
        let header = &self.header;
        let zero_flag = header.version >= 3 && header.l2_entry_size() == 8;
        if entry & L2_RESERVED != 0 || entry & 1 != 0 && !zero_flag {
            return Err(Flaw::ReservedBits {
                table,
                index,
                entry,
            });
        }
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(Mapping::Unallocated);
        }
        if !offset.is_multiple_of(self.header.cluster_size()) {
            return Err(Flaw::EntryAlignment {
                table,
                index,
                offset,
            });
        }
        // The file may end inside its last cluster.
        if offset >= len {
            return Err(Flaw::EntryBeyondFile {
                table,
                index,
                offset,
                len,
            });
        }
        Ok(Mapping::Standard {
            offset,
            copied: entry & COPIED != 0,
        })
    }

    /// Follows every entry of every table. A cluster of metadata in use twice is refused (there
    /// are no snapshots to share it), so the work is bounded by the file's length.
    pub(crate) fn walk(&self) -> Result<Allocated, ReadError> {
        let (refcounts, l1) = (self.refcount_table()?, self.l1()?);
        let mut metadata = self.fixed_metadata();
        let used = refcounts
            .iter()
            .chain(&l1)
            .filter(|&&entry| entry != 0)
            .count();
        metadata.reserve_exact(used);
        for (index, &entry) in (0..).zip(&refcounts) {
            metadata.extend(self.refcount_target(index, entry)?);
        }
        for (index, &entry) in (0..).zip(&l1) {
            metadata.extend(self.l1_target(index, entry)?);
        }
        metadata.sort_unstable();
        if let Some(&[offset, ..]) = metadata
            .windows(2)
            .find(|pair| matches!(pair, [a, b] if a == b))
        {
            return Err(used_twice(offset, &refcounts, &l1).into());
        }

        let per_table = self.header.cluster_size() / self.header.l2_entry_size();
        let mut allocated = Allocated::default();
        for (l1_index, &entry) in (0..).zip(&l1) {
            let Some(table) = self.l1_target(l1_index, entry)? else {
                continue;
            };
            let first = l1_index * per_table;
            for (i, entry) in (0..).zip(self.l2(table, first)?) {
                let index = first + i;
                match self.l2_target(index, entry)? {
                    Mapping::Unallocated => (),
                    Mapping::Standard { offset, .. } if metadata.binary_search(&offset).is_ok() => {
                        return Err(Flaw::EntryToMetadata { index, offset }.into());
                    }
                    Mapping::Standard { .. } => allocated.standard += 1,
                    Mapping::Compressed { .. } => allocated.compressed += 1,
                }
            }
        }
        Ok(allocated)
    }

    /// Offsets of the clusters of header, L1 and refcount table.
    fn fixed_metadata(&self) -> Vec<u64> {
        let cluster_size = self.header.cluster_size();
        let l1 = (u64::from(self.header.l1_size) * 8).div_ceil(cluster_size);
        let refcounts = u64::from(self.header.refcount_table_clusters);
        let clusters = |start: u64, count| (0..count).map(move |i| start + i * cluster_size);
        std::iter::once(0)
            .chain(clusters(self.header.l1_table_offset, l1))
            .chain(clusters(self.header.refcount_table_offset, refcounts))
            .collect()
    }
}

/// Names the last entry that points to metadata which something else uses too.
fn used_twice(offset: u64, refcounts: &[u64], l1: &[u64]) -> Flaw {
    let last = |entries: &[u64]| entries.iter().rposition(|e| e & OFFSET_MASK == offset);
    let (table, index) = match (last(l1), last(refcounts)) {
        (Some(index), _) => (Table::L1, index),
        (None, index) => (Table::RefcountTable, index.unwrap_or(0)),
    };
    Flaw::EntryTwice {
        table,
        index: index as u64,
        offset,
    }
}

/// How many guest clusters have content of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Allocated {
    pub(crate) standard: u64,
    pub(crate) compressed: u64,
}

/// The file's first cluster, or all of a shorter file; at most 2 MiB.
fn first_cluster(file: &File, len: u64) -> Result<Vec<u8>, ReadError> {
    let mut start = [0; PROBE_LENGTH];
    let want = PROBE_LENGTH.min(usize::try_from(len).unwrap_or(PROBE_LENGTH));
    let start = start.get_mut(..want).unwrap_or_default();
    file.read_exact_at(start, 0)?;
    let cluster_size = probe_cluster_size(start)?;
    let mut cluster = vec![0; usize::try_from(cluster_size.min(len)).unwrap_or(0)];
    file.read_exact_at(&mut cluster, 0)?;
    Ok(cluster)
}

/// Fills `block` from `offset` on; with zeros where the file has ended.
pub(crate) fn read_padded(file: &File, block: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = block.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads `count` big-endian words; callers have bounded `count`.
fn read_entries(file: &File, offset: u64, count: u64) -> io::Result<Vec<u64>> {
    let count = usize::try_from(count).map_err(io::Error::other)?;
    let mut entries = Vec::with_capacity(count);
    let mut block = vec![0; READ.min(count * 8)];
    while entries.len() < count {
        let block = block
            .get_mut(..READ.min((count - entries.len()) * 8))
            .unwrap_or_default();
        read_padded(file, block, offset + entries.len() as u64 * 8)?;
        entries.extend(
            block
                .chunks_exact(8)
                .filter_map(|w| w.try_into().ok().map(u64::from_be_bytes)),
        );
    }
    Ok(entries)
}
