//! The attested channel: how an owner's secret reaches a guest that was verified, and nobody else.
//!
//! `docs/channel.md` has the protocol and the argument for its security. Two versions are spoken:
//!
//! - [`v1`] is what Aleph Cloud's clients and guests speak today. A report binds the guest's TLS key;
//!   so it says nothing of the *connection*, and whoever has such a key out of any sound guest can
//!   stand between owner and guest (CVE-2026-33697).
//! - [`v2`] binds the TLS session itself: report data and the owner's signature are made of values
//!   that only the two ends of one connection know.
//!
//! Here are the messages and what is hashed and signed: bytes in, bytes out. The two ends, which talk
//! to each other, are in `endpoint`.

#[cfg(feature = "channel")]
pub mod ethereum;
mod secrets;
pub mod v1;
pub mod v2;

pub use secrets::{MAX_VALUE, Secrets, SecretsError};

use crate::report::{Report, ReportError};

/// The port that guests listen on where nothing else is said.
pub const PORT: u16 = 8443;
/// Length of a verifier's nonce in bytes, in both versions.
pub const NONCE_LEN: usize = 32;
/// Longest body of a request that carries secrets, in bytes.
pub const MAX_BODY: usize = 2 << 20;
/// What reports of this technology are called in messages.
const TEE_TYPE: &str = "sev-snp";

/// What a channel binds, for the verifier to hold against the report data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Version 2: this report data and no other is of this connection.
    Session([u8; 64]),
    /// Version 1: the report data binds the guest's TLS key and a nonce, not the connection.
    KeyOnly {
        /// Whether the verifier takes that.
        allowed: bool,
    },
}

/// Why a message of the channel was not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It is not the JSON that was expected.
    #[error("not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It speaks of another technology.
    #[error("evidence of {0:?}, not of {TEE_TYPE}")]
    OtherTee(String),
    /// The report is not hexadecimal.
    #[error("the report is not hexadecimal: {0}")]
    Hex(#[from] hex::FromHexError),
    /// The report can't be read.
    #[error("the report can't be read: {0}")]
    Report(#[from] ReportError),
    /// The certificates are not Base64.
    #[error("the certificates are not Base64")]
    Certificates,
}

/// The report of a message.
fn report(tee_type: &str, digits: &str) -> Result<Report, MessageError> {
    if tee_type != TEE_TYPE {
        return Err(MessageError::OtherTee(tee_type.chars().take(32).collect()));
    }
    Ok(Report::parse(&hex::decode(digits)?)?)
}
