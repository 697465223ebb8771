//! The launch digest of an SEV, SEV-ES or SEV-SNP guest, computed before the launch from what QEMU
//! will be given: firmware, vCPUs and, for direct boot, kernel, initial RAM disk and command line.
//!
//! Equal inputs give the digest of the real launch; what is not an input (disks, devices, memory
//! size, CPU features of the `-cpu` model) is not measured. See `docs/measure.md`.
//!
//! Nothing here reads files or the environment. Firmware images are hostile input: each length,
//! offset and overlap is checked, and whatever could be read in two ways is refused.
//!
//! ```no_run
//! use sev_attest::measure::{CpuSignature, Firmware, KernelHashes, Launch, Mode, Variants};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let firmware = Firmware::parse(std::fs::read("OVMF.amdsev.fd")?)?;
//! let boot = KernelHashes::new(&std::fs::read("vmlinuz")?, None, "console=ttyS0")?;
//! let cpus = [CpuSignature::of_type("EPYC-v4")?];
//! let variants = Variants { boots: &[boot], cpus: &cpus, vcpus: &[1, 2, 4] };
//! for measurement in Launch::new(&firmware, Mode::Snp).measure(&variants)? {
//!     println!("{:?} {:02x?}", measurement.vcpus, measurement.digest.as_ref());
//! }
//! # Ok(())
//! # }
//! ```

mod cpu;
mod error;
mod gctx;
mod guest_policy;
mod guid;
mod hashes;
mod idblock;
#[cfg(feature = "igvm")]
mod igvm;
mod launch;
mod ovmf;
mod pages;
mod record;
mod section;
mod sha384;
mod sha384x4;
mod svsm;
mod vmsa;

pub use cpu::{CPU_TYPES, CpuSignature, CpuType};
pub use error::MeasureError;
pub use gctx::{LaunchContext, PageType};
pub use guest_policy::GuestPolicy;
pub use guid::Guid;
pub use hashes::{KernelHashes, sha256, sha256_reader};
pub use idblock::{ID_AUTH_LEN, ID_BLOCK_LEN, IdBlock, IdKey, SignedIdBlock};
#[cfg(feature = "igvm")]
pub use igvm::{IGVM_MAGIC, Igvm};
pub use launch::{
    KNOWN_FEATURES, Launch, LaunchDigest, MAX_VCPUS, Measurement, Mode, Variants, VcpuCounts,
    firmware_context,
};
pub use ovmf::{Firmware, FirmwareReadError, HashTableArea, MAX_FIRMWARE};
pub use pages::{page_digests, page_digests_on};
pub use record::{FileRecord, IdentityRecord, KernelRecord, LaunchRecord, RecordError};
pub use section::{Section, SectionKind};
pub use sha384::{PAGE, Sha384Digest, sha384};
pub use svsm::Svsm;
pub use vmsa::{Vmm, page as vmsa_page};
