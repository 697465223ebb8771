//! Public keys of certificates.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_384_R_1};
use der::{Decode as _, Encode as _};
use spki::SubjectPublicKeyInfoOwned;

/// A subject's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point on P-384, uncompressed SEC1 encoding. Not checked to lie on the curve.
    P384(Vec<u8>),
    /// RSA: an RSAPublicKey of PKCS #1 in DER, and the bits of its modulus.
    Rsa {
        /// RSAPublicKey in DER.
        pkcs1: Vec<u8>,
        /// Bits of the modulus.
        bits: usize,
    },
    /// Another algorithm or curve, by its object identifier.
    Other(String),
}

impl PublicKey {
    pub(super) fn of(info: &SubjectPublicKeyInfoOwned) -> Self {
        let algorithm = &info.algorithm;
        let other = || Self::Other(algorithm.oid.to_string());
        let Some(key) = info.subject_public_key.as_bytes() else {
            return other();
        };
        if algorithm.oid == RSA_ENCRYPTION {
            return rsa_bits(key).map_or_else(other, |bits| Self::Rsa {
                pkcs1: key.to_vec(),
                bits,
            });
        }
        if algorithm.oid == ID_EC_PUBLIC_KEY {
            let curve = algorithm
                .parameters
                .as_ref()
                .and_then(|parameters| ObjectIdentifier::from_der(&parameters.to_der().ok()?).ok());
            return match curve {
                Some(SECP_384_R_1) if key.len() == 97 && key[0] == 4 => Self::P384(key.to_vec()),
                Some(curve) => Self::Other(curve.to_string()),
                None => other(),
            };
        }
        other()
    }

    /// Algorithm and size in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::P384(_) => "ECDSA P-384".to_owned(),
            Self::Rsa { bits, .. } => format!("RSA {bits}"),
            Self::Other(oid) => format!("another kind of key ({oid})"),
        }
    }
}

/// Bits of the modulus of an RSAPublicKey in DER.
fn rsa_bits(pkcs1: &[u8]) -> Option<usize> {
    let key = pkcs1::RsaPublicKeyRef::try_from(pkcs1).ok()?;
    let modulus = key.modulus.as_bytes();
    let first = modulus.first()?;
    Some(modulus.len() * 8 - first.leading_zeros() as usize)
}
