//! Verification of AMD SEV-SNP attestation reports and computation of launch digests.

pub mod advisories;
pub mod appraise;
pub mod assemble;
pub mod cert;
pub mod chain;
#[cfg(feature = "cli")]
pub mod cli;
pub mod crypto;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod formats;
#[cfg(all(feature = "guest", target_os = "linux"))]
pub mod guest;
pub mod hex_bytes;
pub mod measure;
pub mod policy;
pub mod product;
pub mod report;
pub mod roots;
pub mod show;
pub mod source;
pub mod tcb;
pub mod time;
