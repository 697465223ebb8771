//! Are the refcounts of a QCOW2 disk what its tables say?
//!
//! The same comparison as `qemu-img check` makes, without repair. Memory: four bytes for each
//! cluster of the file, within [`MAX_CLUSTERS`].

use std::fs::File;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Flaw, ReadError},
    qcow2::tables::{COPIED, Mapping, Qcow2, read_padded},
};

/// Most clusters of a file that can be checked: 4 TiB with 64 KiB clusters, 256 MiB of memory.
const MAX_CLUSTERS: u64 = 1 << 26;
/// Findings that are described in words; all are counted.
const MAX_FINDINGS: usize = 20;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckReport {
    /// Guest clusters with content of their own.
    pub allocated_clusters: u64,
    /// Of these, compressed.
    pub compressed_clusters: u64,
    /// Clusters of the file that are counted as used and are not: wasted space, no danger.
    pub leaked_clusters: u64,
    /// Clusters in use whose refcount is too low, or flags that contradict it: writing to the
    /// disk can destroy data.
    pub corruptions: u64,
    /// The first findings in words.
    pub findings: Vec<String>,
}

impl CheckReport {
    /// Neither leaks nor corruptions.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.leaked_clusters == 0 && self.corruptions == 0
    }

    fn note(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding());
        }
    }
}

/// Checks the disk in `file`, which has `len` bytes.
pub(crate) fn check(file: &File, len: u64) -> Result<CheckReport, ReadError> {
    let disk = Qcow2::open(file, len)?;
    disk.header.refuse_unusable()?;
    if disk.header.nb_snapshots != 0 {
        return Err(Flaw::Unsupported {
            what: "checking a disk with internal snapshots",
        }
        .into());
    }
    let cluster_size = disk.header.cluster_size();
    let clusters = len.div_ceil(cluster_size);
    if clusters > MAX_CLUSTERS {
        return Err(Flaw::Unsupported {
            what: "checking a file of so many clusters",
        }
        .into());
    }
    let clusters = usize::try_from(clusters).unwrap_or(usize::MAX);
    let mut count = Counts {
        of: vec![Use::default(); clusters],
        cluster_size,
    };
    let mut report = CheckReport::default();

    count.add(0, cluster_size);
    count.add(
        disk.header.l1_table_offset,
        u64::from(disk.header.l1_size) * 8,
    );
    let refcount_table = disk.refcount_table()?;
    count.add(
        disk.header.refcount_table_offset,
        refcount_table.len() as u64 * 8,
    );
    let mut blocks = Vec::with_capacity(refcount_table.len());
    for (index, entry) in (0..).zip(refcount_table) {
        let target = disk.refcount_target(index, entry)?;
        if let Some(offset) = target {
            count.add(offset, cluster_size);
        }
        blocks.push(target);
    }

    let per_table = cluster_size / disk.header.l2_entry_size();
    for (l1_index, entry) in (0..).zip(disk.l1()?) {
        let Some(table) = disk.l1_target(l1_index, entry)? else {
            continue;
        };
        count.add(table, cluster_size);
        count.claim(table, entry & COPIED != 0);
        // A table that is met again and again is corrupt; its content adds nothing.
        if count.times(table) > 1 {
            continue;
        }
        for (i, entry) in (0..).zip(disk.l2(table, l1_index * per_table)?) {
            match disk.l2_target(l1_index * per_table + i, entry)? {
                Mapping::Unallocated => continue,
                Mapping::Standard { offset, copied } => {
                    count.add(offset, cluster_size);
                    count.claim(offset, copied);
                }
                Mapping::Compressed { offset, len } => {
                    count.add(offset, len);
                    report.compressed_clusters += 1;
                }
            }
            report.allocated_clusters += 1;
        }
    }

    let stored = Refcounts {
        disk: &disk,
        blocks,
    };
    stored.compare(&count, &mut report)?;
    Ok(report)
}

/// How often each cluster of the file is used.
struct Counts {
    of: Vec<Use>,
    cluster_size: u64,
}

#[derive(Clone, Copy, Default)]
struct Use {
    times: u16,
    /// Some entry's COPIED flag says that this is the only use.
    claimed_copied: bool,
    /// Some entry's says that it is not.
    claimed_shared: bool,
}

impl Counts {
    fn at(&mut self, offset: u64) -> Option<&mut Use> {
        usize::try_from(offset / self.cluster_size)
            .ok()
            .and_then(|i| self.of.get_mut(i))
    }

    fn add(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len.max(1));
        let mut at = offset - offset % self.cluster_size;
        while at < end {
            // Beyond the file: only the slack of the last compressed cluster.
            let Some(used) = self.at(at) else { break };
            used.times = used.times.saturating_add(1);
            at += self.cluster_size;
        }
    }

    fn claim(&mut self, offset: u64, copied: bool) {
        if let Some(used) = self.at(offset) {
            used.claimed_copied |= copied;
            used.claimed_shared |= !copied;
        }
    }

    fn times(&mut self, offset: u64) -> u16 {
        self.at(offset).map_or(0, |used| used.times)
    }
}

/// The refcounts that the file stores.
struct Refcounts<'a> {
    disk: &'a Qcow2<'a>,
    blocks: Vec<Option<u64>>,
}

impl Refcounts<'_> {
    fn compare(&self, count: &Counts, report: &mut CheckReport) -> Result<(), ReadError> {
        let order = self.disk.header.refcount_order;
        let cluster_size = count.cluster_size;
        let per_block = usize::try_from((cluster_size * 8) >> order)
            .unwrap_or(usize::MAX)
            .max(1);
        let mut bytes = vec![0; usize::try_from(cluster_size).unwrap_or(0)];
        let mut used = count.of.chunks(per_block);
        for (index, block) in self.blocks.iter().enumerate() {
            let used = used.next().unwrap_or(&[]);
            match block {
                Some(offset) => read_padded(self.disk.file, &mut bytes, *offset)?,
                None if used.is_empty() => continue,
                None => bytes.fill(0),
            }
            for i in 0..per_block {
                // Beyond the file's end nothing is wasted, whatever is counted there.
                let Some(used) = used.get(i) else { break };
                let stored = refcount_at(&bytes, order, i);
                let cluster = index * per_block + i;
                let times = u64::from(used.times);
                if stored != times {
                    if stored > times {
                        report.leaked_clusters += 1;
                    } else {
                        report.corruptions += 1;
                    }
                    report.note(|| {
                        format!("cluster {cluster} is used {times} times, its refcount is {stored}")
                    });
                }
                // Writers trust the flag instead of the refcount, so it is held against that.
                if (used.claimed_copied && stored != 1) || (used.claimed_shared && stored == 1) {
                    report.corruptions += 1;
                    report.note(|| {
                        format!("cluster {cluster} has refcount {stored}, its COPIED flag differs")
                    });
                }
            }
        }
        // Clusters that no refcount block covers.
        for used in used.flatten().filter(|u| u.times > 0) {
            let times = used.times;
            report.corruptions += 1;
            report.note(|| format!("a cluster used {times} times is beyond the refcount table"));
        }
        Ok(())
    }
}

/// Entry `i` of a refcount block with entries of 2^`order` bits: big-endian, and from the least
/// significant bit up below a byte.
fn refcount_at(block: &[u8], order: u32, i: usize) -> u64 {
    if order < 3 {
        let bits = 1 << order;
        let per_byte = 8 / bits;
        let byte = block.get(i / per_byte).copied().unwrap_or(0);
        return u64::from(byte >> ((i % per_byte) * bits)) & ((1 << bits) - 1);
    }
    let len = 1 << (order - 3);
    let bytes = block.get(i * len..(i + 1) * len).unwrap_or(&[]);
    bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_every_width() {
        let block = [0b1010_0110, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
        assert_eq!(
            [0, 1, 2, 7].map(|i| refcount_at(&block, 0, i)),
            [0, 1, 1, 1]
        );
        assert_eq!(
            [0, 1, 2, 3].map(|i| refcount_at(&block, 1, i)),
            [2, 1, 2, 2]
        );
        assert_eq!([0, 1].map(|i| refcount_at(&block, 2, i)), [6, 10]);
        assert_eq!(refcount_at(&block, 3, 1), 0x12);
        assert_eq!(refcount_at(&block, 4, 1), 0x3456);
        assert_eq!(refcount_at(&block, 5, 1), 0x789a_bcde);
        assert_eq!(refcount_at(&block, 6, 0), 0xa612_3456_789a_bcde);
        assert_eq!(refcount_at(&block, 6, 1), 0);
    }
}
