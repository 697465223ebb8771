//! X.509 certificates and revocation lists of AMD's key hierarchy (AMD 57230).
//!
//! [`Certificate::parse`] reads a certificate strictly as DER and decides nothing about it; trust
//! is for [`crate::chain`].

mod crl;
mod error;
mod extensions;
mod key;
mod pss;

use std::fmt;
use std::ops::Range;

use der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::certificate::{CertificateInner, Rfc5280, Version};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;

pub use crl::Crl;
pub use error::CertError;
pub use extensions::{EndorsementExtensions, ExtensionError};
pub use key::PublicKey;

use crate::product::Product;
use crate::report::SigningKey;
use crate::time::UnixTime;

/// Longest certificate that is read, in bytes. Real ones have about 1,400 to 1,700.
pub const MAX_CERTIFICATE: usize = 16 << 10;

/// What a certificate is, by the name of its subject. Only a claim until the chain is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// AMD Root Key of a product.
    Ark(Product),
    /// AMD SEV Key, which signs VCEKs.
    Ask(Product),
    /// AMD SEV VLEK Key, which signs VLEKs.
    Asvk(Product),
    /// A key that signs reports.
    Leaf(SigningKey),
    /// Something else.
    Other,
}

impl Role {
    fn of(common_name: &str) -> Self {
        let product = |name: &str| Product::ALL.into_iter().find(|p| p.name() == name);
        if let Some(product) = common_name.strip_prefix("ARK-").and_then(product) {
            return Self::Ark(product);
        }
        if let Some(product) = common_name.strip_prefix("SEV-VLEK-").and_then(product) {
            return Self::Asvk(product);
        }
        match common_name {
            "SEV-VCEK" => Self::Leaf(SigningKey::Vcek),
            "SEV-VLEK" => Self::Leaf(SigningKey::Vlek),
            _ => match common_name.strip_prefix("SEV-").and_then(product) {
                Some(product) => Self::Ask(product),
                None => Self::Other,
            },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ark(product) => write!(f, "ARK of {product}"),
            Self::Ask(product) => write!(f, "ASK of {product}"),
            Self::Asvk(product) => write!(f, "ASVK of {product}"),
            Self::Leaf(key) => key.fmt(f),
            Self::Other => f.write_str("other certificate"),
        }
    }
}

/// A parsed certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    tbs: Range<usize>,
    role: Role,
    subject: Name,
    issuer: Name,
    serial: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    key: PublicKey,
    pss: bool,
    signature: Vec<u8>,
    endorsement: Result<EndorsementExtensions, ExtensionError>,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    unknown_critical: Option<String>,
}

impl Certificate {
    /// Reads one certificate; nothing may follow it.
    ///
    /// # Errors
    /// For anything that is not one X.509 v3 certificate in DER.
    pub fn parse(der: &[u8]) -> Result<Self, CertError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertError::TooLong(der.len()));
        }
        let parsed = CertificateInner::<Rfc5280>::from_der(der)?;
        let tbs_range = tbs_range(der)?;
        let tbs = parsed.tbs_certificate();
        if tbs.version() != Version::V3 {
            return Err(CertError::NotV3);
        }
        let algorithm = parsed.signature_algorithm();
        if algorithm != tbs.signature() {
            return Err(CertError::AlgorithmsDiffer);
        }
        let signature = parsed.signature().as_bytes();
        let signature = signature.ok_or(CertError::SignatureBits)?.to_vec();
        let extensions = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        for (i, extension) in extensions.iter().enumerate() {
            if extensions[..i]
                .iter()
                .any(|e| e.extn_id == extension.extn_id)
            {
                return Err(CertError::DuplicateExtension(extension.extn_id.to_string()));
            }
        }
        let common_name = tbs.subject().common_name().ok().flatten();
        Ok(Self {
            der: der.to_vec(),
            tbs: tbs_range,
            role: common_name.map_or(Role::Other, |name| Role::of(&name.value())),
            subject: tbs.subject().clone(),
            issuer: tbs.issuer().clone(),
            serial: tbs.serial_number().as_bytes().to_vec(),
            not_before: tbs.validity().not_before.into(),
            not_after: tbs.validity().not_after.into(),
            key: PublicKey::of(tbs.subject_public_key_info()),
            pss: pss::is_pss_sha384(&algorithm.to_der()?),
            signature,
            endorsement: EndorsementExtensions::read(extensions),
            basic_constraints: tbs.get_extension()?.map(|(_, value)| value),
            key_usage: tbs.get_extension()?.map(|(_, value)| value),
            unknown_critical: extensions::unknown_critical(extensions),
        })
    }

    /// The certificate in DER.
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

    /// Whether the signature is said to be RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes
    /// of salt, the only algorithm in AMD's hierarchy.
    #[must_use]
    pub fn is_pss_sha384(&self) -> bool {
        self.pss
    }

    /// What the subject's name claims.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The subject, as in RFC 4514.
    #[must_use]
    pub fn subject(&self) -> String {
        self.subject.to_string()
    }

    /// The issuer, as in RFC 4514.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.issuer.to_string()
    }

    /// Whether this certificate names `other`'s subject as its issuer.
    #[must_use]
    pub fn is_issued_in_name_of(&self, other: &Self) -> bool {
        self.issuer == other.subject
    }

    /// Serial number, big-endian; 0 in all real VCEKs.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// Start of validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// End of validity, itself included.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether `at` lies in the validity.
    #[must_use]
    pub fn is_valid_at(&self, at: UnixTime) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    /// The subject's key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// AMD's extensions of a VCEK or VLEK.
    ///
    /// # Errors
    /// Where they are missing or malformed, as in certificates of other roles.
    pub fn endorsement(&self) -> Result<&EndorsementExtensions, &ExtensionError> {
        self.endorsement.as_ref()
    }

    /// Basic constraints: whether it is a CA, and how many CAs may follow.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<(bool, Option<u8>)> {
        let constraints = self.basic_constraints.as_ref()?;
        Some((constraints.ca, constraints.path_len_constraint))
    }

    /// Whether the key may sign certificates; `None` where the certificate doesn't say.
    #[must_use]
    pub fn may_sign_certificates(&self) -> Option<bool> {
        self.key_usage.as_ref().map(KeyUsage::key_cert_sign)
    }

    /// Whether the key may sign revocation lists; `None` where the certificate doesn't say.
    #[must_use]
    pub fn may_sign_crls(&self) -> Option<bool> {
        self.key_usage.as_ref().map(KeyUsage::crl_sign)
    }

    /// Whether the key may sign data; `None` where the certificate doesn't say.
    #[must_use]
    pub fn may_sign_data(&self) -> Option<bool> {
        self.key_usage.as_ref().map(KeyUsage::digital_signature)
    }

    /// An extension that is critical and not understood.
    #[must_use]
    pub fn unknown_critical_extension(&self) -> Option<&str> {
        self.unknown_critical.as_deref()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("role", &self.role)
            .field("subject", &self.subject())
            .field("issuer", &self.issuer())
            .finish_non_exhaustive()
    }
}

/// Where the first element of the outer SEQUENCE lies: what is signed, byte for byte.
fn tbs_range(der: &[u8]) -> Result<Range<usize>, CertError> {
    let mut reader = SliceReader::new(der)?;
    der::Header::decode(&mut reader)?;
    let start = usize::try_from(reader.position())?;
    let tbs = reader.tlv_bytes()?;
    Ok(start..start + tbs.len())
}
