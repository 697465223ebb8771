//! The two signature algorithms of AMD's hierarchy, behind two functions each.
//!
//! With the feature `native` they are AWS-LC's, otherwise pure Rust's, which browsers can run.
//! Both answer alike on every input; a test compares them.

#[cfg(feature = "native")]
mod native;
#[cfg(any(not(feature = "native"), test))]
mod pure;

#[cfg(feature = "native")]
use native as backend;
#[cfg(not(feature = "native"))]
use pure as backend;

use crate::cert::PublicKey;

#[cfg(test)]
thread_local! {
    /// RSA signatures that this thread looked at.
    pub(crate) static VERIFIED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A P-384 key that is on the curve, prepared to verify many signatures.
pub struct P384Key(backend::P384);

impl P384Key {
    /// Reads an uncompressed SEC1 point; `None` where it is not on the curve.
    #[must_use]
    pub fn new(sec1: &[u8]) -> Option<Self> {
        backend::P384::new(sec1).map(Self)
    }

    /// Whether `signature`, r and s big-endian, is this key's ECDSA signature with SHA-384 over
    /// `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 96]) -> bool {
        self.0.verifies(message, signature)
    }
}

impl std::fmt::Debug for P384Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("P384Key")
    }
}

/// Whether `signature` is the RSASSA-PSS signature of `key` over `message`, with SHA-384, MGF1 with
/// SHA-384 and 48 bytes of salt. Never for keys other than RSA.
#[must_use]
pub(crate) fn verifies_pss(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    #[cfg(test)]
    VERIFIED.with(|count| count.set(count.get() + 1));
    match key {
        PublicKey::Rsa { pkcs1, .. } => backend::verifies_pss(pkcs1, message, signature),
        PublicKey::P384(_) | PublicKey::Other(_) => false,
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use p384::ecdsa::signature::Signer as _;
    use p384::ecdsa::{Signature, SigningKey};

    use super::{native, pure};
    use crate::cert::PublicKey;
    use crate::product::Product;
    use crate::report::SigningKey as Kind;
    use crate::roots::authorities;

    #[test]
    fn backends_agree_on_p384() {
        let key = SigningKey::from_slice(&[7; 48]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let signature: Signature = key.sign(b"message");
        let good: [u8; 96] = signature.to_bytes().into();
        let native = native::P384::new(point.as_bytes()).unwrap();
        let pure = pure::P384::new(point.as_bytes()).unwrap();
        let both = |message: &[u8], signature: &[u8; 96]| {
            let answer = native.verifies(message, signature);
            assert_eq!(answer, pure.verifies(message, signature));
            answer
        };
        assert!(both(b"message", &good));
        assert!(!both(b"massage", &good));
        for i in 0..96 {
            let mut bad = good;
            bad[i] ^= 1;
            assert!(!both(b"message", &bad));
        }
        // s and the order minus s are both valid ECDSA; both libraries take either.
        let (r, s) = signature.split_scalars();
        let mut other = [0; 96];
        other[..48].copy_from_slice(&r.to_bytes());
        other[48..].copy_from_slice(&(-*s).to_bytes());
        assert!(both(b"message", &other));
        let mut off_curve = point.as_bytes().to_vec();
        off_curve[96] ^= 1;
        assert!(native::P384::new(&off_curve).is_none() && pure::P384::new(&off_curve).is_none());
        assert!(native::P384::new(&[]).is_none() && pure::P384::new(&[]).is_none());
    }

    #[test]
    fn backends_agree_on_pss() {
        let amd = authorities(Product::Milan, Kind::Vcek).unwrap();
        let PublicKey::Rsa { pkcs1, .. } = amd.ark.key() else {
            panic!("ARKs are RSA");
        };
        let both = |message: &[u8], signature: &[u8]| {
            let answer = native::verifies_pss(pkcs1, message, signature);
            assert_eq!(answer, pure::verifies_pss(pkcs1, message, signature));
            answer
        };
        let (message, good) = (
            amd.intermediate.signed_bytes(),
            amd.intermediate.signature(),
        );
        assert!(both(message, good));
        assert!(!both(b"other", good));
        for i in [0, 1, 255, 510, 511] {
            let mut bad = good.to_vec();
            bad[i] ^= 1;
            assert!(!both(message, &bad));
        }
        assert!(!both(message, &good[1..]));
        assert!(!both(message, &[&[0], good].concat()));
        assert!(!both(message, &[]));
        assert!(!native::verifies_pss(&pkcs1[1..], message, good));
        assert!(!pure::verifies_pss(&pkcs1[1..], message, good));
    }
}
