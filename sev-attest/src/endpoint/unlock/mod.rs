//! The owner's side: asks a guest for a report of this connection, and sends secrets over it once the
//! verifier has cleared that.
//!
//! Whether a secret may be sent is decided by [`crate::appraise::Appraisal::clearance`] alone. This
//! module can't send one without a [`Clearance`], and only to the connection that it is for.

pub(super) mod connection;
mod target;

use std::time::Duration;

use zeroize::Zeroizing;

pub use target::Target;

use connection::Connection;

use super::http::HttpError;
use crate::appraise::Clearance;
use crate::channel::ethereum::OwnerKey;
use crate::channel::{ChannelBinding, MessageError, NONCE_LEN, Secrets, v1, v2};
use crate::formats::{Binding, Evidence, table};
use crate::hex_bytes::HexBytes;
use crate::policy::Policy;
use crate::report::Report;

/// Time for a report.
const REPORT: Duration = Duration::from_secs(30);
/// Time for a guest to take secrets: it may open a disk with them.
const TAKE: Duration = Duration::from_secs(150);
/// Most of a peer's words that are repeated.
const MAX_WORDS: usize = 300;

/// Why a guest could not be asked or did not take a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// It can't be reached, or the connection was lost.
    #[error("the guest can't be reached: {0}")]
    Io(#[from] std::io::Error),
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The peer's certificate can't be read.
    #[error("the peer's certificate can't be read")]
    Certificate,
    /// The peer does not speak HTTP as it should.
    #[error("the peer's answer: {0}")]
    Http(HttpError),
    /// The connection has no exporter value.
    #[error("the connection has no exporter value, so that nothing can be bound to it")]
    NoExporter,
    /// No random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The peer refused what was asked.
    #[error("the guest refused ({status}): {words}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// What the peer said; anything, cut short.
        words: String,
    },
    /// The peer's answer has no report in it.
    #[error("the guest's answer can't be read: {0}")]
    Message(#[from] MessageError),
    /// Another key than before.
    #[error(
        "the guest has another TLS key than a moment ago: it was started anew, or it is another"
    )]
    OtherKey,
    /// A clearance for another report.
    #[error("the clearance is for another connection")]
    OtherClearance,
    /// A secret that version 1 can't carry.
    #[error("version 1 of the channel carries text alone, and a secret is not UTF-8")]
    NotText,
}

impl From<HttpError> for UnlockError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Io(error) => Self::Io(error),
            other => Self::Http(other),
        }
    }
}

/// What a connection speaks, with what it binds.
enum Spoken {
    V2(v2::Session),
    V1 { nonce: [u8; NONCE_LEN] },
}

/// A connection whose peer gave a report for it, not yet judged.
pub struct Attested {
    target: Target,
    connection: Connection,
    spoken: Spoken,
    /// The report and what came with it; to be judged with [`Self::policy`].
    pub evidence: Evidence,
}

/// What a policy must expect, and does not, before a secret is sent by it: that the guest is this one,
/// and no copy of it.
#[must_use]
pub fn lacks(policy: &Policy) -> Vec<&'static str> {
    let all = [
        (
            policy.measurement.is_empty() || policy.any_guest,
            "measurement must be there: the key would be given to any guest",
        ),
        (
            policy.host_data.is_empty(),
            "host_data must be there: the key would be given to any instance of this image \
             (none for a host that sets none)",
        ),
        (
            policy.report_data.is_some() || policy.any_time,
            "report_data and any_time must not be there: the report data is made for each connection",
        ),
    ];
    let lacking = all.into_iter().filter(|(lacks, _)| *lacks);
    lacking.map(|(_, words)| words).collect()
}

/// The key that a guest has since it was started: SubjectPublicKeyInfo in DER. Asking for it costs
/// the guest no report.
///
/// # Errors
/// Where it can't be reached.
pub fn key_of(target: &Target) -> Result<Vec<u8>, UnlockError> {
    Ok(Connection::open(target)?.key.spki)
}

impl Attested {
    /// Connects and has a report made for the connection: by version 2, or by version 1 where the
    /// peer does not speak that; `allow_v1` says whether the verifier then takes it.
    ///
    /// # Errors
    /// Where no report could be had.
    pub fn ask(target: &Target, allow_v1: bool) -> Result<Self, UnlockError> {
        match Self::ask_v2(target)? {
            Ok(attested) => Ok(attested),
            Err(refused) => Self::ask_v1(target, allow_v1).map_err(|error| match error {
                // It speaks neither: what it said to version 2 is what matters.
                UnlockError::Refused { status: 404, .. } => refused,
                error => error,
            }),
        }
    }

    /// The inner error is that of a peer that does not speak version 2.
    fn ask_v2(target: &Target) -> Result<Result<Self, UnlockError>, UnlockError> {
        let mut connection = Connection::open(target)?;
        let nonce = nonce()?;
        let session = connection.session(nonce).ok_or(UnlockError::NoExporter)?;
        let question = v2::write_question(&nonce);
        let (status, body) = connection.request("POST", v2::ATTEST_PATH, &question, REPORT)?;
        match status {
            200 => {}
            // It does speak it, but not now.
            429 | 503 => return Err(refused(status, &body)),
            _ => return Ok(Err(refused(status, &body))),
        }
        let (report, certificates) = match v2::read_answer(&body) {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error.into())),
        };
        let binding = ChannelBinding::Session(session.report_data());
        Ok(Ok(Self {
            target: target.clone(),
            connection,
            spoken: Spoken::V2(session),
            evidence: evidence(report, &certificates, binding),
        }))
    }

    fn ask_v1(target: &Target, allowed: bool) -> Result<Self, UnlockError> {
        let mut connection = Connection::open(target)?;
        let nonce = nonce()?;
        let path = format!("{}?nonce={}", v1::ATTESTATION_PATH, hex::encode(nonce));
        let (status, body) = connection.request("GET", &path, &[], REPORT)?;
        if status != 200 {
            return Err(refused(status, &body));
        }
        let report = v1::read_evidence(&body)?;
        Ok(Self {
            target: target.clone(),
            connection,
            spoken: Spoken::V1 { nonce },
            evidence: evidence(report, &[], ChannelBinding::KeyOnly { allowed }),
        })
    }

    /// The channel's version, 1 or 2.
    #[must_use]
    pub fn version(&self) -> u8 {
        match self.spoken {
            Spoken::V1 { .. } => 1,
            Spoken::V2(_) => 2,
        }
    }

    /// The peer's key: SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.connection.key.spki
    }

    /// The report data that binds this connection (version 1: the peer's key), and no older question.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        match &self.spoken {
            Spoken::V2(session) => session.report_data(),
            Spoken::V1 { nonce } => v1::fresh(&self.connection.key.bits, nonce),
        }
    }

    /// The policy with what this connection's report must say.
    #[must_use]
    pub fn policy(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        policy.report_data = Some(HexBytes(self.report_data()));
        policy
    }

    /// Sends secrets to the guest that the clearance is for; answers the names that it took.
    ///
    /// # Errors
    /// With a clearance for another report, or where the guest did not take the secrets.
    pub fn send(
        mut self,
        clearance: &Clearance,
        secrets: &Secrets,
        owner: &OwnerKey,
    ) -> Result<Vec<String>, UnlockError> {
        if *clearance.report_data() != self.report_data() {
            return Err(UnlockError::OtherClearance);
        }
        let (path, body) = match &self.spoken {
            Spoken::V2(session) => {
                let signature = owner.sign(&session.owner_text(secrets));
                (v2::UNLOCK_PATH, v2::write_envelope(secrets, &signature)?)
            }
            Spoken::V1 { .. } => {
                // Today's guests close a connection that was silent for a few seconds.
                let connection = Connection::open(&self.target)?;
                if connection.key != self.connection.key {
                    return Err(UnlockError::OtherKey);
                }
                self.connection = connection;
                let text = v1::owner_text(&self.connection.key.bits, secrets);
                let signature = owner.sign(&text.ok_or(UnlockError::NotText)?);
                let body = v1::write_envelope(secrets, &signature);
                (v1::INJECT_PATH, body.ok_or(UnlockError::NotText)?)
            }
        };
        let (status, answer) = self.connection.request("POST", path, &body, TAKE)?;
        if !(200..300).contains(&status) {
            return Err(refused(status, &answer));
        }
        Ok(v1::read_injected(&answer)?)
    }
}

fn nonce() -> Result<[u8; NONCE_LEN], UnlockError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|error| UnlockError::Random(error.to_string()))?;
    Ok(nonce)
}

/// A report with the certificates that came along; those that can't be read are noted.
fn evidence(report: Report, certificates: &[u8], binding: ChannelBinding) -> Evidence {
    let mut evidence = Evidence::alone(report);
    evidence.binding = Some(Binding::Channel(binding));
    if !certificates.is_empty() {
        match table::read(certificates) {
            Ok(bundle) => evidence.bundle = bundle,
            Err(error) => {
                let note = format!("the certificates that came with the report: {error}");
                evidence.notes.push(note);
            }
        }
    }
    evidence
}

/// A refusal, with the peer's words where it has some.
fn refused(status: u16, body: &Zeroizing<Vec<u8>>) -> UnlockError {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let words = json.as_ref().and_then(|json| json.get("error")?.as_str());
    let words = words.unwrap_or("in no words that are understood");
    UnlockError::Refused {
        status,
        words: words.chars().take(MAX_WORDS).collect(),
    }
}
