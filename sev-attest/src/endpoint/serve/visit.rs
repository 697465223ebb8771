//! One connection's requests, answered.

use std::time::Instant;

use serde_json::json;

use super::admission::Source;
use super::route::{Refusal, Route};
use super::{Event, Guest};
use crate::channel::ethereum;
use crate::channel::v2::Session;
use crate::channel::{NONCE_LEN, Secrets, v1, v2};
use crate::guest::{GuestReport, ReportRequest};

/// What is answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Nothing more is heard on this connection.
    pub(super) last: bool,
    /// Secrets were taken.
    pub(super) unlocked: bool,
}

impl Reply {
    fn ok(body: Vec<u8>) -> Self {
        Self {
            status: 200,
            body,
            last: false,
            unlocked: false,
        }
    }

    /// A refusal, after which the connection is closed: trying again costs a handshake.
    pub(super) fn refusal(Refusal(status, words): Refusal) -> Self {
        Self::words(status, words)
    }

    fn words(status: u16, words: &str) -> Self {
        Self {
            status,
            body: json!({ "error": words }).to_string().into_bytes(),
            last: true,
            unlocked: false,
        }
    }
}

/// A connection and what was said on it.
pub(super) struct Visit<'a> {
    pub(super) guest: &'a Guest,
    pub(super) source: Source,
    /// The session that a report was made for (version 2).
    pub(super) session: Option<Session>,
}

impl Visit<'_> {
    /// Answers a request. `session` gives the connection's session for a nonce, where it has one.
    pub(super) fn answer(
        &mut self,
        route: Route,
        body: &[u8],
        session: impl FnOnce([u8; NONCE_LEN]) -> Option<Session>,
    ) -> Reply {
        match route {
            Route::Fresh(nonce) => {
                let data = v1::fresh(&self.guest.key.point, &nonce);
                match self.report(data, false) {
                    Ok(made) => Reply::ok(v1::write_evidence(&made.report)),
                    Err(refused) => Reply::refusal(refused),
                }
            }
            Route::Attest => self.attest(body, session),
            Route::Inject => {
                let Ok((secrets, signature)) = v1::read_envelope(body) else {
                    return Reply::words(400, "not an envelope of secrets and signature");
                };
                match v1::owner_text(&self.guest.key.point, &secrets) {
                    Some(text) => self.unlock(1, &text, &signature, &secrets),
                    None => Reply::words(400, "version 1 carries text alone"),
                }
            }
            Route::Unlock => {
                let Some(session) = self.session.take() else {
                    return Reply::words(409, "no report was asked for on this connection");
                };
                let Ok((secrets, signature)) = v2::read_envelope(body) else {
                    return Reply::words(400, "not an envelope of secrets and signature");
                };
                let text = session.owner_text(&secrets);
                self.unlock(2, &text, &signature, &secrets)
            }
        }
    }

    fn attest(
        &mut self,
        body: &[u8],
        session: impl FnOnce([u8; NONCE_LEN]) -> Option<Session>,
    ) -> Reply {
        let Ok(nonce) = v2::read_question(body) else {
            return Reply::words(400, "not a question with a nonce of 64 hexadecimal digits");
        };
        if self.session.is_some() {
            return Reply::words(409, "a report was made for this connection already");
        }
        let Some(session) = session(nonce) else {
            return Reply::words(400, "version 2 needs TLS 1.3");
        };
        let made = match self.report(session.report_data(), true) {
            Ok(made) => made,
            Err(refused) => return Reply::refusal(refused),
        };
        match v2::write_answer(&made.report, &made.table) {
            Ok(body) => {
                self.session = Some(session);
                Reply::ok(body)
            }
            Err(_) => Reply::words(500, "the report could not be written"),
        }
    }

    /// Has a report made, if the source has not asked for too many.
    fn report(&self, data: [u8; 64], extended: bool) -> Result<GuestReport, Refusal> {
        if !self.guest.admission.report(self.source, Instant::now()) {
            return Err(Refusal(
                429,
                "too many reports are asked for: wait a second",
            ));
        }
        let request = ReportRequest {
            data,
            vmpl: self.guest.vmpl,
            extended,
        };
        self.guest.report(&request).map_err(|error| {
            self.guest.tell(&Event::NoReport(error.to_string()));
            Refusal(503, "no report could be had")
        })
    }

    /// Takes secrets whose owner signed `text`.
    fn unlock(&self, version: u8, text: &str, signature: &str, secrets: &Secrets) -> Reply {
        if ethereum::signer(text, signature) != Ok(self.guest.owner) {
            // Word for word what version 1's clients know.
            return Reply::words(403, "owner signature verification failed");
        }
        if let Err(error) = self.guest.take(secrets) {
            let words = format!("the secret was not taken: {error}");
            self.guest.tell(&Event::NotTaken(words.clone()));
            return Reply::words(422, &words);
        }
        let names: Vec<&str> = secrets.names().collect();
        let body = json!({ "injected": names }).to_string().into_bytes();
        self.guest.tell(&Event::Unlocked {
            version,
            names: names.into_iter().map(str::to_owned).collect(),
        });
        Reply {
            last: true,
            unlocked: true,
            ..Reply::ok(body)
        }
    }
}
