//! Errors of launch-digest prediction: each says which input is at fault and what to do.

use super::guid::Guid;
use super::section::SectionKind;

/// Why a launch digest, an ID block or one of their inputs was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The firmware image is empty or larger than [`super::MAX_FIRMWARE`].
    #[error("firmware is {len} bytes: expected 1 to {max}")]
    FirmwareSize {
        /// Length of the image in bytes.
        len: usize,
        /// Largest accepted length in bytes.
        max: usize,
    },
    /// SNP measures whole pages; the image is not a multiple of 4 KiB.
    #[error("firmware is {len} bytes, not a multiple of 4096: SEV-SNP measures whole pages")]
    FirmwareNotPaged {
        /// Length of the image in bytes.
        len: usize,
    },
    /// The image was read by [`super::Firmware::read_pages`], which suffices for SNP only.
    #[error("firmware was read for SEV-SNP, {mode} needs all of it")]
    PagesOnly {
        /// Mode asked for.
        mode: &'static str,
    },
    /// The image has no OVMF footer table.
    #[error(
        "firmware has no OVMF GUID table 32 bytes before its end: give OVMF.fd or OVMF_CODE.fd \
         (not a VARS file) built with SEV support"
    )]
    NoFooterTable,
    /// A length in the footer table points outside the image.
    #[error("firmware's GUID table claims {claimed} bytes, {available} are available")]
    FooterTableLength {
        /// Length the footer claims, in bytes.
        claimed: usize,
        /// Bytes available in front of the footer, its own header included.
        available: usize,
    },
    /// An entry of the footer table is shorter than its header or longer than what is left.
    #[error(
        "firmware's GUID table has an entry {guid} of {claimed} bytes where {available} are left"
    )]
    FooterEntryLength {
        /// Entry at fault.
        guid: Guid,
        /// Length the entry claims, header included.
        claimed: usize,
        /// Bytes left in the table.
        available: usize,
    },
    /// Bytes too few for an entry are left over in the footer table.
    #[error("firmware's GUID table has {bytes} bytes in front of its first entry")]
    FooterTableRest {
        /// Number of bytes.
        bytes: usize,
    },
    /// A GUID occurs twice in the footer table, so that readers could disagree.
    #[error("firmware's GUID table names {guid} twice")]
    DuplicateEntry {
        /// Entry at fault.
        guid: Guid,
    },
    /// An entry's data has a length other than its format's.
    #[error("firmware's {what} entry holds {len} bytes, expected {expected}")]
    EntryData {
        /// Name of the entry.
        what: &'static str,
        /// Length found.
        len: usize,
        /// Length of the format.
        expected: usize,
    },
    /// The SEV metadata header lies outside the image.
    #[error(
        "firmware's SEV metadata lies {offset} bytes before the end of an image of {len} bytes"
    )]
    MetadataOffset {
        /// Distance from the end of the image, in bytes.
        offset: u32,
        /// Length of the image in bytes.
        len: usize,
    },
    /// The SEV metadata header does not begin with `ASEV`.
    #[error("firmware's SEV metadata begins with {found:02x?}, expected \"ASEV\"")]
    MetadataSignature {
        /// The four bytes found.
        found: [u8; 4],
    },
    /// The SEV metadata has a version this program does not know.
    #[error("firmware's SEV metadata has version {0}, only version 1 is known")]
    MetadataVersion(u32),
    /// The SEV metadata's length and number of sections disagree, or leave the image.
    #[error(
        "firmware's SEV metadata claims {size} bytes for {count} sections (limit {max} sections)"
    )]
    MetadataLength {
        /// Length claimed, header included.
        size: u32,
        /// Number of sections claimed.
        count: u32,
        /// Most sections accepted.
        max: u32,
    },
    /// A section has a type this program does not know.
    #[error("firmware's SEV metadata section {index} has unknown type {kind:#x}")]
    SectionType {
        /// Index of the section.
        index: usize,
        /// Type found.
        kind: u32,
    },
    /// A section is empty, not page aligned, or ends above 4 GiB.
    #[error(
        "firmware's SEV metadata section {index} ({kind}) covers {base:#x}+{len:#x}: expected whole \
         pages below 4 GiB"
    )]
    SectionRange {
        /// Index of the section.
        index: usize,
        /// Its type.
        kind: SectionKind,
        /// Guest physical address.
        base: u32,
        /// Length in bytes.
        len: u32,
    },
    /// A section that must be exactly one page is longer.
    #[error(
        "firmware's SEV metadata section {index} ({kind}) is {len:#x} bytes: expected one page"
    )]
    SectionNotOnePage {
        /// Index of the section.
        index: usize,
        /// Its type.
        kind: SectionKind,
        /// Length in bytes.
        len: u32,
    },
    /// A section that may occur once occurs again.
    #[error("firmware's SEV metadata has a second {kind} section (index {index})")]
    SectionRepeated {
        /// Index of the second one.
        index: usize,
        /// Its type.
        kind: SectionKind,
    },
    /// Two sections, or a section and the firmware itself, share a page.
    #[error("firmware's SEV metadata section {index} ({kind}) overlaps {other}")]
    SectionOverlap {
        /// Index of the section.
        index: usize,
        /// Its type.
        kind: SectionKind,
        /// What it overlaps.
        other: String,
    },
    /// All sections together are larger than any guest needs at launch.
    #[error("firmware's SEV metadata sections cover {bytes} bytes, at most {max} are accepted")]
    SectionsTooLarge {
        /// Sum of the sections' lengths in bytes.
        bytes: u64,
        /// Largest accepted sum.
        max: u64,
    },
    /// SNP needs SEV metadata and the firmware has none.
    #[error(
        "firmware has no SEV metadata: QEMU refuses it for SEV-SNP. Use OVMF.fd or OVMF_CODE.fd; \
         bookworm's OVMF_CODE_4M.fd lacks it"
    )]
    NoMetadata,
    /// SEV-ES and SNP need the reset block and the firmware has none.
    #[error("firmware has no SEV-ES reset block: it can start no SEV-ES or SEV-SNP guest")]
    NoResetBlock,
    /// An IGVM file is none, or launches otherwise than it says.
    #[error("IGVM file: {reason}")]
    Igvm {
        /// What is wrong with it.
        reason: String,
    },
    /// An SVSM image does not say where it starts.
    #[error(
        "the SVSM's GUID table says no entry point: this is no SVSM image, or it is an IGVM file"
    )]
    NoSvsmEntry,
    /// An SVSM does not fit below the firmware.
    #[error(
        "an SVSM of {len} bytes below the firmware and {variables} bytes of variables: it must be whole \
         pages and lie in the first 4 GiB"
    )]
    SvsmPlace {
        /// Length of the image in bytes.
        len: usize,
        /// Bytes between it and the firmware.
        variables: u64,
    },
    /// A kernel is to be measured and the firmware has no room for its hashes.
    #[error(
        "a kernel is given, but this firmware has no {missing}: it would boot any kernel unmeasured. \
         Use an AmdSev build of OVMF (Ubuntu's OVMF.amdsev.fd), or leave the kernel out"
    )]
    NoKernelHashes {
        /// What is missing.
        missing: &'static str,
    },
    /// The hashes table does not lie in the section reserved for it, or does not fit.
    #[error(
        "firmware's SEV hash table is at {base:#x}+{len:#x}: expected {need} bytes within one page{section}"
    )]
    HashTableRange {
        /// Guest physical address.
        base: u32,
        /// Length in bytes.
        len: u32,
        /// Bytes needed.
        need: usize,
        /// Where the section lies, or nothing for SEV and SEV-ES.
        section: String,
    },
    /// A vCPU count is zero or above [`super::MAX_VCPUS`].
    #[error("{count} vCPUs: expected 1 to {max}")]
    VcpuCount {
        /// Count asked for.
        count: u64,
        /// Largest accepted count.
        max: u32,
    },
    /// A list of vCPU counts can't be read.
    #[error("'{text}' is no list of vCPU counts: write it as 4 or 1,2,4 or 1..64")]
    VcpuList {
        /// Text given.
        text: String,
    },
    /// SEV-ES and SNP measure vCPUs, and no count or type was given.
    #[error("{mode} measures the vCPUs' state: {missing}")]
    VcpusNeeded {
        /// Mode asked for.
        mode: &'static str,
        /// What to give.
        missing: &'static str,
    },
    /// The CPU type is not one whose signature is fixed.
    #[error("CPU type '{name}' has no signature of its own: {remedy}")]
    UnknownCpu {
        /// Name given.
        name: String,
        /// What to give instead.
        remedy: String,
    },
    /// Family, model or stepping don't fit the CPUID encoding.
    #[error("CPU family {family}, model {model}, stepping {stepping}: at most 270, 255 and 15")]
    CpuRange {
        /// Family.
        family: u32,
        /// Model.
        model: u32,
        /// Stepping.
        stepping: u32,
    },
    /// Initial RAM disk or command line without a kernel.
    #[error("{what} is measured only together with a kernel: give --kernel")]
    KernelNeeded {
        /// `initrd` or `command line`.
        what: &'static str,
    },
    /// A command line holds a NUL byte and would end there.
    #[error("the command line holds a NUL byte")]
    CommandLineNul,
    /// A private key can't be used to sign an ID block.
    #[error("not a P-384 private key (PEM or DER, PKCS#8 or SEC 1, unencrypted): {reason}")]
    SigningKey {
        /// What was found.
        reason: String,
    },
    /// Signing failed.
    #[error("signing the ID block failed")]
    Signing,
    /// The policy of an ID block lacks bit 17, which the firmware insists on.
    #[error("guest policy {0:#x}: bit 17 must be set (0x30000 is usual) and bits above 25 zero")]
    GuestPolicy(u64),
}
