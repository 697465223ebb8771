//! The launch digest of a guest in an IGVM file: every page and vCPU state that the file launches,
//! in the file's order. The file says all that is measured; no number or type of vCPUs is asked
//! for.
//!
//! Follows what `igvmmeasure` of COCONUT measures. QEMU with KVM can't launch every file so: see
//! [`Igvm::kvm_differs`].

use ::igvm::{IgvmDirectiveHeader, IgvmFile, IgvmPlatformHeader, IsolationType};
use igvm_defs::{IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType};
use zerocopy::IntoBytes as _;

use super::error::MeasureError;
use super::gctx::{LaunchContext, PageType};
use super::ovmf::MAX_FIRMWARE;
use super::sha384::{PAGE, Sha384Digest, sha384};
use super::vmsa::Vmm;

/// What an IGVM file begins with.
pub const IGVM_MAGIC: [u8; 4] = *b"IGVM";
/// Bytes of a page that the file marks as a large one.
const LARGE: usize = 2 << 20;

/// An IGVM file, as far as SEV-SNP launches it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Igvm {
    /// The launch digest.
    pub digest: Sha384Digest,
    /// What QEMU with KVM does otherwise than the file says, so that its digest is another one.
    pub kvm_differs: Vec<&'static str>,
}

impl Igvm {
    /// Measures a file.
    ///
    /// # Errors
    /// For what is no IGVM file or not for SEV-SNP, and where its ID block names another digest.
    pub fn measure(file: &[u8]) -> Result<Self, MeasureError> {
        if file.is_empty() || file.len() > MAX_FIRMWARE {
            return Err(MeasureError::FirmwareSize {
                len: file.len(),
                max: MAX_FIRMWARE,
            });
        }
        let refused = |error: &dyn std::fmt::Display| MeasureError::Igvm {
            reason: error.to_string(),
        };
        let file = IgvmFile::new_from_binary(file, Some(IsolationType::Snp))
            .map_err(|error| refused(&error))?;
        let mask = file.platforms().iter().find_map(|header| {
            let IgvmPlatformHeader::SupportedPlatform(platform) = header;
            (platform.platform_type == IgvmPlatformType::SEV_SNP)
                .then_some(platform.compatibility_mask)
        });
        let mask = mask.ok_or_else(|| refused(&"the file is not for SEV-SNP"))?;
        let mut launch = Launch::default();
        for directive in file.directives() {
            launch.directive(directive, mask).map_err(|e| refused(&e))?;
        }
        let digest = launch.context.digest();
        match launch.id_block {
            Some(expected) if expected != digest => Err(refused(&format_args!(
                "its ID block names the digest {}, but it launches {}",
                hex::encode(expected),
                hex::encode(digest)
            ))),
            _ => Ok(Self {
                digest,
                kvm_differs: launch.kvm_differs,
            }),
        }
    }
}

/// A launch as it goes on.
#[derive(Default)]
struct Launch {
    context: LaunchContext,
    /// Bytes of each parameter area, by its index.
    areas: Vec<(u32, u64)>,
    vcpus: usize,
    id_block: Option<Sha384Digest>,
    kvm_differs: Vec<&'static str>,
}

impl Launch {
    fn directive(
        &mut self,
        directive: &IgvmDirectiveHeader,
        mask: u32,
    ) -> Result<(), &'static str> {
        match directive {
            IgvmDirectiveHeader::PageData {
                gpa,
                compatibility_mask,
                flags,
                data_type,
                data,
            } if compatibility_mask & mask != 0 => {
                self.after_vcpus();
                self.page_data(*gpa, *flags, *data_type, data)
            }
            IgvmDirectiveHeader::ParameterArea {
                number_of_bytes,
                parameter_area_index,
                ..
            } => {
                self.areas.push((*parameter_area_index, *number_of_bytes));
                Ok(())
            }
            IgvmDirectiveHeader::ParameterInsert(insert)
                if insert.compatibility_mask & mask != 0 =>
            {
                self.after_vcpus();
                let index = insert.parameter_area_index;
                let area = self.areas.iter().find(|(of, _)| *of == index);
                let (_, bytes) = area.ok_or("it inserts a parameter area that it does not have")?;
                if *bytes > MAX_FIRMWARE as u64 {
                    return Err("a parameter area is too large");
                }
                self.context
                    .contentless(PageType::Unmeasured, insert.gpa, *bytes);
                Ok(())
            }
            IgvmDirectiveHeader::SnpVpContext {
                gpa,
                compatibility_mask,
                vmsa,
                ..
            } if compatibility_mask & mask != 0 => {
                self.vcpus += 1;
                if self.vcpus == 2 {
                    self.differs("it has states of several vCPUs, and KVM takes the first one's");
                }
                if *gpa != Vmm::Qemu.vmsa_gpa() {
                    self.differs("a vCPU's state lies elsewhere than KVM puts it");
                }
                let mut page = [0; PAGE];
                for (to, from) in page.iter_mut().zip(vmsa.as_bytes()) {
                    *to = *from;
                }
                self.context.vmsa(*gpa, &sha384(&page));
                Ok(())
            }
            IgvmDirectiveHeader::SnpIdBlock {
                compatibility_mask,
                ld,
                ..
            } if compatibility_mask & mask != 0 => {
                self.id_block = Some(*ld);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn page_data(
        &mut self,
        gpa: u64,
        flags: IgvmPageDataFlags,
        data_type: IgvmPageDataType,
        data: &[u8],
    ) -> Result<(), &'static str> {
        let len = if flags.is_2mb_page() { LARGE } else { PAGE };
        if flags.shared() {
            return Ok(());
        }
        let mut contentless = |page| self.context.contentless(page, gpa, len as u64);
        match data_type {
            IgvmPageDataType::NORMAL if flags.unmeasured() => contentless(PageType::Unmeasured),
            IgvmPageDataType::SECRETS => contentless(PageType::Secrets),
            IgvmPageDataType::CPUID_DATA | IgvmPageDataType::CPUID_XF => {
                contentless(PageType::Cpuid);
            }
            IgvmPageDataType::NORMAL => {
                if data.len() > len {
                    return Err("a page has more bytes than a page");
                }
                // What the file leaves out is zero.
                let mut bytes = vec![0; len];
                for (to, from) in bytes.iter_mut().zip(data) {
                    *to = *from;
                }
                let digests: Vec<_> = bytes.chunks_exact(PAGE).map(sha384).collect();
                self.context.normal(gpa, &digests);
            }
            _ => return Err("a page is of a kind that is not known"),
        }
        Ok(())
    }

    /// KVM measures vCPUs when the launch ends, whatever the file's order.
    fn after_vcpus(&mut self) {
        if self.vcpus > 0 {
            self.differs("a page follows a vCPU's state, which KVM measures last");
        }
    }

    fn differs(&mut self, what: &'static str) {
        if !self.kvm_differs.contains(&what) {
            self.kvm_differs.push(what);
        }
    }
}
