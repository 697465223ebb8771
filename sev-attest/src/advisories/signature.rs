//! Signatures of tables: ECDSA P-384 with SHA-384 over the file's bytes.

use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{DerSignature, Signature, VerifyingKey};
use p384::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};

use crate::measure::{Sha384Digest, sha384};

/// Who signed a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signer {
    /// It is part of the program.
    BuiltIn,
    /// Nobody: it is believed because it was named.
    #[default]
    Nobody,
    /// A key, by the SHA-384 of its SubjectPublicKeyInfo.
    Key(Sha384Digest),
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureFailure {
    /// The key can't be read.
    #[error("no public key on P-384 in PEM")]
    Key,
    /// The signature can't be read.
    #[error("no ECDSA signature on P-384: expected DER, or 96 bytes of r and s")]
    Form,
    /// The key did not sign these bytes.
    #[error("the key did not sign this table")]
    Invalid,
}

impl Signer {
    /// The key in `pem`, where its `signature` of `table` holds.
    ///
    /// # Errors
    /// Where key or signature can't be read, or the signature is not the key's.
    pub fn verify(table: &[u8], signature: &[u8], pem: &str) -> Result<Self, SignatureFailure> {
        let key = VerifyingKey::from_public_key_pem(pem).map_err(|_| SignatureFailure::Key)?;
        let signature = match signature.len() {
            96 => Signature::from_slice(signature).map_err(|_| SignatureFailure::Form)?,
            _ => DerSignature::try_from(signature)
                .and_then(Signature::try_from)
                .map_err(|_| SignatureFailure::Form)?,
        };
        key.verify(table, &signature)
            .map_err(|_| SignatureFailure::Invalid)?;
        let der = key.to_public_key_der().map_err(|_| SignatureFailure::Key)?;
        Ok(Self::Key(sha384(der.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p384::ecdsa::SigningKey;
    use p384::ecdsa::signature::Signer as _;
    use p384::pkcs8::LineEnding;

    #[test]
    fn a_changed_table_or_another_key_is_refused() {
        let key = SigningKey::from_slice(&[7; 48]).unwrap();
        let pem = |key: &SigningKey| {
            key.verifying_key()
                .to_public_key_pem(LineEnding::LF)
                .unwrap()
        };
        let table = b"issuer = \"x\"";
        let signature: Signature = key.sign(table);
        let der = signature.to_der();
        let bytes = signature.to_bytes();
        for form in [der.as_bytes(), &bytes[..]] {
            let signer = Signer::verify(table, form, &pem(&key)).unwrap();
            assert!(matches!(signer, Signer::Key(_)));
            let changed = Signer::verify(b"issuer = \"y\"", form, &pem(&key));
            assert_eq!(changed, Err(SignatureFailure::Invalid));
            let other = pem(&SigningKey::from_slice(&[8; 48]).unwrap());
            assert_eq!(
                Signer::verify(table, form, &other),
                Err(SignatureFailure::Invalid)
            );
        }
        assert_eq!(
            Signer::verify(table, b"?", &pem(&key)),
            Err(SignatureFailure::Form)
        );
        assert_eq!(Signer::verify(table, b"?", "?"), Err(SignatureFailure::Key));
    }
}
