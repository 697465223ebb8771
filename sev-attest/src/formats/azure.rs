//! The report of Azure's hardware compatibility layer (HCL), as guests read it from their vTPM
//! (NV index 0x01400001): a header, the processor's report, and runtime claims that its report data
//! binds.
//!
//! All numbers are little-endian. The claims (the vTPM's key and 64 bytes of the user's) are JSON;
//! the nonce that a user asked for is in them, not in the report data.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::FormatError;
use super::tee::OtherTee;
use crate::report::REPORT_LEN;

const HEADER: usize = 32;
/// Size, version, type, kind of hash, and size of the claims.
const RUNTIME_HEADER: usize = 20;
const CLAIMS: usize = HEADER + REPORT_LEN + RUNTIME_HEADER;

/// The hash of the claims that the report data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// What Azure's virtual machine says beside its report, in JSON. True only as far as the report
/// data of a genuine report is the hash of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeClaims {
    bytes: Vec<u8>,
    hash: Hash,
}

impl RuntimeClaims {
    /// The claims as they were hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The claims as JSON; `None` where they are none.
    #[must_use]
    pub fn to_json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.bytes).ok()
    }

    /// What the report data must be.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        let mut data = [0; 64];
        match self.hash {
            Hash::Sha256 => data[..32].copy_from_slice(&Sha256::digest(&self.bytes)),
            Hash::Sha384 => data[..48].copy_from_slice(&Sha384::digest(&self.bytes)),
            Hash::Sha512 => data.copy_from_slice(&Sha512::digest(&self.bytes)),
        }
        data
    }

    /// What the user asked to have in the claims: nonces and keys; `None` where the claims have
    /// none, or not in 64 bytes of hexadecimal.
    #[must_use]
    pub fn user_data(&self) -> Option<[u8; 64]> {
        let mut data = [0; 64];
        let claims = self.to_json()?;
        hex::decode_to_slice(claims.get("user-data")?.as_str()?, &mut data).ok()?;
        Some(data)
    }
}

/// Whether the bytes start as one.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HCLA")
}

/// The processor's report and the claims.
pub(super) fn read(bytes: &[u8]) -> Result<(&[u8], RuntimeClaims), FormatError> {
    let refuse = |reason: String| FormatError::Container {
        form: "Azure HCL report",
        reason,
    };
    let number = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map(u32::from_le_bytes).ok_or_else(|| {
            refuse(format!(
                "cut short: {} bytes, where the runtime claims begin at byte {CLAIMS}",
                bytes.len()
            ))
        })
    };
    let runtime = HEADER + REPORT_LEN;
    let [version, kind, hash, len] = [
        number(runtime + 4)?,
        number(runtime + 8)?,
        number(runtime + 12)?,
        number(runtime + 16)?,
    ];
    let other = |tee| FormatError::OtherTee {
        tee,
        found: format!("an Azure HCL report of kind {kind}"),
    };
    match kind {
        2 => {}
        3 => return Err(other(OtherTee::TrustedLaunch)),
        4 => return Err(other(OtherTee::Tdx)),
        kind => {
            return Err(refuse(format!(
                "its runtime data (at byte {runtime}) says kind {kind}; 2 is SEV-SNP"
            )));
        }
    }
    if version != 1 {
        return Err(refuse(format!("its runtime data is of version {version}")));
    }
    let hash = match hash {
        1 => Hash::Sha256,
        2 => Hash::Sha384,
        3 => Hash::Sha512,
        hash => return Err(refuse(format!("an unknown kind of hash, {hash}"))),
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let end = CLAIMS.saturating_add(len);
    let (Some(report), Some(claims)) = (bytes.get(HEADER..runtime), bytes.get(CLAIMS..end)) else {
        return Err(refuse(format!(
            "cut short: its runtime claims end at byte {end}, the input at {}",
            bytes.len()
        )));
    };
    let claims = RuntimeClaims {
        bytes: claims.to_vec(),
        hash,
    };
    Ok((report, claims))
}
