//! The sections of an OVMF image's SEV metadata: guest memory that SNP populates at launch.

use std::fmt;

/// What a metadata section holds; the number is the type in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SectionKind {
    /// Memory that the firmware uses before it can validate pages; launched as zero pages.
    SecMemory = 1,
    /// Page that the security processor fills with the guest's secrets.
    Secrets = 2,
    /// Page of CPUID results that the security processor checks.
    Cpuid = 3,
    /// Calling area of an SVSM; launched as zero pages.
    SvsmCaa = 4,
    /// Page for the hashes of kernel, initial RAM disk and command line.
    KernelHashes = 0x10,
}

impl SectionKind {
    pub(super) fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::SecMemory,
            2 => Self::Secrets,
            3 => Self::Cpuid,
            4 => Self::SvsmCaa,
            0x10 => Self::KernelHashes,
            _ => return None,
        })
    }

    /// Whether a firmware has at most one, of exactly one page.
    pub(super) fn single_page(self) -> bool {
        matches!(self, Self::Secrets | Self::Cpuid | Self::KernelHashes)
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SecMemory => "SNP_SEC_MEMORY",
            Self::Secrets => "SNP_SECRETS",
            Self::Cpuid => "CPUID",
            Self::SvsmCaa => "SVSM_CAA",
            Self::KernelHashes => "SNP_KERNEL_HASHES",
        })
    }
}

/// One section of guest memory that SNP populates at launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Guest physical address, page aligned.
    pub base: u32,
    /// Length in bytes, whole pages, not zero.
    pub len: u32,
    /// What it holds.
    pub kind: SectionKind,
}

impl Section {
    pub(super) fn end(&self) -> u64 {
        u64::from(self.base) + u64::from(self.len)
    }

    pub(super) fn overlaps(&self, base: u64, end: u64) -> bool {
        u64::from(self.base) < end && base < self.end()
    }
}
