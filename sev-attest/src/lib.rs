//! Verification of AMD SEV-SNP attestation reports and computation of launch digests.

pub mod measure;
