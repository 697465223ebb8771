//! Where the tables of a QCOW2 file may lie, and the metadata of an empty disk.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::{
    error::{Flaw, Table},
    qcow2::{
        header::{Backing, Header, V3_LENGTH, l1_needed},
        limits::{MAX_L1_SIZE, MAX_REFTABLE_SIZE},
    },
};

/// Cluster size of every disk written here: 64 KiB, QEMU's default.
pub(crate) const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// Checks that L1 and refcount table have possible sizes and lie in a file of `len` bytes
/// without overlapping each other or the header.
pub(crate) fn check_tables(header: &Header, len: u64) -> Result<(), Flaw> {
    let cluster_size = header.cluster_size();
    if header.refcount_table_clusters == 0 {
        return Err(Flaw::NoRefcountTable);
    }
    let needed = header.l1_needed();
    if u64::from(header.l1_size) < needed {
        return Err(Flaw::L1TooSmall {
            entries: header.l1_size,
            needed,
        });
    }
    let l1 = Span {
        table: Table::L1,
        offset: header.l1_table_offset,
        size: u64::from(header.l1_size) * 8,
    };
    let refcounts = Span {
        table: Table::RefcountTable,
        offset: header.refcount_table_offset,
        size: u64::from(header.refcount_table_clusters) * cluster_size,
    };
    let first = Span {
        table: Table::Header,
        offset: 0,
        size: cluster_size,
    };
    l1.check(cluster_size, MAX_L1_SIZE, len)?;
    refcounts.check(cluster_size, MAX_REFTABLE_SIZE, len)?;
    for (a, b) in [(first, l1), (first, refcounts), (l1, refcounts)] {
        if a.offset < b.offset + b.size && b.offset < a.offset + a.size {
            return Err(Flaw::TablesOverlap {
                a: a.table,
                b: b.table,
            });
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Span {
    table: Table,
    offset: u64,
    size: u64,
}

impl Span {
    fn check(&self, cluster_size: u64, max: u64, len: u64) -> Result<(), Flaw> {
        let Span {
            table,
            offset,
            size,
        } = *self;
        if size > max {
            return Err(Flaw::TableSize {
                table,
                offset,
                size,
                max,
            });
        }
        if offset % cluster_size != 0 {
            return Err(Flaw::TableAlignment { table, offset });
        }
        if offset.checked_add(size).is_none_or(|end| end > len) {
            return Err(Flaw::TableBeyondFile {
                table,
                offset,
                size,
                len,
            });
        }
        Ok(())
    }
}

/// Everything that an empty disk's file contains: pieces to write, and holes between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Empty {
    /// Offset and bytes of each piece; the header first.
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    /// Length of the file in bytes.
    pub(crate) len: u64,
}

/// The header of an empty disk: version 3, 64 KiB clusters, 16-bit refcounts, no lazy refcounts,
/// no extended L2; refcount table, one refcount block and the L1 table follow in this order.
pub(crate) fn empty_header(size: u64, backing: Option<Backing>) -> Header {
    let l1_size = l1_needed(size, CLUSTER_BITS, 8);
    Header {
        version: 3,
        cluster_bits: CLUSTER_BITS,
        size,
        crypt_method: 0,
        // At most MAX_VIRTUAL_SIZE / 512 MiB: 32768.
        l1_size: u32::try_from(l1_size).unwrap_or(u32::MAX),
        l1_table_offset: 3 * CLUSTER,
        refcount_table_offset: CLUSTER,
        refcount_table_clusters: 1,
        nb_snapshots: 0,
        snapshots_offset: 0,
        incompatible_features: 0,
        compatible_features: 0,
        autoclear_features: 0,
        refcount_order: 4,
        header_length: V3_LENGTH,
        compression_type: 0,
        backing,
        extensions: Vec::new(),
    }
}

/// Makes a new file an empty disk of `size` bytes that stands alone.
pub(crate) fn write_empty(file: &File, size: u64) -> io::Result<()> {
    let empty = empty(&empty_header(size, None)).ok_or(io::ErrorKind::InvalidInput)?;
    file.set_len(empty.len)?;
    for (offset, bytes) in &empty.pieces {
        file.write_all_at(bytes, *offset)?;
    }
    Ok(())
}

/// The file of an empty disk; `None` where the backing file's name does not fit.
pub(crate) fn empty(header: &Header) -> Option<Empty> {
    let clusters = 3 + (u64::from(header.l1_size) * 8).div_ceil(CLUSTER);
    let refcounts = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    Some(Empty {
        pieces: vec![
            (0, header.encode()?),
            (CLUSTER, (2 * CLUSTER).to_be_bytes().to_vec()),
            (2 * CLUSTER, refcounts),
        ],
        len: clusters * CLUSTER,
    })
}
