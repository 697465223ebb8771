//! Certificate revocation lists.

use der::{Decode as _, Encode as _};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::name::Name;

use super::{CertError, Certificate, pss, tbs_range};
use crate::time::UnixTime;

/// Longest revocation list that is read, in bytes.
pub(super) const MAX_CRL: usize = 1 << 20;

/// A parsed revocation list. Only a claim until its signature is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
    tbs: std::ops::Range<usize>,
    issuer: Name,
    pss: bool,
    signature: Vec<u8>,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    /// Serial numbers, big-endian.
    revoked: Vec<Vec<u8>>,
    critical: Option<String>,
}

impl Crl {
    /// Reads one list; nothing may follow it.
    ///
    /// # Errors
    /// For anything that is not one X.509 revocation list in DER.
    pub fn parse(der: &[u8]) -> Result<Self, CertError> {
        if der.len() > MAX_CRL {
            return Err(CertError::TooLong(der.len()));
        }
        let parsed = CertificateList::<Rfc5280>::from_der(der)?;
        let list = &parsed.tbs_cert_list;
        if parsed.signature_algorithm != list.signature {
            return Err(CertError::AlgorithmsDiffer);
        }
        let signature = parsed
            .signature
            .as_bytes()
            .ok_or(CertError::SignatureBits)?;
        let entries = list.revoked_certificates.as_deref().unwrap_or_default();
        let critical = entries
            .iter()
            .filter_map(|entry| entry.crl_entry_extensions.as_deref())
            .chain(list.crl_extensions.as_deref())
            .flatten()
            .find(|extension| extension.critical)
            .map(|extension| extension.extn_id.to_string());
        Ok(Self {
            der: der.to_vec(),
            tbs: tbs_range(der)?,
            issuer: list.issuer.clone(),
            pss: pss::is_pss_sha384(&list.signature.to_der()?),
            signature: signature.to_vec(),
            this_update: list.this_update.into(),
            next_update: list.next_update.map(UnixTime::from),
            revoked: entries
                .iter()
                .map(|entry| entry.serial_number.as_bytes().to_vec())
                .collect(),
            critical,
        })
    }

    /// The list in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The part that the issuer signed.
    #[must_use]
    pub fn signed_bytes(&self) -> &[u8] {
        &self.der[self.tbs.clone()]
    }

    /// The issuer's signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// As [`Certificate::is_pss_sha384`].
    #[must_use]
    pub fn is_pss_sha384(&self) -> bool {
        self.pss
    }

    /// The issuer, as in RFC 4514.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.issuer.to_string()
    }

    /// Whether this list names `certificate`'s subject as its issuer.
    #[must_use]
    pub fn is_issued_in_name_of(&self, certificate: &Certificate) -> bool {
        self.issuer == certificate.subject
    }

    /// When it was made.
    #[must_use]
    pub fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// When the next one comes at the latest.
    #[must_use]
    pub fn next_update(&self) -> Option<UnixTime> {
        self.next_update
    }

    /// Whether the next one is not due yet. A list newer than `at` knows more, not less.
    #[must_use]
    pub fn is_current_at(&self, at: UnixTime) -> bool {
        self.next_update.is_none_or(|next| at <= next)
    }

    /// Serial numbers of revoked certificates, big-endian.
    #[must_use]
    pub fn revoked(&self) -> &[Vec<u8>] {
        &self.revoked
    }

    /// Whether `certificate`'s serial number is in the list.
    #[must_use]
    pub fn lists(&self, certificate: &Certificate) -> bool {
        self.revoked
            .iter()
            .any(|serial| serial == certificate.serial())
    }

    /// An extension that is critical; none is understood.
    #[must_use]
    pub fn critical_extension(&self) -> Option<&str> {
        self.critical.as_deref()
    }
}

impl std::fmt::Debug for Crl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crl")
            .field("issuer", &self.issuer())
            .field("this_update", &self.this_update)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}
