//! Evidence of other confidential computing technologies, so that it can be named.

use std::fmt;

/// A technology whose evidence this program does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OtherTee {
    /// Intel TDX.
    Tdx,
    /// Intel SGX.
    Sgx,
    /// AWS Nitro Enclaves or NitroTPM.
    Nitro,
    /// Arm CCA.
    Cca,
    /// AMD SEV or SEV-ES, without SNP.
    Sev,
    /// IBM Secure Execution.
    SecureExecution,
    /// Hygon CSV.
    Csv,
    /// A virtual machine of Azure's trusted launch, which has a vTPM and no encrypted memory.
    TrustedLaunch,
}

impl fmt::Display for OtherTee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tdx => "Intel TDX",
            Self::Sgx => "Intel SGX",
            Self::Nitro => "AWS Nitro",
            Self::Cca => "Arm CCA",
            Self::Sev => "AMD SEV without SNP",
            Self::SecureExecution => "IBM Secure Execution",
            Self::Csv => "Hygon CSV",
            Self::TrustedLaunch => "an Azure VM with trusted launch only",
        })
    }
}

/// Vendor id of Intel's quoting enclaves, in each quote of SGX and TDX.
const INTEL_QE: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// Length of a TDREPORT.
const TDREPORT: usize = 1024;

/// The technology of binary evidence, by its own marks; and the mark in words.
pub(super) fn of_bytes(bytes: &[u8]) -> Option<(OtherTee, &'static str)> {
    if bytes.get(12..28) == Some(&INTEL_QE) {
        return Some(match bytes.get(4..8) {
            Some([0x81, 0, 0, 0]) => (OtherTee::Tdx, "a quote of TEE type 0x81"),
            _ => (OtherTee::Sgx, "a quote of Intel's quoting enclave"),
        });
    }
    match *bytes {
        [4 | 5, 0, 2 | 3, 0, 0x81, 0, 0, 0, ..] => {
            Some((OtherTee::Tdx, "a quote of TEE type 0x81"))
        }
        [0x81, 0, 0 | 1, 0, ..] if bytes.len() == TDREPORT => Some((OtherTee::Tdx, "a TDREPORT")),
        // COSE_Sign1 with ES384 alone in its protected header.
        [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, ..]
        | [0xd2, 0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, ..] => {
            let marks = [&b"module_id"[..], b"pcrs"];
            let has = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
            marks
                .iter()
                .all(|mark| has(mark))
                .then_some((OtherTee::Nitro, "an attestation document"))
        }
        // CBOR tag 399: a CCA token.
        [0xd9, 0x01, 0x8f, ..] => Some((OtherTee::Cca, "a token of tag 399")),
        _ => None,
    }
}

/// Whether a key of a container says which technology its evidence is of.
pub(super) fn is_label(plain_name: &str) -> bool {
    matches!(
        plain_name,
        "tee"
            | "teetype"
            | "platform"
            | "provider"
            | "format"
            | "kind"
            | "technology"
            | "attestationtype"
            | "evidencetype"
            | "hardware"
    )
}

/// The technology that such a key's value names.
pub(super) fn of_label(value: &str) -> Option<OtherTee> {
    let value = value.trim().to_ascii_lowercase();
    let has = |word: &str| {
        value
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|part| part == word)
    };
    if has("snp") || has("sevsnp") {
        return None;
    }
    Some(if has("tdx") {
        OtherTee::Tdx
    } else if has("sgx") {
        OtherTee::Sgx
    } else if has("nitro") {
        OtherTee::Nitro
    } else if has("cca") {
        OtherTee::Cca
    } else if value == "csv" {
        OtherTee::Csv
    } else if value == "se" {
        OtherTee::SecureExecution
    } else if value == "sev" || value == "sev-es" || value == "sev_es" {
        OtherTee::Sev
    } else {
        return None;
    })
}
