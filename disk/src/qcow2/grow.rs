//! A larger virtual size for a QCOW2 disk that nobody uses.
//!
//! The order of writes keeps the disk whole at every moment: a larger L1 table and its refcounts
//! are written and synced before the header's one sector points to it, and the old table is
//! given back only after that. An interruption leaves at most leaked clusters.

use std::{fs::File, os::unix::fs::FileExt};

use crate::{
    error::{Flaw, ReadError, Table},
    qcow2::{
        header::{INCOMPAT_EXTENDED_L2, l1_needed},
        limits::MAX_L1_SIZE,
        tables::{OFFSET_MASK, Qcow2},
    },
};

/// Byte offset of `size` in the header.
const SIZE_AT: u64 = 24;
/// Only 16-bit refcounts, which everything writes by default, are changed here.
const REFCOUNT_ORDER: u32 = 4;

/// Sets the virtual size of the disk in `file` to `size` bytes, more than it has.
pub(crate) fn grow(file: &File, size: u64) -> Result<(), ReadError> {
    let disk = Qcow2::open(file, file.metadata()?.len())?;
    let header = &disk.header;
    header.refuse_unusable()?;
    if header.nb_snapshots != 0 {
        return Err(Flaw::Unsupported {
            what: "growing a disk with internal snapshots",
        }
        .into());
    }
    if header.has(INCOMPAT_EXTENDED_L2) {
        return Err(Flaw::Unsupported {
            what: "growing a disk with extended L2 entries",
        }
        .into());
    }
    let cluster_size = header.cluster_size();
    let old_offset = header.l1_table_offset;
    let old = u64::from(header.l1_size);
    let new = l1_needed(size, header.cluster_bits, header.l2_entry_size()).max(old);
    if new * 8 > MAX_L1_SIZE {
        let (table, offset) = (Table::L1, old_offset);
        return Err(Flaw::TableSize {
            table,
            offset,
            size: new * 8,
            max: MAX_L1_SIZE,
        }
        .into());
    }

    let capacity = (old * 8).next_multiple_of(cluster_size);
    if new * 8 <= capacity {
        // The rest of the table's last cluster belongs to it, but need not be zero.
        let zeros = vec![0; usize::try_from((new - old) * 8).unwrap_or(0)];
        file.write_all_at(&zeros, old_offset + old * 8)?;
        file.sync_all()?;
        return write_header(&disk, size, new, old_offset);
    }

    let new_len = (new * 8).next_multiple_of(cluster_size);
    let new_offset = append(&disk, new_len)?;
    for (i, entry) in (0..).zip(disk.l1()?) {
        file.write_all_at(&entry.to_be_bytes(), new_offset + i * 8)?;
    }
    file.sync_all()?;
    write_header(&disk, size, new, new_offset)?;
    set_refcounts(&disk, &disk.refcount_table()?, old_offset, capacity, 0)?;
    file.sync_all()?;
    Ok(())
}

/// size, crypt_method, l1_size and l1_table_offset: 24 bytes of one sector.
fn write_header(disk: &Qcow2, size: u64, l1_size: u64, l1_offset: u64) -> Result<(), ReadError> {
    let mut fields = Vec::with_capacity(24);
    fields.extend(size.to_be_bytes());
    fields.extend(disk.header.crypt_method.to_be_bytes());
    fields.extend(u32::try_from(l1_size).unwrap_or(u32::MAX).to_be_bytes());
    fields.extend(l1_offset.to_be_bytes());
    disk.file.write_all_at(&fields, SIZE_AT)?;
    disk.file.sync_all()?;
    Ok(())
}

/// Adds `len` zero bytes of clusters at the end of the file, with refcount 1 and the refcount
/// blocks they need.
fn append(disk: &Qcow2, len: u64) -> Result<u64, ReadError> {
    if disk.header.refcount_order != REFCOUNT_ORDER {
        return Err(Flaw::Unsupported {
            what: "moving the L1 table without 16-bit refcounts",
        }
        .into());
    }
    let cluster_size = disk.header.cluster_size();
    // A refcount block covers its own cluster's worth of 2-byte entries.
    let covered = cluster_size / 2 * cluster_size;
    let mut table = disk.refcount_table()?;
    let start = disk.len.next_multiple_of(cluster_size);
    let mut end = start + len;
    let mut new_blocks: Vec<(u64, u64)> = Vec::new();
    let mut index = start / covered;
    while index * covered < end {
        match usize::try_from(index).ok().and_then(|i| table.get_mut(i)) {
            None => {
                let what = "growing a disk whose refcount table is full";
                return Err(Flaw::Unsupported { what }.into());
            }
            Some(entry) if *entry == 0 => {
                *entry = end;
                new_blocks.push((index, end));
                end += cluster_size;
            }
            Some(_) => (),
        }
        index += 1;
    }
    disk.file.set_len(end)?;
    set_refcounts(disk, &table, start, end - start, 1)?;
    disk.file.sync_all()?;
    for (index, offset) in new_blocks {
        let at = disk.header.refcount_table_offset + index * 8;
        disk.file.write_all_at(&offset.to_be_bytes(), at)?;
    }
    Ok(start)
}

/// Sets the 16-bit refcounts of the clusters from `offset` on, `len` bytes of them.
fn set_refcounts(
    disk: &Qcow2,
    table: &[u64],
    offset: u64,
    len: u64,
    count: u16,
) -> Result<(), ReadError> {
    let cluster_size = disk.header.cluster_size();
    let per_block = cluster_size / 2;
    for cluster in offset / cluster_size..(offset + len).div_ceil(cluster_size) {
        let entry = usize::try_from(cluster / per_block)
            .ok()
            .and_then(|i| table.get(i));
        let Some(block) = entry.map(|e| e & OFFSET_MASK).filter(|&b| b != 0) else {
            continue;
        };
        disk.file
            .write_all_at(&count.to_be_bytes(), block + cluster % per_block * 2)?;
    }
    Ok(())
}
