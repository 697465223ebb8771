//! AWS-LC.

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
};

pub(super) struct P384(ParsedPublicKey);

impl P384 {
    pub(super) fn new(sec1: &[u8]) -> Option<Self> {
        let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, sec1);
        key.ok().map(Self)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 96]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

pub(super) fn verifies_pss(pkcs1: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, pkcs1);
    key.verify(message, signature).is_ok()
}
