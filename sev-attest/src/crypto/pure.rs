//! RustCrypto.

use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::{RsaPublicKey, pss};
use sha2::Sha384;

pub(super) struct P384(VerifyingKey);

impl P384 {
    pub(super) fn new(sec1: &[u8]) -> Option<Self> {
        VerifyingKey::from_sec1_bytes(sec1).ok().map(Self)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 96]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

pub(super) fn verifies_pss(pkcs1: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = RsaPublicKey::from_pkcs1_der(pkcs1) else {
        return false;
    };
    // Takes signatures of exactly the key's length, and salts of exactly the digest's.
    pss::Signature::try_from(signature).is_ok_and(|signature| {
        pss::VerifyingKey::<Sha384>::new(key)
            .verify(message, &signature)
            .is_ok()
    })
}
