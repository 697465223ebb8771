//! The table of hashes by which the firmware recognises kernel, initial RAM disk and command line.
//!
//! Layout as QEMU builds it (`target/i386/sev.c`, `build_kernel_loader_hashes`) and OVMF's AmdSev
//! build reads it: a header GUID and length, then one entry each for command line, initial RAM disk
//! and kernel, padded to 16 bytes. SEV and SEV-ES measure the table alone; SNP a page with the
//! table at its place in it.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::error::MeasureError;
use super::guid::Guid;
use super::sha384::PAGE;

const HEADER: Guid = Guid::from_u128(0x9438d606_4f22_4cc9_b479_a793d411fd21);
const KERNEL: Guid = Guid::from_u128(0x4de79437_abd2_427f_b835_d5b172d2045b);
const INITRD: Guid = Guid::from_u128(0x44baf731_3a2f_4bd7_9af1_41e29169781d);
const CMDLINE: Guid = Guid::from_u128(0x97d02dd8_bd20_4c94_aa78_e7714d36ab2a);

const SHA256_LEN: usize = 32;
/// GUID and 16-bit length in front of the table and of each entry.
const HEAD: usize = 18;
const ENTRY: usize = HEAD + SHA256_LEN;
const TABLE: usize = HEAD + 3 * ENTRY;
/// Bytes of the table with its padding.
pub(super) const PADDED_TABLE: usize = TABLE.next_multiple_of(16);

/// SHA-256 hashes of what direct boot loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelHashes {
    /// Of the kernel file.
    pub kernel: [u8; SHA256_LEN],
    /// Of the initial RAM disk file; of nothing when there is none.
    pub initrd: [u8; SHA256_LEN],
    /// Of the command line with its terminating NUL.
    pub cmdline: [u8; SHA256_LEN],
}

impl KernelHashes {
    /// Hashes of contents in memory.
    ///
    /// # Errors
    /// When the command line holds a NUL byte.
    pub fn new(kernel: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> Result<Self, MeasureError> {
        let initrd = initrd.unwrap_or_default();
        Self::from_hashes(sha256(kernel), Some(sha256(initrd)), cmdline)
    }

    /// From hashes already known (no initial RAM disk: the hash of nothing) and a command line.
    ///
    /// # Errors
    /// When the command line holds a NUL byte.
    pub fn from_hashes(
        kernel: [u8; SHA256_LEN],
        initrd: Option<[u8; SHA256_LEN]>,
        cmdline: &str,
    ) -> Result<Self, MeasureError> {
        if cmdline.contains('\0') {
            return Err(MeasureError::CommandLineNul);
        }
        let initrd = initrd.unwrap_or_else(|| sha256(&[]));
        let cmdline = Sha256::new()
            .chain_update(cmdline)
            .chain_update([0])
            .finalize()
            .into();
        Ok(Self {
            kernel,
            initrd,
            cmdline,
        })
    }

    /// The table, padded.
    #[must_use]
    pub fn table(&self) -> [u8; PADDED_TABLE] {
        let mut bytes = Vec::with_capacity(PADDED_TABLE);
        let head = |bytes: &mut Vec<u8>, guid: Guid, len: usize| {
            bytes.extend_from_slice(&guid.0);
            bytes.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
        };
        head(&mut bytes, HEADER, TABLE);
        for (guid, hash) in [
            (CMDLINE, &self.cmdline),
            (INITRD, &self.initrd),
            (KERNEL, &self.kernel),
        ] {
            head(&mut bytes, guid, ENTRY);
            bytes.extend_from_slice(hash);
        }
        let mut table = [0; PADDED_TABLE];
        for (to, from) in table.iter_mut().zip(bytes) {
            *to = from;
        }
        table
    }

    /// A page that is zero but for the table at `offset`, or `None` when it doesn't fit.
    #[must_use]
    pub fn page(&self, offset: usize) -> Option<[u8; PAGE]> {
        let mut page = [0; PAGE];
        page.get_mut(offset..)?
            .get_mut(..PADDED_TABLE)?
            .copy_from_slice(&self.table());
        Some(page)
    }
}

/// SHA-256 of `data`.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; SHA256_LEN] {
    Sha256::digest(data).into()
}

/// Longest kernel or initial RAM disk that can be booted: QEMU hands on their lengths in 32 bits.
const MAX_BOOT_FILE: u64 = u32::MAX as u64;

/// SHA-256 of all that `source` yields, in constant memory.
///
/// # Errors
/// When reading fails, and for more than can be booted.
pub fn sha256_reader(source: impl Read) -> io::Result<[u8; SHA256_LEN]> {
    sha256_within(source, MAX_BOOT_FILE)
}

fn sha256_within(mut source: impl Read, max: u64) -> io::Result<[u8; SHA256_LEN]> {
    let mut buffer = vec![0; 256 << 10];
    let mut hash = Sha256::new();
    let mut left = max;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(n) => {
                left = u64::try_from(n)
                    .ok()
                    .and_then(|n| left.checked_sub(n))
                    .ok_or_else(|| io::Error::other(format!("longer than {max} bytes")))?;
                hash.update(buffer.get(..n).unwrap_or_default());
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_end_is_given_up() {
        let hash = |bytes: &[u8]| sha256_within(bytes, 1 << 20);
        assert!(hash(&vec![0; 1 << 20]).is_ok());
        assert!(hash(&vec![0; (1 << 20) + 1]).is_err());
        assert!(sha256_within(io::repeat(0), 1 << 20).is_err());
    }

    #[test]
    fn table_layout() {
        let hashes = KernelHashes {
            kernel: [3; 32],
            initrd: [2; 32],
            cmdline: [1; 32],
        };
        let table = hashes.table();
        assert_eq!(table.len(), 176);
        assert_eq!(&table[..16], &HEADER.0);
        assert_eq!(&table[16..18], &168u16.to_le_bytes());
        for (i, (guid, byte)) in [(CMDLINE, 1), (INITRD, 2), (KERNEL, 3)]
            .into_iter()
            .enumerate()
        {
            let entry = &table[18 + 50 * i..][..50];
            assert_eq!(&entry[..16], &guid.0);
            assert_eq!(&entry[16..18], &50u16.to_le_bytes());
            assert_eq!(&entry[18..], &[byte; 32]);
        }
        assert_eq!(&table[168..], &[0; 8]);
        assert_eq!(&hashes.page(0xc00).unwrap()[0xc00..][..176], &table);
        assert!(hashes.page(PAGE - 176).is_some());
        assert!(hashes.page(PAGE - 175).is_none());
        assert!(hashes.page(usize::MAX).is_none());
    }

    #[test]
    fn command_line_ends_with_nul_and_holds_none() {
        let hashes = KernelHashes::new(b"k", None, "a b").unwrap();
        assert_eq!(hashes.cmdline, sha256(b"a b\0"));
        assert_eq!(hashes.initrd, sha256(b""));
        assert_eq!(
            KernelHashes::new(b"", None, "a\0b"),
            Err(MeasureError::CommandLineNul)
        );
    }

    #[test]
    fn reader_and_slice_agree() {
        let data: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(sha256_reader(data.as_slice()).unwrap(), sha256(&data));
    }
}
