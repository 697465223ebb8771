//! What a readable report may not have.

use std::fmt;

use super::{
    ECDSA_P384_SHA384, HOST_VMPL, REPORT_LEN, Report, SIGNED_LEN, SignatureError, SigningKey,
    Version,
};

/// Something in a report that no security processor writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Reserved bytes are not zero: from, and up to but not including.
    ReservedBytes(usize, usize),
    /// Bit 17 of the guest policy is zero.
    Policy(u64),
    /// Reserved bits of the key info are not zero.
    KeyInfo(u32),
    /// The TCB word at this offset has reserved bytes that are not zero.
    Tcb(usize, u64),
    /// The signature algorithm is not ECDSA P-384 with SHA-384.
    SignatureAlgorithm(u32),
    /// The signing key has a reserved number, or there is none.
    SigningKey(u32),
    /// The chip's key is masked, and signed all the same.
    MaskedKey,
    /// The VMPL is neither 0 to 3 nor that of a report for the host.
    Vmpl(u32),
    /// The signature field is malformed.
    Signature(SignatureError),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBytes(from, to) => {
                write!(f, "reserved bytes {from:#x} to {:#x} are not zero", to - 1)
            }
            Self::Policy(policy) => write!(f, "guest policy {policy:#x}: bit 17 must be one"),
            Self::KeyInfo(info) => write!(f, "key info {info:#x}: bits 5 to 31 must be zero"),
            Self::Tcb(offset, word) => write!(
                f,
                "TCB at {offset:#x} ({word:#018x}): reserved bytes are not zero"
            ),
            Self::SignatureAlgorithm(number) => write!(
                f,
                "signature algorithm {number} (1, ECDSA P-384 with SHA-384, is the only one)"
            ),
            Self::SigningKey(7) => f.write_str("the report is not signed (signing key 7)"),
            Self::SigningKey(number) => write!(f, "signing key {number} is reserved"),
            Self::MaskedKey => {
                f.write_str("the chip's key is masked, so that no VCEK can have signed the report")
            }
            Self::Vmpl(vmpl) => write!(f, "VMPL {vmpl} does not exist"),
            Self::Signature(error) => write!(f, "signature: {error}"),
        }
    }
}

/// Reserved bytes of a version.
fn reserved(version: Version) -> impl Iterator<Item = (usize, usize)> {
    let after_tcb = match version {
        Version::V2 => (0x188, 0x1a0),
        Version::V3 | Version::V4 | Version::V5 => (0x18b, 0x1a0),
    };
    let before_signature = match version {
        Version::V2 | Version::V3 | Version::V4 => (0x1f8, SIGNED_LEN),
        Version::V5 => (0x208, SIGNED_LEN),
    };
    [
        (0x4c, 0x50),
        after_tcb,
        (0x1eb, 0x1ec),
        (0x1ef, 0x1f0),
        before_signature,
    ]
    .into_iter()
}

pub(super) fn of(report: &Report) -> Vec<Violation> {
    let bytes: &[u8; REPORT_LEN] = report.as_bytes();
    let mut violations: Vec<Violation> = reserved(report.version)
        .filter(|&(from, to)| bytes[from..to].iter().any(|byte| *byte != 0))
        .map(|(from, to)| Violation::ReservedBytes(from, to))
        .collect();
    let mut unless = |holds: bool, violation| {
        if !holds {
            violations.push(violation);
        }
    };
    unless(
        report.policy.is_well_formed(),
        Violation::Policy(report.policy.0),
    );
    unless(
        report.key_info.is_well_formed(),
        Violation::KeyInfo(report.key_info.0),
    );
    for (offset, tcb) in [
        (0x38, report.current_tcb),
        (0x180, report.reported_tcb),
        (0x1e0, report.committed_tcb),
        (0x1f0, report.launch_tcb),
    ] {
        let zero = match report.product() {
            Some(product) => tcb.reserved_is_zero(product),
            // The leaf's product decides; the chain's check looks again.
            None => tcb.common_reserved_is_zero(),
        };
        unless(zero, Violation::Tcb(offset, tcb.0));
    }
    unless(
        report.signature_algorithm == ECDSA_P384_SHA384,
        Violation::SignatureAlgorithm(report.signature_algorithm),
    );
    unless(
        report.key_info.signing_key().is_some(),
        Violation::SigningKey(report.key_info.signing_key_number()),
    );
    // Firmware that has it masked writes zeros instead of the VCEK's signature (AMD 56860, 7.3).
    unless(
        !report.key_info.mask_chip_key() || report.key_info.signing_key() != Some(SigningKey::Vcek),
        Violation::MaskedKey,
    );
    unless(
        report.vmpl <= 3 || report.vmpl == HOST_VMPL,
        Violation::Vmpl(report.vmpl),
    );
    if let Err(error) = report.signature.fixed() {
        unless(false, Violation::Signature(error));
    }
    violations
}
