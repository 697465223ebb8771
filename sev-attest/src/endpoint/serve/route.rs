//! What a request is for.

use super::Versions;
use crate::channel::{MAX_BODY, NONCE_LEN, v1, v2};
use crate::hex_bytes::HexBytes;

/// Longest body of a question for a report.
const MAX_QUESTION: usize = 256;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Version 1: a fresh report.
    Fresh([u8; NONCE_LEN]),
    /// Version 1: secrets.
    Inject,
    /// Version 2: a report of this session.
    Attest,
    /// Version 2: secrets.
    Unlock,
}

/// Why a request is not answered: status and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) u16, pub(super) &'static str);

impl Route {
    /// What a request is for, by its first line. A version that is not spoken has no paths.
    pub(super) fn of(method: &str, target: &str, versions: Versions) -> Result<Self, Refusal> {
        let (v1, v2) = (versions.v1(), versions.v2());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (wanted, route) = match path {
            v1::ATTESTATION_PATH if v1 => ("GET", None),
            v1::INJECT_PATH if v1 => ("POST", Some(Self::Inject)),
            v2::ATTEST_PATH if v2 => ("POST", Some(Self::Attest)),
            v2::UNLOCK_PATH if v2 => ("POST", Some(Self::Unlock)),
            _ => return Err(Refusal(404, "no such path")),
        };
        if method != wanted {
            return Err(Refusal(405, "another method is meant for this path"));
        }
        match route {
            Some(route) => Ok(route),
            None => nonce(query).map(Self::Fresh),
        }
    }

    /// Longest body of such a request.
    pub(super) fn max_body(self) -> usize {
        match self {
            Self::Fresh(_) => 0,
            Self::Attest => MAX_QUESTION,
            Self::Inject | Self::Unlock => MAX_BODY,
        }
    }

    /// Whether the body brings secrets.
    pub(super) fn brings_secrets(self) -> bool {
        matches!(self, Self::Inject | Self::Unlock)
    }
}

/// The one nonce of a query.
fn nonce(query: &str) -> Result<[u8; NONCE_LEN], Refusal> {
    let mut nonces = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("nonce="));
    let parsed = match (nonces.next(), nonces.next()) {
        (Some(digits), None) if digits.len() == 2 * NONCE_LEN => digits.parse().ok(),
        _ => None,
    };
    parsed.map(|HexBytes(nonce)| nonce).ok_or(Refusal(
        400,
        "the query must be nonce= and 64 hexadecimal digits",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let digits = "ab".repeat(NONCE_LEN);
        let fresh = format!("/.well-known/attestation?nonce={digits}");
        let twice = format!("{fresh}&nonce={digits}");
        let long = format!("{fresh}ab");
        let prefixed = format!("/.well-known/attestation?nonce=0x{}", &digits[2..]);
        for (method, target, expected) in [
            ("GET", &*fresh, Ok(Route::Fresh([0xab; NONCE_LEN]))),
            ("POST", "/confidential/inject-secret", Ok(Route::Inject)),
            ("POST", "/sev-attest/v2/attest", Ok(Route::Attest)),
            ("POST", "/sev-attest/v2/unlock", Ok(Route::Unlock)),
            ("POST", &*fresh, Err(405)),
            ("GET", "/confidential/inject-secret", Err(405)),
            ("GET", "/sev-attest/v2/attest", Err(405)),
            ("post", "/sev-attest/v2/unlock", Err(405)),
            ("GET", "/.well-known/attestation", Err(400)),
            ("GET", "/.well-known/attestation?nonce=ab", Err(400)),
            ("GET", &*twice, Err(400)),
            ("GET", &*long, Err(400)),
            ("GET", &*prefixed, Err(400)),
            ("GET", "/", Err(404)),
            ("GET", "//.well-known/attestation", Err(404)),
            ("POST", "/sev-attest/v2/unlock/", Err(404)),
        ] {
            let found = Route::of(method, target, Versions::Both).map_err(|refusal| refusal.0);
            assert_eq!(found, expected, "{method} {target}");
            let without = Route::of(method, target, Versions::V2).map_err(|refusal| refusal.0);
            let version_1 = !target.starts_with("/sev-attest/");
            assert_eq!(
                without,
                if version_1 { Err(404) } else { expected },
                "{target}"
            );
        }
    }
}
