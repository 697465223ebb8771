//! Version 2: evidence after the handshake, bound to the one TLS 1.3 session it is sent over.
//!
//! The guest's report data and the text that the owner signs are hashes over the session's exporter
//! values (RFC 8446, 7.5), the guest's TLS key and the verifier's nonce. The two directions have
//! domains and exporter values of their own, so that nothing of one can be turned back as the other;
//! and the last 16 bytes of the report data are a word where version 1 has zeros, so that no report
//! of one version passes for one of the other.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

use super::secrets::{Encoding, Secrets, Wire};
use super::{MessageError, NONCE_LEN, TEE_TYPE};
use crate::hex_bytes::HexBytes;
use crate::report::Report;

/// Path that a nonce is posted to for a report of this session.
pub const ATTEST_PATH: &str = "/sev-attest/v2/attest";
/// Path that secrets are posted to, on the same connection.
pub const UNLOCK_PATH: &str = "/sev-attest/v2/unlock";
/// Label of the exporter.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-sev-attest-channel-v2";
/// Length of an exporter value in bytes.
pub const EXPORTER_LEN: usize = 32;

const DOMAIN: &[u8] = b"sev-attest attested channel";
const VERSION: &[u8] = b"2";
const OWNER_DOMAIN: &str = "sev-attest-channel-v2-unlock";
/// What the report data ends in.
const TAIL: &[u8; 16] = b"sev-attest ch v2";

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The guest, by a report.
    Guest,
    /// The owner, by a signature.
    Owner,
}

impl Role {
    /// The role's name in hashes, and the context of its exporter value.
    #[must_use]
    pub fn context(self) -> &'static [u8] {
        match self {
            Self::Guest => b"guest to owner",
            Self::Owner => b"owner to guest",
        }
    }
}

/// What both ends of one connection know, and nobody else.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Exporter value with the context of [`Role::Guest`].
    pub guest: [u8; EXPORTER_LEN],
    /// Exporter value with the context of [`Role::Owner`].
    pub owner: [u8; EXPORTER_LEN],
    /// The guest's TLS key: SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// The verifier's nonce.
    pub nonce: [u8; NONCE_LEN],
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Report data of the guest's report.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        let mut data = [0; 64];
        data[..48].copy_from_slice(&self.hash(Role::Guest));
        data[48..].copy_from_slice(TAIL);
        data
    }

    /// What the owner signs (EIP-191) so that the guest takes `secrets`.
    #[must_use]
    pub fn owner_text(&self, secrets: &Secrets) -> String {
        let mut body = Sha256::new();
        for (name, value) in secrets.iter() {
            field(&mut body, name.as_bytes());
            field(&mut body, value);
        }
        let session = hex::encode(self.hash(Role::Owner));
        format!("{OWNER_DOMAIN}|{session}|{}", hex::encode(body.finalize()))
    }

    fn hash(&self, role: Role) -> [u8; 48] {
        let exporter = match role {
            Role::Guest => &self.guest,
            Role::Owner => &self.owner,
        };
        let mut hash = Sha384::new();
        for part in [
            DOMAIN,
            VERSION,
            role.context(),
            exporter,
            &self.spki,
            &self.nonce,
        ] {
            field(&mut hash, part);
        }
        hash.finalize().into()
    }
}

/// A field with its length before it (8 bytes, big-endian): no two lists of fields are one string.
fn field(hash: &mut impl Digest, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// The question for a report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    nonce: String,
}

/// The body of the question for a report.
#[must_use]
pub fn write_question(nonce: &[u8; NONCE_LEN]) -> Vec<u8> {
    format!(r#"{{"nonce":"{}"}}"#, hex::encode(nonce)).into_bytes()
}

/// The nonce of a question.
///
/// # Errors
/// For any other JSON.
pub fn read_question(json: &[u8]) -> Result<[u8; NONCE_LEN], MessageError> {
    use serde::de::Error as _;
    let question: Question = serde_json::from_slice(json)?;
    let nonce: Result<HexBytes<NONCE_LEN>, String> = question.nonce.parse();
    Ok(nonce.map_err(serde_json::Error::custom)?.0)
}

/// The answer with a report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    tee_type: String,
    report: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    certificates: String,
}

/// The body of the answer with a report and the host's certificate table, which may be empty.
///
/// # Errors
/// Never in truth: it is JSON of three texts.
pub fn write_answer(report: &Report, table: &[u8]) -> Result<Vec<u8>, MessageError> {
    Ok(serde_json::to_vec(&Answer {
        tee_type: TEE_TYPE.to_owned(),
        report: hex::encode(report.as_bytes()),
        certificates: STANDARD.encode(table),
    })?)
}

/// Report and certificate table of an answer; the table unread.
///
/// # Errors
/// For any other JSON.
pub fn read_answer(json: &[u8]) -> Result<(Report, Vec<u8>), MessageError> {
    let answer: Answer = serde_json::from_slice(json)?;
    let report = super::report(&answer.tee_type, &answer.report)?;
    let table = STANDARD.decode(&answer.certificates);
    Ok((report, table.map_err(|_| MessageError::Certificates)?))
}

/// The body of a request with secrets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    secrets: Wire<Base64>,
    signature: String,
}

/// Secrets as version 2 writes them: any bytes, in Base64.
struct Base64;

impl Encoding for Base64 {
    fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
        STANDARD.decode(text).ok().map(Zeroizing::new)
    }
}

/// Secrets with the owner's signature, as a request's body.
///
/// # Errors
/// Never in truth: it is JSON of texts.
pub fn write_envelope(
    secrets: &Secrets,
    signature: &str,
) -> Result<Zeroizing<Vec<u8>>, MessageError> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        secrets: BTreeMap<&'a str, &'a str>,
        signature: &'a str,
    }
    let encoded: Vec<(&str, Zeroizing<String>)> = secrets
        .iter()
        .map(|(name, value)| (name, Zeroizing::new(STANDARD.encode(value))))
        .collect();
    let secrets: BTreeMap<&str, &str> = encoded
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    // Room for all of it, so that growing leaves no copies behind.
    let length: usize = secrets.iter().map(|(n, v)| n.len() + v.len() + 8).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(length + signature.len() + 64));
    let envelope = Envelope { secrets, signature };
    serde_json::to_writer(&mut *body, &envelope)?;
    Ok(body)
}

/// Secrets and the owner's signature out of a request's body.
///
/// # Errors
/// For any other JSON, and for secrets beyond the limits.
pub fn read_envelope(json: &[u8]) -> Result<(Secrets, String), MessageError> {
    let envelope: Envelope = serde_json::from_slice(json)?;
    Ok((envelope.secrets.into_secrets(), envelope.signature))
}
