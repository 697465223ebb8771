//! The launch digest of an SNP guest with a COCONUT SVSM below its firmware, as COCONUT's QEMU
//! launches it from two files (`sev-snp-measure --mode snp:svsm`). Newer ones come in IGVM files.
//!
//! The firmware lies below 4 GiB, its variables below it, the SVSM below those. Measured are the
//! firmware's pages, the SVSM's pages, the sections of the SVSM's metadata, and the vCPUs, which
//! all start in the SVSM.

use super::error::MeasureError;
use super::gctx::LaunchContext;
use super::launch::{
    LaunchDigest, Measurement, Mode, Variants, add_sections, chain, firmware_context,
};
use super::ovmf::{Firmware, Layout, Place, check_len};
use super::pages::page_digests;
use super::section::Section;
use super::sha384::{PAGE, sha384};
use super::vmsa::{self, Vmm};

/// An SVSM image, in its place below a firmware.
#[derive(Debug, Clone)]
pub struct Svsm {
    data: Vec<u8>,
    place: Place,
    sections: Vec<Section>,
    entry: u32,
}

impl Svsm {
    /// Parses an image that lies below `firmware` and `variables` bytes of its variables.
    ///
    /// # Errors
    /// As [`Firmware::parse`]; when the image says no entry point, or does not fit where it
    /// belongs.
    pub fn parse(data: Vec<u8>, firmware: &Firmware, variables: u64) -> Result<Self, MeasureError> {
        check_len(data.len())?;
        let len = data.len();
        let misplaced = MeasureError::SvsmPlace { len, variables };
        let end = firmware.gpa().checked_sub(variables);
        let end = end.filter(|end| *end >= len as u64 && end % PAGE as u64 == 0);
        let place = Place {
            len,
            end: end.ok_or_else(|| misplaced.clone())?,
        };
        if len % PAGE != 0 {
            return Err(misplaced);
        }
        let layout = Layout::parse(&data, place)?.ok_or(MeasureError::NoFooterTable)?;
        let offset = layout.svsm_entry.ok_or(MeasureError::NoSvsmEntry)?;
        let entry = place.base().checked_add(u64::from(offset));
        let entry = entry.and_then(|entry| u32::try_from(entry).ok());
        Ok(Self {
            sections: layout.sections.ok_or(MeasureError::NoMetadata)?,
            entry: entry.ok_or(misplaced)?,
            place,
            data,
        })
    }

    /// Digests of each CPU type and vCPU count; kernels can't be measured in this form of launch.
    ///
    /// # Errors
    /// When a vCPU count is out of range, or the firmware is not whole pages.
    pub fn measure(
        &self,
        firmware: &Firmware,
        variants: &Variants<'_>,
    ) -> Result<Vec<Measurement>, MeasureError> {
        let counts = variants.counts(Mode::Snp)?;
        if !variants.boots.is_empty() {
            return Err(MeasureError::NoKernelHashes {
                missing: "place for kernel hashes below an SVSM",
            });
        }
        let mut shared: LaunchContext = firmware_context(firmware)?;
        shared.normal(self.place.base(), &page_digests(&self.data));
        add_sections(&mut shared, Vmm::Qemu, &self.sections, None);
        let mut out = Vec::new();
        for cpu in variants.cpus {
            let page = sha384(&vmsa::svsm_page(self.entry, *cpu));
            let add = |context: &mut LaunchContext, _| context.vmsa(Vmm::Qemu.vmsa_gpa(), &page);
            chain(shared.clone(), counts.as_slice(), add, |vcpus, context| {
                out.push(Measurement {
                    boot: 0,
                    vcpus: Some((*cpu, vcpus)),
                    digest: LaunchDigest::Snp(context.digest()),
                });
            });
        }
        Ok(out)
    }
}
