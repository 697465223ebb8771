//! Verification of AMD SEV-SNP attestation reports and computation of launch digests.

pub mod cert;
#[cfg(feature = "cli")]
pub mod cli;
pub mod measure;
pub mod product;
pub mod report;
pub mod source;
pub mod tcb;
pub mod time;
