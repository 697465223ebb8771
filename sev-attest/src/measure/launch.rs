//! Launch digests of whole guests, many at once.
//!
//! A [`Launch`] is one firmware in one mode; a [`Variants`] says which command lines, CPU types and
//! vCPU counts are wanted. What they share is hashed once: the firmware for all, the metadata
//! sections for all command lines up to the page of kernel hashes, and the vCPUs of each count for
//! all larger ones.
//!
//! - SNP: SHA-384 chain over the firmware's pages, the metadata sections in their order, one VMSA
//!   per vCPU (AMD 56860, section 8.17).
//! - SEV: SHA-256 over firmware and table of kernel hashes; SEV-ES: then one VMSA per vCPU (AMD
//!   55766, `LAUNCH_UPDATE_DATA`, `LAUNCH_UPDATE_VMSA`).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::cpu::CpuSignature;
use super::error::MeasureError;
use super::gctx::{LaunchContext, PageType};
use super::hashes::{KernelHashes, PADDED_TABLE};
use super::ovmf::{Body, Firmware, HashTableArea};
use super::pages::page_digests;
use super::section::{Section, SectionKind};
use super::sha384::{PAGE, Sha384Digest, sha384};
use super::vmsa::{self, BSP_EIP, Vmm};

/// Most vCPUs of one guest: the limit of QEMU's q35 machine.
pub const MAX_VCPUS: u32 = 4096;
/// Most vCPU counts in one list.
const MAX_COUNTS: usize = MAX_VCPUS as usize;

/// Bits of SEV_FEATURES that have a meaning: 0 to 10, 12, 14 and 15 (APM volume 2, section 15.36).
pub const KNOWN_FEATURES: u64 = 0xd7ff;

/// Kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Encrypted memory.
    Sev,
    /// Encrypted memory and registers.
    SevEs,
    /// Secure nested paging: integrity too.
    Snp,
}

impl Mode {
    /// Name as the command line writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sev => "sev",
            Self::SevEs => "sev-es",
            Self::Snp => "snp",
        }
    }

    /// SEV_FEATURES of a vCPU unless the host turns more on: bit 0 (SNPActive) for SNP.
    #[must_use]
    pub fn default_features(self) -> u64 {
        u64::from(self == Self::Snp)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// vCPU counts, ascending and each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuCounts(Vec<u32>);

impl VcpuCounts {
    /// Checked counts in any order.
    ///
    /// # Errors
    /// When a count is zero or above [`MAX_VCPUS`].
    pub fn new(counts: impl IntoIterator<Item = u32>) -> Result<Self, MeasureError> {
        let mut counts: Vec<u32> = counts.into_iter().collect();
        counts.sort_unstable();
        counts.dedup();
        for count in [counts.first(), counts.last()].into_iter().flatten() {
            if !(1..=MAX_VCPUS).contains(count) {
                return Err(MeasureError::VcpuCount {
                    count: u64::from(*count),
                    max: MAX_VCPUS,
                });
            }
        }
        Ok(Self(counts))
    }

    /// The counts, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for VcpuCounts {
    type Err = MeasureError;

    /// `4`, `1,2,4`, `1..64` (both ends included), or a mix.
    fn from_str(text: &str) -> Result<Self, MeasureError> {
        let bad = || MeasureError::VcpuList {
            text: text.chars().take(80).collect(),
        };
        let number = |s: &str| -> Result<u32, MeasureError> {
            let count = s.trim().parse::<u64>().map_err(|_| bad())?;
            u32::try_from(count)
                .ok()
                .filter(|n| (1..=MAX_VCPUS).contains(n))
                .ok_or(MeasureError::VcpuCount {
                    count,
                    max: MAX_VCPUS,
                })
        };
        let mut counts = Vec::new();
        for item in text.split(',') {
            let range = match item.split_once("..") {
                Some((from, to)) => number(from)?..=number(to.strip_prefix('=').unwrap_or(to))?,
                None => number(item)?..=number(item)?,
            };
            if range.is_empty() || counts.len() > MAX_COUNTS * 2 {
                return Err(bad());
            }
            counts.extend(range);
        }
        Self::new(counts)
    }
}

/// What differs between the guests to be measured; every combination is computed.
#[derive(Debug, Clone)]
pub struct Variants<'a> {
    /// Direct boots; empty for guests that boot from their disk.
    pub boots: &'a [KernelHashes],
    /// CPU signatures; ignored for [`Mode::Sev`].
    pub cpus: &'a [CpuSignature],
    /// vCPU counts; ignored for [`Mode::Sev`].
    pub vcpus: &'a [u32],
}

impl Variants<'_> {
    /// The vCPU counts, where all that the mode measures of the vCPUs is given.
    pub(super) fn counts(&self, mode: Mode) -> Result<VcpuCounts, MeasureError> {
        let counts = VcpuCounts::new(self.vcpus.iter().copied())?;
        let missing = match (self.cpus, self.vcpus) {
            _ if mode == Mode::Sev => return Ok(counts),
            (_, []) => "give their number",
            ([], _) => "give the CPU type",
            _ => return Ok(counts),
        };
        Err(MeasureError::VcpusNeeded {
            mode: mode.name(),
            missing,
        })
    }
}

/// One computed launch digest and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// Index into [`Variants::boots`], or 0.
    pub boot: usize,
    /// CPU signature and vCPU count; `None` for [`Mode::Sev`], which measures no vCPUs.
    pub vcpus: Option<(CpuSignature, u32)>,
    /// The digest.
    pub digest: LaunchDigest,
}

/// A launch digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaunchDigest {
    /// SHA-384, in an SNP report's `measurement`.
    Snp([u8; 48]),
    /// SHA-256, authenticated in the launch measurement of SEV and SEV-ES.
    Sev([u8; 32]),
}

impl AsRef<[u8]> for LaunchDigest {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Snp(bytes) => bytes,
            Self::Sev(bytes) => bytes,
        }
    }
}

/// A firmware that is to be launched in a mode by a virtual machine monitor.
#[derive(Debug, Clone)]
pub struct Launch<'f> {
    firmware: &'f Firmware,
    mode: Mode,
    vmm: Vmm,
    features: u64,
    /// What the digest of the firmware's pages is known to be.
    pages: Option<Sha384Digest>,
}

impl<'f> Launch<'f> {
    /// A launch by QEMU with the mode's usual SEV_FEATURES.
    #[must_use]
    pub fn new(firmware: &'f Firmware, mode: Mode) -> Self {
        Self {
            firmware,
            mode,
            vmm: Vmm::Qemu,
            features: mode.default_features(),
            pages: None,
        }
    }

    /// Another virtual machine monitor.
    #[must_use]
    pub fn vmm(mut self, vmm: Vmm) -> Self {
        self.vmm = vmm;
        self
    }

    /// Another value of SEV_FEATURES.
    #[must_use]
    pub fn features(mut self, features: u64) -> Self {
        self.features = features;
        self
    }

    /// The digest of the firmware's pages, computed elsewhere (by [`firmware_context`], or
    /// `sev-snp-measure --mode snp:ovmf-hash`). The firmware's tables alone are looked at then.
    #[must_use]
    pub fn firmware_digest(mut self, digest: Sha384Digest) -> Self {
        self.pages = Some(digest);
        self
    }

    /// What of the SEV_FEATURES no firmware launches; `None` when there is nothing to say.
    ///
    /// SNP guests have bit 0, SEV-ES guests none; [`KNOWN_FEATURES`] are the bits that have a
    /// meaning.
    #[must_use]
    pub fn impossible_features(&self) -> Option<&'static str> {
        match self.mode {
            Mode::Snp if self.features & 1 == 0 => {
                Some("bit 0 (SNPActive) is clear: no SEV-SNP guest is launched so")
            }
            Mode::SevEs if self.features & 1 != 0 => {
                Some("bit 0 (SNPActive) is set: no SEV-ES guest is launched so")
            }
            Mode::Snp | Mode::SevEs if self.features & !KNOWN_FEATURES != 0 => {
                Some("reserved bits are set: no firmware launches such a guest")
            }
            _ => None,
        }
    }

    /// Digests of every variant: ordered by boot, then CPU, then vCPU count ascending.
    ///
    /// # Errors
    /// When the firmware lacks what the mode needs, or a vCPU count is out of range.
    pub fn measure(&self, variants: &Variants<'_>) -> Result<Vec<Measurement>, MeasureError> {
        let counts = variants.counts(self.mode)?;
        match self.mode {
            Mode::Snp => self.snp(variants, counts.as_slice()),
            Mode::Sev | Mode::SevEs => self.sev(variants, counts.as_slice()),
        }
    }

    fn snp(
        &self,
        variants: &Variants<'_>,
        counts: &[u32],
    ) -> Result<Vec<Measurement>, MeasureError> {
        // Everything that can be refused is, before the firmware is hashed.
        let vcpus = self.vcpu_pages(variants, sha384)?;
        let sections = self.firmware.sections()?;
        let kernel_pages = self.kernel_pages(variants)?;
        let mut shared = match self.pages {
            Some(digest) => LaunchContext::from_digest(digest),
            None => firmware_context(self.firmware)?,
        };
        let split = sections
            .iter()
            .position(|s| s.kind == SectionKind::KernelHashes)
            .unwrap_or(sections.len());
        let (before, from) = sections.split_at_checked(split).unwrap_or((sections, &[]));
        add_sections(&mut shared, self.vmm, before, None);
        let late = sections
            .iter()
            .filter(|s| self.vmm.launches_cpuid_last() && s.kind == SectionKind::Cpuid);
        let vmsa_gpa = self.vmm.vmsa_gpa();
        let mut out = Vec::new();
        for (boot, page) in kernel_pages.iter().enumerate() {
            let mut context = shared.clone();
            add_sections(&mut context, self.vmm, from, page.as_ref());
            for section in late.clone() {
                context.contentless(PageType::Cpuid, u64::from(section.base), PAGE as u64);
            }
            for (cpu, [bsp, ap]) in &vcpus {
                let add = |context: &mut LaunchContext, first| {
                    context.vmsa(vmsa_gpa, if first { bsp } else { ap });
                };
                chain(context.clone(), counts, add, |vcpus, context| {
                    let digest = LaunchDigest::Snp(context.digest());
                    out.push(Measurement {
                        boot,
                        vcpus: Some((*cpu, vcpus)),
                        digest,
                    });
                });
            }
        }
        Ok(out)
    }

    /// Digest of the page of kernel hashes for each boot; one `None` when there is no direct boot.
    fn kernel_pages(
        &self,
        variants: &Variants<'_>,
    ) -> Result<Vec<Option<Sha384Digest>>, MeasureError> {
        if variants.boots.is_empty() {
            return Ok(vec![None]);
        }
        let section =
            self.firmware
                .kernel_hashes_section()
                .ok_or(MeasureError::NoKernelHashes {
                    missing: "SNP_KERNEL_HASHES section",
                })?;
        let area = self.hash_table()?;
        let offset = area
            .base
            .checked_sub(section.base)
            .map(|offset| offset as usize);
        let fits = offset.filter(|offset| {
            area.len as usize <= PAGE && offset.saturating_add(area.len as usize) <= PAGE
        });
        let outside = || MeasureError::HashTableRange {
            base: area.base,
            len: area.len,
            need: PADDED_TABLE,
            section: format!(", the SNP_KERNEL_HASHES section at {:#x}", section.base),
        };
        let offset = fits.ok_or_else(outside)?;
        let digest = |boot: &KernelHashes| Some(sha384(&boot.page(offset)?));
        variants
            .boots
            .iter()
            .map(|boot| digest(boot).map(Some).ok_or_else(outside))
            .collect()
    }

    /// The firmware's place for the hashes table, large enough for it.
    fn hash_table(&self) -> Result<HashTableArea, MeasureError> {
        let area = self.firmware.hash_table()?;
        if (area.len as usize) < PADDED_TABLE {
            return Err(MeasureError::HashTableRange {
                base: area.base,
                len: area.len,
                need: PADDED_TABLE,
                section: String::new(),
            });
        }
        Ok(area)
    }

    fn sev(
        &self,
        variants: &Variants<'_>,
        counts: &[u32],
    ) -> Result<Vec<Measurement>, MeasureError> {
        let vcpus = match self.mode {
            Mode::Sev => Vec::new(),
            _ => self.vcpu_pages(variants, <[u8]>::to_vec)?,
        };
        let tables: Vec<_> = match variants.boots {
            [] => vec![None],
            boots => {
                self.hash_table()?;
                boots.iter().map(|boot| Some(boot.table())).collect()
            }
        };
        let Body::Bytes(image) = self.firmware.body() else {
            return Err(MeasureError::PagesOnly {
                mode: self.mode.name(),
            });
        };
        let shared = Sha256::new_with_prefix(image);
        let finish = |hash: &Sha256| LaunchDigest::Sev(hash.clone().finalize().into());
        let mut out = Vec::new();
        for (boot, table) in tables.iter().enumerate() {
            let mut hash = shared.clone();
            if let Some(table) = table {
                hash.update(table);
            }
            if self.mode == Mode::Sev {
                out.push(Measurement {
                    boot,
                    vcpus: None,
                    digest: finish(&hash),
                });
            }
            for (cpu, [bsp, ap]) in &vcpus {
                let add = |hash: &mut Sha256, first| hash.update(if first { bsp } else { ap });
                chain(hash.clone(), counts, add, |vcpus, hash| {
                    let digest = finish(hash);
                    out.push(Measurement {
                        boot,
                        vcpus: Some((*cpu, vcpus)),
                        digest,
                    });
                });
            }
        }
        Ok(out)
    }

    /// What `reduce` makes of the boot and application processor's page, for each CPU.
    fn vcpu_pages<T>(
        &self,
        variants: &Variants<'_>,
        reduce: impl Fn(&[u8]) -> T,
    ) -> Result<Vec<(CpuSignature, [T; 2])>, MeasureError> {
        let reset = self.firmware.reset_eip()?;
        let pages = |cpu: &CpuSignature| {
            let page = |eip| reduce(&vmsa::page(self.vmm, eip, *cpu, self.features));
            (*cpu, [BSP_EIP, reset].map(page))
        };
        Ok(variants.cpus.iter().map(pages).collect())
    }
}

/// Adds metadata sections; `kernel` is the digest of the page of kernel hashes.
pub(super) fn add_sections(
    context: &mut LaunchContext,
    vmm: Vmm,
    sections: &[Section],
    kernel: Option<&Sha384Digest>,
) {
    for section in sections {
        let (base, len) = (u64::from(section.base), u64::from(section.len));
        match (section.kind, kernel) {
            (SectionKind::SecMemory, _) if vmm.leaves_memory_unmeasured() => {
                context.contentless(PageType::Unmeasured, base, len);
            }
            (SectionKind::Secrets, _) => context.contentless(PageType::Secrets, base, len),
            (SectionKind::Cpuid, _) if vmm.launches_cpuid_last() => {}
            (SectionKind::Cpuid, _) => context.contentless(PageType::Cpuid, base, len),
            (SectionKind::KernelHashes, Some(digest)) => {
                context.normal(base, std::slice::from_ref(digest));
            }
            _ => context.contentless(PageType::Zero, base, len),
        }
    }
}

/// Digest over the firmware's pages alone: what all SNP guests of a firmware share, and what
/// `sev-snp-measure` calls the OVMF hash.
///
/// # Errors
/// When the firmware is not whole pages.
pub fn firmware_context(firmware: &Firmware) -> Result<LaunchContext, MeasureError> {
    let mut context = LaunchContext::default();
    match firmware.body() {
        _ if firmware.len() % PAGE != 0 => {
            return Err(MeasureError::FirmwareNotPaged {
                len: firmware.len(),
            });
        }
        Body::Bytes(image) => context.normal(firmware.gpa(), &page_digests(image)),
        Body::Pages(digests) => context.normal(firmware.gpa(), digests),
    }
    Ok(context)
}

/// Adds vCPUs one by one and emits the state at each of the ascending counts.
pub(super) fn chain<S>(
    mut state: S,
    counts: &[u32],
    add: impl Fn(&mut S, bool),
    mut emit: impl FnMut(u32, &S),
) {
    let mut done = 0;
    for &count in counts {
        for vcpu in done..count {
            add(&mut state, vcpu == 0);
        }
        done = count;
        emit(count, &state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_counts() {
        for (text, counts) in [
            ("4", vec![4]),
            ("4,1, 2,2", vec![1, 2, 4]),
            ("1..4", vec![1, 2, 3, 4]),
            ("1..=3,8", vec![1, 2, 3, 8]),
        ] {
            assert_eq!(
                text.parse::<VcpuCounts>().unwrap().as_slice(),
                counts,
                "{text}"
            );
        }
        for text in [
            "",
            "0",
            "1,",
            "4..2",
            "1..5000",
            "-1",
            "a",
            "1..2..3",
            "99999999999999999999",
        ] {
            assert!(text.parse::<VcpuCounts>().is_err(), "{text}");
        }
        assert!(
            vec!["1..4096"; 5000]
                .join(",")
                .parse::<VcpuCounts>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn chain_emits_each_prefix(counts in proptest::collection::btree_set(1u32..100, 0..10)) {
            let counts: Vec<u32> = counts.into_iter().collect();
            let mut seen = Vec::new();
            chain(
                Vec::new(),
                &counts,
                |state, first| state.push(first),
                |count, state| seen.push((count, state.clone())),
            );
            prop_assert_eq!(seen.len(), counts.len());
            for (count, state) in seen {
                prop_assert_eq!(state.len(), count as usize);
                prop_assert!(state.iter().enumerate().all(|(i, first)| *first == (i == 0)));
            }
        }
    }
}
