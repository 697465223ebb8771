//! Verification of AMD SEV-SNP attestation reports and computation of launch digests.

#[cfg(feature = "cli")]
pub mod cli;
pub mod measure;
