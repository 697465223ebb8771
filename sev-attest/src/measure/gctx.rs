//! The SNP launch digest: a chain of SHA-384 over one PAGE_INFO structure per launched page
//! (AMD 56860, section 8.17.2, `SNP_LAUNCH_UPDATE`).

use super::sha384::{PAGE, SHA384_LEN, Sha384Digest, sha384};

/// Bytes of the PAGE_INFO structure.
const PAGE_INFO_LEN: u16 = 0x70;

/// Page types of `SNP_LAUNCH_UPDATE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PageType {
    /// Contents are measured.
    Normal = 1,
    /// A vCPU's initial state; contents are measured.
    Vmsa = 2,
    /// Known to be zero; contents are not measured.
    Zero = 3,
    /// Contents are left to the host.
    Unmeasured = 4,
    /// Filled by the security processor.
    Secrets = 5,
    /// Checked by the security processor.
    Cpuid = 6,
}

/// A launch digest in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchContext {
    digest: Sha384Digest,
}

impl Default for LaunchContext {
    fn default() -> Self {
        Self {
            digest: [0; SHA384_LEN],
        }
    }
}

impl LaunchContext {
    /// A launch that has come as far as `digest`.
    #[must_use]
    pub fn from_digest(digest: Sha384Digest) -> Self {
        Self { digest }
    }

    /// The digest so far.
    #[must_use]
    pub fn digest(&self) -> Sha384Digest {
        self.digest
    }

    /// Adds a page by its type, address and the SHA-384 of its contents (zero for types whose
    /// contents are not measured).
    fn update(&mut self, page: PageType, gpa: u64, contents: &Sha384Digest) {
        let mut info = [0u8; PAGE_INFO_LEN as usize];
        let (current, rest) = info.split_at_mut(SHA384_LEN);
        current.copy_from_slice(&self.digest);
        let (hash, rest) = rest.split_at_mut(SHA384_LEN);
        hash.copy_from_slice(contents);
        // Length, type, then zero: no migration image, no permissions for VMPL 1 to 3.
        let [l0, l1] = PAGE_INFO_LEN.to_le_bytes();
        let (head, address) = rest.split_at_mut(8);
        head.copy_from_slice(&[l0, l1, page as u8, 0, 0, 0, 0, 0]);
        address.copy_from_slice(&gpa.to_le_bytes());
        self.digest = sha384(&info);
    }

    /// Measured pages from `gpa` on, given by their contents' digests.
    pub fn normal(&mut self, gpa: u64, digests: &[Sha384Digest]) {
        for (digest, gpa) in digests.iter().zip((gpa..).step_by(PAGE)) {
            self.update(PageType::Normal, gpa, digest);
        }
    }

    /// One vCPU's state, given by its page's digest and the address it is measured under.
    pub fn vmsa(&mut self, gpa: u64, digest: &Sha384Digest) {
        self.update(PageType::Vmsa, gpa, digest);
    }

    /// Pages of a type whose contents are not measured, covering `len` bytes from `gpa` on.
    pub fn contentless(&mut self, page: PageType, gpa: u64, len: u64) {
        for gpa in (gpa..gpa.saturating_add(len)).step_by(PAGE) {
            self.update(page, gpa, &[0; SHA384_LEN]);
        }
    }
}
