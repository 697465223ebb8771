//! The attestation report: 1,184 bytes signed by the security processor (AMD 56860,
//! ATTESTATION_REPORT).
//!
//! [`Report::parse`] refuses what can't be read: another length, an unknown version. Whatever is
//! readable but not allowed by the specification is kept as [`Report::violations`], so that an
//! appraisal can name it; a report with violations is never genuine.

mod bits;
mod signature;
mod violations;

use std::fmt;
use std::ops::Deref;

pub use bits::{GuestPolicy, KeyInfo, PlatformInfo, SigningKey};
pub use signature::{SignatureError, SignatureField};
pub use violations::Violation;

use crate::product::{Cpuid, Product};
use crate::tcb::TcbWord;

/// Length of a report in bytes.
pub const REPORT_LEN: usize = 0x4a0;
/// Length of the signed part, at the start of the report.
pub const SIGNED_LEN: usize = 0x2a0;
/// The signature algorithm of every report: ECDSA on P-384 with SHA-384.
pub const ECDSA_P384_SHA384: u32 = 1;

/// The VMPL field of a report that the host asked for, not the guest.
pub const HOST_VMPL: u32 = u32::MAX;

/// Version of a report's layout.
///
/// There is no public specification of version 4; firmware 1.55.3x on Milan writes it, laid out
/// as version 3. It is read as version 3, with all that version 3 reserves held to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first published layout.
    V2,
    /// Adds CPUID.
    V3,
    /// As version 3.
    V4,
    /// Adds mitigation vectors.
    V5,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Self; 4] = [Self::V2, Self::V3, Self::V4, Self::V5];

    /// The version of that number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.number() == number)
    }

    /// The number in the report.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
            Self::V5 => 5,
        }
    }
}

/// Version of the SNP firmware: its ABI version and its build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirmwareVersion {
    /// ABI major version.
    pub major: u8,
    /// ABI minor version.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// Identifier of a chip; all zero where the platform masks it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChipId(pub [u8; 64]);

impl ChipId {
    /// Whether the platform masked the id.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

impl fmt::Display for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChipId({self})")
    }
}

/// The fields of a report, in the order of the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fields {
    /// Version of the layout.
    pub version: Version,
    /// Security version number that the guest's owner gave it.
    pub guest_svn: u32,
    /// What the host may do with the guest.
    pub policy: GuestPolicy,
    /// Family id of the ID block.
    pub family_id: [u8; 16],
    /// Image id of the ID block.
    pub image_id: [u8; 16],
    /// Virtual machine privilege level that asked for the report, 0 to 3; [`HOST_VMPL`] for a
    /// report that the host asked for.
    pub vmpl: u32,
    /// Algorithm of the signature, as [`ECDSA_P384_SHA384`].
    pub signature_algorithm: u32,
    /// TCB of the running firmware.
    pub current_tcb: TcbWord,
    /// What the platform has switched on.
    pub platform_info: PlatformInfo,
    /// Author key, masking and signing key.
    pub key_info: KeyInfo,
    /// What the guest asked to be signed: nonces and keys.
    pub report_data: [u8; 64],
    /// The launch digest.
    pub measurement: [u8; 48],
    /// What the host said at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block; zero without one.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the ID key; zero without one.
    pub author_key_digest: [u8; 48],
    /// Identifier of the guest; lasts as long as the guest runs.
    pub report_id: [u8; 32],
    /// Identifier of the guest's migration agent; all ones without one.
    pub report_id_ma: [u8; 32],
    /// TCB that the signing key was derived from.
    pub reported_tcb: TcbWord,
    /// Processor, from version 3 on.
    pub cpuid: Option<Cpuid>,
    /// Chip, where it is not masked.
    pub chip_id: ChipId,
    /// TCB below which the platform can't be rolled back.
    pub committed_tcb: TcbWord,
    /// Version of the running firmware.
    pub current_version: FirmwareVersion,
    /// Version of the committed firmware.
    pub committed_version: FirmwareVersion,
    /// TCB at the time the guest was launched or imported.
    pub launch_tcb: TcbWord,
    /// Mitigations at launch, from version 5 on.
    pub launch_mitigations: Option<u64>,
    /// Mitigations now, from version 5 on.
    pub current_mitigations: Option<u64>,
    /// Signature over the first [`SIGNED_LEN`] bytes.
    pub signature: SignatureField,
}

/// A report: its bytes and the fields read from them. The two can't come apart, for the fields are
/// read-only.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    bytes: Box<[u8; REPORT_LEN]>,
    fields: Fields,
}

/// Why bytes are not a readable report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Another length than [`REPORT_LEN`].
    #[error("a report has {REPORT_LEN} bytes, this has {0}")]
    Length(usize),
    /// A version whose layout this program doesn't know.
    #[error("report version {0} is unknown (known are 2 to 5)")]
    UnknownVersion(u32),
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// For another length than 1,184 bytes, and for an unknown version.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let bytes: Box<[u8; REPORT_LEN]> = bytes
            .to_vec()
            .try_into()
            .map_err(|_| ReportError::Length(bytes.len()))?;
        let fields = Fields::read(&bytes)?;
        Ok(Self { bytes, fields })
    }

    /// All bytes of the report.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; REPORT_LEN] {
        &self.bytes
    }

    /// The bytes that the signature covers.
    #[must_use]
    pub fn signed_bytes(&self) -> &[u8] {
        &self.bytes[..SIGNED_LEN]
    }

    /// The product by the report's own word: known from version 3 on, for known processors.
    #[must_use]
    pub fn product(&self) -> Option<Product> {
        self.cpuid.and_then(Cpuid::product)
    }

    /// Whether memory was searched for aliased addresses and none found; `None` where reports of
    /// this version do not say.
    #[must_use]
    pub fn alias_check_complete(&self) -> Option<bool> {
        self.since(Version::V3, self.platform_info.alias_check_complete())
    }

    /// Whether the IOMMU keeps devices from guests' memory; `None` where reports of this version
    /// do not say.
    #[must_use]
    pub fn iommu_write_safe(&self) -> Option<bool> {
        self.since(Version::V5, self.platform_info.iommu_write_safe())
    }

    /// Whether trusted I/O is on; `None` where reports of this version do not say.
    #[must_use]
    pub fn tio(&self) -> Option<bool> {
        self.since(Version::V5, self.platform_info.tio())
    }

    /// Whether the guest policy forbids moving and swapping pages; `None` where reports of this
    /// version do not say.
    #[must_use]
    pub fn page_swap_disabled(&self) -> Option<bool> {
        self.since(Version::V3, self.policy.page_swap_disabled())
    }

    /// A bit that came with version `since`: one that is clear in an earlier report was not
    /// written, and says nothing.
    fn since(&self, since: Version, bit: bool) -> Option<bool> {
        (bit || self.version >= since).then_some(bit)
    }

    /// What the specification forbids and the report has; empty for every report of a real
    /// security processor.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        violations::of(self)
    }
}

impl Deref for Report {
    type Target = Fields;
    fn deref(&self) -> &Fields {
        &self.fields
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.fmt(f)
    }
}

/// `N` bytes at a constant offset.
fn at<const N: usize>(bytes: &[u8; REPORT_LEN], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    field
}

fn u32_at(bytes: &[u8; REPORT_LEN], offset: usize) -> u32 {
    u32::from_le_bytes(at(bytes, offset))
}

fn u64_at(bytes: &[u8; REPORT_LEN], offset: usize) -> u64 {
    u64::from_le_bytes(at(bytes, offset))
}

impl Fields {
    fn read(b: &[u8; REPORT_LEN]) -> Result<Self, ReportError> {
        let number = u32_at(b, 0);
        let version = Version::from_number(number).ok_or(ReportError::UnknownVersion(number))?;
        let firmware = |offset: usize| FirmwareVersion {
            build: b[offset],
            minor: b[offset + 1],
            major: b[offset + 2],
        };
        let mitigations = |offset| (version >= Version::V5).then(|| u64_at(b, offset));
        Ok(Self {
            version,
            guest_svn: u32_at(b, 0x004),
            policy: GuestPolicy(u64_at(b, 0x008)),
            family_id: at(b, 0x010),
            image_id: at(b, 0x020),
            vmpl: u32_at(b, 0x030),
            signature_algorithm: u32_at(b, 0x034),
            current_tcb: TcbWord(u64_at(b, 0x038)),
            platform_info: PlatformInfo(u64_at(b, 0x040)),
            key_info: KeyInfo(u32_at(b, 0x048)),
            report_data: at(b, 0x050),
            measurement: at(b, 0x090),
            host_data: at(b, 0x0c0),
            id_key_digest: at(b, 0x0e0),
            author_key_digest: at(b, 0x110),
            report_id: at(b, 0x140),
            report_id_ma: at(b, 0x160),
            reported_tcb: TcbWord(u64_at(b, 0x180)),
            cpuid: (version >= Version::V3).then(|| Cpuid {
                family: b[0x188],
                model: b[0x189],
                stepping: b[0x18a],
            }),
            chip_id: ChipId(at(b, 0x1a0)),
            committed_tcb: TcbWord(u64_at(b, 0x1e0)),
            current_version: firmware(0x1e8),
            committed_version: firmware(0x1ec),
            launch_tcb: TcbWord(u64_at(b, 0x1f0)),
            launch_mitigations: mitigations(0x1f8),
            current_mitigations: mitigations(0x200),
            signature: SignatureField(at(b, SIGNED_LEN)),
        })
    }
}
