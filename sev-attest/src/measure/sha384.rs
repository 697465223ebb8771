//! SHA-384, and the page: what all digests of SNP launches are made of.

use sha2::{Digest as _, Sha384};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a SHA-384 digest.
pub(super) const SHA384_LEN: usize = 48;

/// A SHA-384 digest.
pub type Sha384Digest = [u8; SHA384_LEN];

/// SHA-384 of `data`.
#[must_use]
pub fn sha384(data: &[u8]) -> Sha384Digest {
    Sha384::digest(data).into()
}
