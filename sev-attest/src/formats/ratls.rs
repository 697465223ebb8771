//! Certificates of TLS with a report in an extension (RA-TLS), Aleph Cloud's among them.
//!
//! The certificate itself is worth nothing: anyone can put anyone's report in one. What counts is
//! that the report data binds the certificate's key.

use der::{Decode as _, Encode as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_cert::certificate::{CertificateInner, Rfc5280};

use crate::channel::{NONCE_LEN, v1};

/// Shorter values hold no report.
const SHORTEST: usize = 512;

/// The key of a certificate that a report came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateKey {
    /// Subject of the certificate.
    pub subject: String,
    /// The extension that the report was in.
    pub extension: String,
    /// SubjectPublicKeyInfo in DER.
    spki: Vec<u8>,
    /// The key alone, without its algorithm.
    key: Vec<u8>,
}

impl CertificateKey {
    pub(super) fn carried_in(self, extension: String) -> Self {
        Self { extension, ..self }
    }

    /// Whether the certificate follows Aleph Cloud's protocol, which says how the key is bound.
    #[must_use]
    pub fn is_aleph(&self) -> bool {
        self.extension == v1::EXTENSION
    }

    /// How the report data binds the key, where it does in a way that is known.
    #[must_use]
    pub fn bound_by(&self, report_data: &[u8; 64]) -> Option<&'static str> {
        if v1::key_binding(&self.key) == *report_data {
            return Some("aleph-attest-tls-key-v1");
        }
        for key in [&self.spki, &self.key] {
            let dstack = Sha512::new()
                .chain_update(b"ratls-cert:")
                .chain_update(key)
                .finalize();
            for (name, digest) in [
                ("SHA-256 of the key", &Sha256::digest(key)[..]),
                ("SHA-384 of the key", &Sha384::digest(key)),
                ("SHA-512 of the key", &Sha512::digest(key)),
                ("dstack's ratls-cert", &dstack),
            ] {
                if padded(digest) == *report_data {
                    return Some(name);
                }
            }
        }
        None
    }

    /// Whether the report data binds the key together with a nonce of 32 bytes, as Aleph Cloud's
    /// guests do when they are asked for a fresh report.
    #[must_use]
    pub fn bound_with_nonce(&self, report_data: &[u8; 64], nonce: &[u8]) -> bool {
        let nonce: Result<&[u8; NONCE_LEN], _> = nonce.try_into();
        nonce.is_ok_and(|nonce| v1::fresh(&self.key, nonce) == *report_data)
    }
}

/// A digest with zeros after it.
fn padded(digest: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..digest.len()].copy_from_slice(digest);
    data
}

/// The identifier of an extension, and its value.
type ExtensionValue = (String, Vec<u8>);

/// The key of a certificate and the values of its extensions that are long enough for a report,
/// each with its identifier; `None` for bytes that are no certificate.
pub(super) fn extensions(der: &[u8]) -> Option<(CertificateKey, Vec<ExtensionValue>)> {
    let certificate = CertificateInner::<Rfc5280>::from_der(der).ok()?;
    let tbs = certificate.tbs_certificate();
    let info = tbs.subject_public_key_info();
    let values = tbs.extensions()?.iter().filter_map(|extension| {
        let value = extension.extn_value.as_bytes();
        if value.len() < SHORTEST {
            return None;
        }
        // Most wrap what they hold in an OCTET STRING of its own.
        let inner = der::asn1::OctetString::from_der(value);
        let value = inner.map_or_else(|_| value.to_vec(), |inner| inner.as_bytes().to_vec());
        Some((extension.extn_id.to_string(), value))
    });
    let key = CertificateKey {
        subject: tbs.subject().to_string(),
        extension: String::new(),
        spki: info.to_der().ok()?,
        key: info.subject_public_key.as_bytes()?.to_vec(),
    };
    Some((key, values.collect()))
}
