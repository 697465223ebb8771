//! Version 1, `aleph.ra-tls` 1: what Aleph Cloud's clients (aleph-sdk 0.22) and guests speak.
//!
//! The guest's TLS key is bound by the report in its certificate, and once more, with the verifier's
//! nonce, by a fresh report. "Key" is always the content of the certificate's `subjectPublicKey`,
//! for P-384 the uncompressed point.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384};
use zeroize::Zeroizing;

use super::secrets::{Encoding, Secrets, Wire};
use super::{MessageError, NONCE_LEN, TEE_TYPE};
use crate::report::Report;

/// Identifier of the certificate extension with the report.
pub const EXTENSION: &str = "1.3.6.1.4.1.60000.1.1";
/// Path of fresh reports; the query is `nonce=` and 64 hexadecimal digits.
pub const ATTESTATION_PATH: &str = "/.well-known/attestation";
/// Path that secrets are posted to.
pub const INJECT_PATH: &str = "/confidential/inject-secret";

const KEY_DOMAIN: &[u8] = b"aleph-attest-tls-key-v1\0";
const FRESH_DOMAIN: &[u8] = b"aleph-attest-fresh-v1\0";
const OWNER_DOMAIN: &str = "aleph-snp-inject-secret-v1";

/// Report data of the certificate's report.
#[must_use]
pub fn key_binding(key: &[u8]) -> [u8; 64] {
    padded(Sha384::new().chain_update(KEY_DOMAIN).chain_update(key))
}

/// Report data of a fresh report.
#[must_use]
pub fn fresh(key: &[u8], nonce: &[u8; NONCE_LEN]) -> [u8; 64] {
    let hash = Sha384::new().chain_update(FRESH_DOMAIN);
    padded(hash.chain_update(key).chain_update(nonce))
}

/// A digest with zeros after it.
fn padded(hash: Sha384) -> [u8; 64] {
    let mut data = [0; 64];
    data[..48].copy_from_slice(&hash.finalize());
    data
}

/// What the owner signs (EIP-191) so that the guest takes `secrets`; `None` for secrets that are not
/// text, which version 1 can't carry.
#[must_use]
pub fn owner_text(key: &[u8], secrets: &Secrets) -> Option<String> {
    let body = secrets.to_json()?;
    let (key, body) = (Sha384::digest(key), Sha256::digest(body.as_slice()));
    Some(format!(
        "{OWNER_DOMAIN}|{}|{}",
        hex::encode(key),
        hex::encode(body)
    ))
}

/// A report as certificates and answers hold it.
#[derive(Debug, Serialize, Deserialize)]
struct Evidence {
    tee_type: String,
    data: String,
}

/// A report as JSON, for answers.
#[must_use]
pub fn write_evidence(report: &Report) -> Vec<u8> {
    let digits = hex::encode(report.as_bytes());
    format!(r#"{{"tee_type":"{TEE_TYPE}","data":"{digits}"}}"#).into_bytes()
}

/// The report of an answer. Unknown keys are passed over.
///
/// # Errors
/// For anything but one report of SEV-SNP.
pub fn read_evidence(json: &[u8]) -> Result<Report, MessageError> {
    let evidence: Evidence = serde_json::from_slice(json)?;
    super::report(&evidence.tee_type, &evidence.data)
}

/// Value of the certificate extension: a DER OCTET STRING around the JSON.
///
/// # Errors
/// Never for a report, whose length is known.
pub fn extension_value(report: &Report) -> Result<Vec<u8>, der::Error> {
    use der::Encode as _;
    der::asn1::OctetString::new(write_evidence(report))?.to_der()
}

/// The body of a request with secrets.
#[derive(Deserialize)]
struct Envelope {
    secrets: Wire<Text>,
    signature: String,
}

/// Secrets as version 1 writes them: as they are.
struct Text;

impl Encoding for Text {
    fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(text.as_bytes().to_vec()))
    }
}

/// Secrets with the owner's signature, as a request's body; `None` for secrets that are not text.
#[must_use]
pub fn write_envelope(secrets: &Secrets, signature: &str) -> Option<Zeroizing<Vec<u8>>> {
    let json = secrets.to_json()?;
    let mut body = Zeroizing::new(Vec::with_capacity(json.len() + signature.len() + 64));
    body.extend_from_slice(br#"{"secrets":"#);
    body.extend_from_slice(&json);
    body.extend_from_slice(br#","signature":""#);
    body.extend_from_slice(signature.as_bytes());
    body.extend_from_slice(br#""}"#);
    Some(body)
}

/// Secrets and the owner's signature out of a request's body. Unknown keys are passed over.
///
/// # Errors
/// For any other JSON, and for secrets beyond the limits.
pub fn read_envelope(json: &[u8]) -> Result<(Secrets, String), MessageError> {
    let envelope: Envelope = serde_json::from_slice(json)?;
    Ok((envelope.secrets.into_secrets(), envelope.signature))
}

/// The names in a guest's answer to secrets. Version 2 has the same answer.
///
/// # Errors
/// For any other JSON.
pub fn read_injected(json: &[u8]) -> Result<Vec<String>, MessageError> {
    #[derive(Deserialize)]
    struct Injected {
        injected: Vec<String>,
    }
    let answer: Injected = serde_json::from_slice(json)?;
    Ok(answer.injected)
}
