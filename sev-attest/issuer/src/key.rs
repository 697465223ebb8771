//! Keys of authorities and leaves.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RSA_PSS_SHA384, RsaKeyPair,
};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};

use crate::der::{bits, element, oid, sequence};
use crate::report::{REPORT_LEN, SIGNED_LEN};

/// How an authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// As AMD: RSASSA-PSS, SHA-384, 48 bytes of salt.
    PssSha384,
    /// RSASSA-PSS with SHA-256.
    PssSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Pkcs1Sha384,
}

/// An authority's key.
pub struct RsaKey(RsaKeyPair);

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey")
    }
}

impl RsaKey {
    fn new(pkcs8: &[u8]) -> Self {
        Self(RsaKeyPair::from_pkcs8(pkcs8).unwrap())
    }

    /// Key of simulated ARKs.
    #[must_use]
    pub fn ark() -> Self {
        Self::new(include_bytes!("keys/ark.p8"))
    }

    /// Key of simulated ASKs.
    #[must_use]
    pub fn ask() -> Self {
        Self::new(include_bytes!("keys/ask.p8"))
    }

    /// Key of simulated ASVKs.
    #[must_use]
    pub fn asvk() -> Self {
        Self::new(include_bytes!("keys/asvk.p8"))
    }

    /// A key of 2,048 bits.
    #[must_use]
    pub fn short() -> Self {
        Self::new(include_bytes!("keys/short.p8"))
    }

    /// SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        let algorithm = sequence(&[&oid("1.2.840.113549.1.1.1"), &element(0x05, &[])]);
        sequence(&[&algorithm, &bits(self.0.public_key().as_ref())])
    }

    /// A signature over `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8], scheme: Scheme) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        let encoding: &'static dyn aws_lc_rs::signature::RsaEncoding = match scheme {
            Scheme::PssSha384 => &RSA_PSS_SHA384,
            Scheme::PssSha256 => &RSA_PSS_SHA256,
            Scheme::Pkcs1Sha384 => &RSA_PKCS1_SHA384,
        };
        self.0
            .sign(encoding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    }
}

/// A leaf's key.
#[derive(Clone)]
pub struct LeafKey(SigningKey);

impl Default for LeafKey {
    fn default() -> Self {
        Self::new(7)
    }
}

impl fmt::Debug for LeafKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafKey")
    }
}

impl LeafKey {
    /// The key whose scalar is this byte, 48 times.
    #[must_use]
    pub fn new(byte: u8) -> Self {
        Self(SigningKey::from_slice(&[byte; 48]).unwrap())
    }

    /// The public key as an uncompressed SEC1 point.
    #[must_use]
    pub fn point(&self) -> Vec<u8> {
        self.0
            .verifying_key()
            .to_sec1_point(false)
            .as_bytes()
            .to_vec()
    }

    /// SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        ec_spki("1.3.132.0.34", &self.point())
    }

    /// Signs a report: the signature field is overwritten.
    #[must_use]
    pub fn sign_report(&self, mut report: [u8; REPORT_LEN]) -> [u8; REPORT_LEN] {
        let signature: Signature = self.0.sign(&report[..SIGNED_LEN]);
        let fixed = signature.to_bytes();
        report[SIGNED_LEN..].fill(0);
        for (part, offset) in [(&fixed[..48], SIGNED_LEN), (&fixed[48..], SIGNED_LEN + 72)] {
            report[offset..offset + 48].copy_from_slice(part);
            report[offset..offset + 48].reverse();
        }
        report
    }
}

/// SubjectPublicKeyInfo of a point on the curve with this identifier.
#[must_use]
pub fn ec_spki(curve: &str, point: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[&oid("1.2.840.10045.2.1"), &oid(curve)]);
    sequence(&[&algorithm, &bits(point)])
}
