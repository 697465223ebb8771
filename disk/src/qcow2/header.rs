//! The QCOW2 header: fields, extensions and backing file name.
//!
//! [`Header::parse`] accepts exactly what the format allows, whatever the image is for; what an
//! image from outside may not use is [`Header::refuse_foreign`]'s business, and where its tables
//! lie that of [`super::layout`]. [`Header::encode`] is its inverse.

use super::limits::MAX_VIRTUAL_SIZE as MAX;
use crate::{error::Flaw, format::Format, units::ByteSize};

/// `QFI\xfb`.
pub const MAGIC: u32 = 0x5146_49fb;
/// Length of a version 2 header in bytes.
pub const V2_LENGTH: u32 = 72;
/// Shortest version 3 header in bytes.
pub const V3_MIN_LENGTH: u32 = 104;
/// Length of the version 3 headers that are written here (with `compression_type`).
pub const V3_LENGTH: u32 = 112;
/// Longest backing file name in bytes.
pub const MAX_BACKING_NAME: usize = 1023;
/// More extensions than any program writes.
pub const MAX_EXTENSIONS: usize = 32;
/// Bytes of a file that are enough to learn its cluster size.
pub const PROBE_LENGTH: usize = 112;

/// `incompatible_features` bit 0: refcounts may be wrong.
pub const INCOMPAT_DIRTY: u64 = 1;
/// `incompatible_features` bit 1: any structure may be wrong.
pub const INCOMPAT_CORRUPT: u64 = 1 << 1;
/// `incompatible_features` bit 2: guest data is in another file.
pub const INCOMPAT_DATA_FILE: u64 = 1 << 2;
/// `incompatible_features` bit 3: `compression_type` is not zlib.
pub const INCOMPAT_COMPRESSION: u64 = 1 << 3;
/// `incompatible_features` bit 4: L2 entries of 16 bytes.
pub const INCOMPAT_EXTENDED_L2: u64 = 1 << 4;
const INCOMPAT_KNOWN: u64 = 0x1f;
/// `autoclear_features` bit 0: the bitmaps extension is consistent.
const AUTOCLEAR_BITMAPS: u64 = 1;
/// `autoclear_features` bit 1: the external data file is raw.
const AUTOCLEAR_RAW_EXTERNAL: u64 = 1 << 1;

/// Header extension types.
pub mod extension {
    /// End of the list.
    pub const END: u32 = 0;
    /// Name of the backing file's format.
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    /// Persistent bitmaps.
    pub const BITMAPS: u32 = 0x2385_2875;
    /// LUKS header of an encrypted image.
    pub const ENCRYPTION: u32 = 0x0537_be77;
    /// Name of the external data file.
    pub const DATA_FILE: u32 = 0x4441_5441;
}

/// A header extension other than the backing format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its type, see [`extension`].
    pub kind: u32,
    /// Its data, without padding.
    pub data: Vec<u8>,
}

/// What a header says about its backing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// The name as written: a path, absolute in everything this crate writes.
    pub name: String,
    /// The format's name ("qcow2", "raw"); without it QEMU would guess.
    pub format: Option<String>,
}

/// A QCOW2 header, version 2 or 3. Offsets are bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are those of docs/interop/qcow2.rst"
)]
pub struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// Virtual size in bytes.
    pub size: u64,
    pub crypt_method: u32,
    /// Entries of the L1 table.
    pub l1_size: u32,
    pub l1_table_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u32,
    pub nb_snapshots: u32,
    pub snapshots_offset: u64,
    pub incompatible_features: u64,
    pub compatible_features: u64,
    pub autoclear_features: u64,
    pub refcount_order: u32,
    pub header_length: u32,
    pub compression_type: u8,
    pub backing: Option<Backing>,
    pub extensions: Vec<Extension>,
}

/// Big-endian fields of a byte slice; `None` beyond its end.
#[derive(Clone, Copy)]
pub(crate) struct Be<'a>(pub(crate) &'a [u8]);

impl<'a> Be<'a> {
    pub(crate) fn bytes(self, at: usize, len: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(len)?)
    }

    pub(crate) fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(at, 4)?.try_into().ok()?))
    }

    pub(crate) fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_be_bytes(self.bytes(at, 8)?.try_into().ok()?))
    }
}

/// The cluster size of a file that starts with `start`, so that its whole first cluster can be
/// read before [`Header::parse`].
///
/// # Errors
/// A [`Flaw`]: no magic, another version, clusters of an impossible size.
pub fn probe_cluster_size(start: &[u8]) -> Result<u64, Flaw> {
    let be = Be(start);
    let short = || Flaw::ShortHeader {
        len: start.len() as u64,
    };
    if be.u32(0).ok_or_else(short)? != MAGIC {
        return Err(Flaw::NoMagic);
    }
    let version = be.u32(4).ok_or_else(short)?;
    if !(2..=3).contains(&version) {
        return Err(Flaw::Version { version });
    }
    let bits = be.u32(20).ok_or_else(short)?;
    if !(9..=21).contains(&bits) {
        return Err(Flaw::ClusterBits { bits });
    }
    Ok(1 << bits)
}

impl Header {
    /// Reads a header from the file's first cluster (or the whole file, where it is shorter).
    ///
    /// # Errors
    /// The [`Flaw`] of the first field that the format does not allow.
    pub fn parse(first_cluster: &[u8]) -> Result<Header, Flaw> {
        let cluster_size = probe_cluster_size(first_cluster)?;
        let be = Be(first_cluster);
        let short = || Flaw::ShortHeader {
            len: first_cluster.len() as u64,
        };
        let u32_at = |at| be.u32(at).ok_or_else(short);
        let u64_at = |at| be.u64(at).ok_or_else(short);

        let version = u32_at(4)?;
        let mut header = Header {
            version,
            cluster_bits: u32_at(20)?,
            size: u64_at(24)?,
            crypt_method: u32_at(32)?,
            l1_size: u32_at(36)?,
            l1_table_offset: u64_at(40)?,
            refcount_table_offset: u64_at(48)?,
            refcount_table_clusters: u32_at(56)?,
            nb_snapshots: u32_at(60)?,
            snapshots_offset: u64_at(64)?,
            incompatible_features: 0,
            compatible_features: 0,
            autoclear_features: 0,
            refcount_order: 4,
            header_length: V2_LENGTH,
            compression_type: 0,
            backing: None,
            extensions: Vec::new(),
        };
        if version == 3 {
            header.incompatible_features = u64_at(72)?;
            header.compatible_features = u64_at(80)?;
            header.autoclear_features = u64_at(88)?;
            header.refcount_order = u32_at(96)?;
            header.header_length = u32_at(100)?;
            let length = header.header_length;
            if length < V3_MIN_LENGTH
                || !length.is_multiple_of(8)
                || u64::from(length) > cluster_size
            {
                return Err(Flaw::HeaderLength { length });
            }
            if length > V3_MIN_LENGTH {
                header.compression_type = *first_cluster.get(104).ok_or_else(short)?;
            }
        }
        header.check_fields()?;
        header.read_names(first_cluster, cluster_size)?;
        Ok(header)
    }

    fn check_fields(&self) -> Result<(), Flaw> {
        if self.refcount_order > 6 {
            return Err(Flaw::RefcountOrder {
                order: self.refcount_order,
            });
        }
        let unknown = self.incompatible_features & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return Err(Flaw::UnknownIncompatible { bits: unknown });
        }
        if self.crypt_method > 2 {
            return Err(Flaw::Encrypted {
                method: self.crypt_method,
            });
        }
        let kind = self.compression_type;
        if kind > 1 || self.has(INCOMPAT_COMPRESSION) != (kind == 1) {
            return Err(Flaw::Compression { kind });
        }
        if self.has(INCOMPAT_EXTENDED_L2) && self.cluster_bits < 14 {
            return Err(Flaw::ExtendedL2);
        }
        if self.size == 0 || !self.size.is_multiple_of(512) || self.size > MAX {
            return Err(Flaw::VirtualSize {
                size: self.size,
                max: MAX,
            });
        }
        Ok(())
    }

    /// Extensions fill the space from the header's end to the backing file name, or to the end
    /// of the first cluster.
    fn read_names(&mut self, first_cluster: &[u8], cluster_size: u64) -> Result<(), Flaw> {
        let be = Be(first_cluster);
        let name_offset = be.u64(8).unwrap_or(0);
        let name_len = be.u32(16).unwrap_or(0);
        let mut end = cluster_size;
        if name_offset != 0 {
            let flaw = || Flaw::BackingName {
                offset: name_offset,
                len: name_len,
            };
            let len = name_len as usize;
            let inside = name_offset >= u64::from(self.header_length)
                && name_offset
                    .checked_add(len as u64)
                    .is_some_and(|e| e <= cluster_size);
            if !inside || len == 0 || len > MAX_BACKING_NAME {
                return Err(flaw());
            }
            let at = usize::try_from(name_offset).map_err(|_| flaw())?;
            let name = be.bytes(at, len).ok_or_else(flaw)?;
            let name = std::str::from_utf8(name).map_err(|_| flaw())?;
            if name.contains('\0') {
                return Err(flaw());
            }
            self.backing = Some(Backing {
                name: name.to_owned(),
                format: None,
            });
            end = name_offset;
        }

        let mut at = u64::from(self.header_length);
        let mut count = 0;
        // A file may end where its (empty) list of extensions would start.
        while at + 8 <= end.min(first_cluster.len() as u64) {
            let here = usize::try_from(at).unwrap_or(usize::MAX);
            let (Some(kind), Some(length)) = (be.u32(here), be.u32(here.saturating_add(4))) else {
                break;
            };
            if kind == extension::END {
                break;
            }
            count += 1;
            if count > MAX_EXTENSIONS {
                return Err(Flaw::TooManyExtensions {
                    max: MAX_EXTENSIONS,
                });
            }
            let overlap = || Flaw::ExtensionOverlap {
                kind,
                offset: at,
                length,
            };
            if u64::from(length) > end - at - 8 {
                return Err(overlap());
            }
            let data = be.bytes(here + 8, length as usize).ok_or_else(overlap)?;
            self.add_extension(kind, data)?;
            at += 8 + u64::from(length).next_multiple_of(8);
        }
        Ok(())
    }

    fn add_extension(&mut self, kind: u32, data: &[u8]) -> Result<(), Flaw> {
        let twice = self.extensions.iter().any(|e| e.kind == kind);
        if kind == extension::BACKING_FORMAT {
            // QEMU writes and reads at most 15 bytes here.
            let name = std::str::from_utf8(data)
                .ok()
                .filter(|n| n.len() < 16 && !n.contains('\0'))
                .ok_or(Flaw::Unsupported {
                    what: "such a backing format name",
                })?;
            match &mut self.backing {
                Some(Backing {
                    format: Some(_), ..
                }) => return Err(Flaw::ExtensionTwice { kind }),
                Some(backing) => {
                    backing.format = Some(name.to_owned());
                    return Ok(());
                }
                // Left behind by a rebase to no backing file; it means nothing.
                None => (),
            }
        }
        if twice {
            return Err(Flaw::ExtensionTwice { kind });
        }
        self.extensions.push(Extension {
            kind,
            data: data.to_vec(),
        });
        Ok(())
    }

    /// Whether an incompatible feature bit is set.
    #[must_use]
    pub fn has(&self, incompatible: u64) -> bool {
        self.incompatible_features & incompatible != 0
    }

    /// Cluster size in bytes.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits.min(21)
    }

    /// Virtual size.
    #[must_use]
    pub fn virtual_size(&self) -> ByteSize {
        ByteSize::from_bytes(self.size)
    }

    /// Length of an L2 entry in bytes.
    #[must_use]
    pub fn l2_entry_size(&self) -> u64 {
        if self.has(INCOMPAT_EXTENDED_L2) {
            16
        } else {
            8
        }
    }

    /// Entries of the L1 table that the virtual size needs.
    #[must_use]
    pub fn l1_needed(&self) -> u64 {
        l1_needed(self.size, self.cluster_bits, self.l2_entry_size())
    }

    /// Refuses everything that reaches outside the file, hides content, or needs repair.
    ///
    /// What stays is a flat image whose every guest byte is in the file itself.
    ///
    /// # Errors
    /// The [`Flaw`]: what it names, hides or needs.
    pub fn refuse_foreign(&self) -> Result<(), Flaw> {
        self.refuse_unusable()?;
        if let Some(backing) = &self.backing {
            return Err(Flaw::BackingFile {
                name: backing.name.clone(),
            });
        }
        if self.nb_snapshots != 0 {
            return Err(Flaw::Snapshots {
                count: self.nb_snapshots,
            });
        }
        Ok(())
    }

    /// Refuses what no disk of ours ever uses, a backing file apart.
    pub(crate) fn refuse_unusable(&self) -> Result<(), Flaw> {
        let extension = |kind| self.extensions.iter().any(|e| e.kind == kind);
        if self.has(INCOMPAT_DATA_FILE)
            || self.autoclear_features & AUTOCLEAR_RAW_EXTERNAL != 0
            || extension(extension::DATA_FILE)
        {
            return Err(Flaw::ExternalData);
        }
        if self.crypt_method != 0 || extension(extension::ENCRYPTION) {
            return Err(Flaw::Encrypted {
                method: self.crypt_method,
            });
        }
        if self.has(INCOMPAT_CORRUPT) {
            return Err(Flaw::Corrupt);
        }
        if self.has(INCOMPAT_DIRTY) {
            return Err(Flaw::Dirty);
        }
        if self.autoclear_features & AUTOCLEAR_BITMAPS != 0 || extension(extension::BITMAPS) {
            return Err(Flaw::Bitmaps);
        }
        Ok(())
    }

    /// The header's bytes: fields, extensions, end mark and backing file name, as they start the
    /// file. Inverse of [`Header::parse`]; `None` where they do not fit the first cluster.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut extensions = Vec::new();
        let format = self.backing.as_ref().and_then(|b| b.format.as_deref());
        for (kind, data) in format
            .map(|f| (extension::BACKING_FORMAT, f.as_bytes()))
            .into_iter()
            .chain(self.extensions.iter().map(|e| (e.kind, e.data.as_slice())))
        {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(u32::try_from(data.len()).ok()?.to_be_bytes());
            extensions.extend(data);
            extensions.resize(extensions.len().next_multiple_of(8), 0);
        }
        extensions.extend([0; 8]);

        let header_length = self.header_length as usize;
        let (name_offset, name) = match &self.backing {
            Some(backing) => (header_length + extensions.len(), backing.name.as_str()),
            None => (0, ""),
        };
        let name_len = u32::try_from(name.len())
            .ok()
            .filter(|_| name.len() <= MAX_BACKING_NAME)?;

        let mut out = Vec::with_capacity(header_length + extensions.len() + name.len());
        out.extend(MAGIC.to_be_bytes());
        out.extend(self.version.to_be_bytes());
        out.extend((name_offset as u64).to_be_bytes());
        out.extend(name_len.to_be_bytes());
        out.extend(self.cluster_bits.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.extend(self.crypt_method.to_be_bytes());
        out.extend(self.l1_size.to_be_bytes());
        out.extend(self.l1_table_offset.to_be_bytes());
        out.extend(self.refcount_table_offset.to_be_bytes());
        out.extend(self.refcount_table_clusters.to_be_bytes());
        out.extend(self.nb_snapshots.to_be_bytes());
        out.extend(self.snapshots_offset.to_be_bytes());
        if self.version >= 3 {
            out.extend(self.incompatible_features.to_be_bytes());
            out.extend(self.compatible_features.to_be_bytes());
            out.extend(self.autoclear_features.to_be_bytes());
            out.extend(self.refcount_order.to_be_bytes());
            out.extend(self.header_length.to_be_bytes());
            if self.header_length > V3_MIN_LENGTH {
                out.push(self.compression_type);
            }
        }
        out.resize(header_length.max(out.len()), 0);
        out.extend(extensions);
        out.extend(name.as_bytes());
        (out.len() as u64 <= self.cluster_size()).then_some(out)
    }
}

/// Entries of the L1 table that a virtual size needs.
pub(crate) fn l1_needed(size: u64, cluster_bits: u32, l2_entry_size: u64) -> u64 {
    let cluster_size = 1_u64 << cluster_bits.min(21);
    let covered = (cluster_size / l2_entry_size.max(8)).saturating_mul(cluster_size);
    size.div_ceil(covered.max(1))
}

/// The format's name as QEMU spells it.
pub(crate) fn backing_format(format: Format) -> String {
    format.as_str().to_owned()
}
