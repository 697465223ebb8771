//! Signed ID blocks: what the guest's owner lets be launched, checked by the security processor.
//!
//! `SNP_LAUNCH_FINISH` refuses a guest whose launch digest or policy differ from the ID block, or
//! whose block is not signed by the ID key; the digests of the ID key and, if given, of the author
//! key that signed it stand in each report of the guest (AMD 56860, chapter "Guest Identity":
//! structures ID_BLOCK and ID_AUTH, section 8.18). Signatures are ECDSA P-384 with SHA-384 and
//! deterministic nonces (RFC 6979), so equal inputs give equal blocks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p384::SecretKey;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Error, Signature, SigningKey, VerifyingKey};
use p384::pkcs8::DecodePrivateKey as _;

use super::error::MeasureError;
use super::guest_policy::GuestPolicy;
use super::sha384::{Sha384Digest, sha384};

/// Bytes of ID_BLOCK.
pub const ID_BLOCK_LEN: usize = 96;
/// Bytes of ID_AUTH.
pub const ID_AUTH_LEN: usize = 4096;
/// Bytes of a public key: curve, X and Y in 72 bytes each, reserved.
const PUBLIC_KEY_LEN: usize = 0x404;
/// Bytes of a signature: R and S in 72 bytes each, reserved.
const SIGNATURE_LEN: usize = 512;
const COMPONENT_LEN: usize = 72;
/// Curve P-384.
const CURVE_P384: u32 = 2;
/// ECDSA P-384 with SHA-384.
const ALGORITHM: u32 = 1;
/// Version of the ID block.
const VERSION: u32 = 1;
/// Key files longer than this are no key files.
const MAX_KEY_FILE: usize = 64 << 10;

/// A P-384 private key; wiped from memory when dropped.
pub struct IdKey(SigningKey);

impl std::fmt::Debug for IdKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdKey(..)")
    }
}

impl IdKey {
    /// Reads an unencrypted key: PEM or DER, PKCS#8 or SEC 1, recognised by content.
    ///
    /// # Errors
    /// When it is none of these, or of another curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MeasureError> {
        let bad = |reason: &str| MeasureError::SigningKey {
            reason: reason.to_owned(),
        };
        if bytes.len() > MAX_KEY_FILE {
            return Err(bad("the file is too long"));
        }
        let text = std::str::from_utf8(bytes)
            .ok()
            .filter(|text| text.contains("-----BEGIN"));
        let key = match text {
            Some(text) => {
                if text.contains("ENCRYPTED") {
                    return Err(bad("the key is encrypted"));
                }
                // OpenSSL writes a block of curve parameters in front of SEC 1 keys.
                let block = |label: &str| text.find(&format!("-----BEGIN {label}-----"));
                if let Some(start) = block("EC PRIVATE KEY") {
                    SecretKey::from_sec1_pem(text.get(start..).unwrap_or_default())
                        .map_err(|e| bad(&e.to_string()))?
                } else if let Some(start) = block("PRIVATE KEY") {
                    SecretKey::from_pkcs8_pem(text.get(start..).unwrap_or_default())
                        .map_err(|e| bad(&e.to_string()))?
                } else {
                    return Err(bad("the PEM file holds no private key"));
                }
            }
            None => SecretKey::from_pkcs8_der(bytes)
                .or_else(|_| SecretKey::from_sec1_der(bytes))
                .map_err(|_| bad("neither PEM nor DER of a private key"))?,
        };
        Ok(Self(key.into()))
    }

    /// The public key as ID_AUTH holds it.
    fn public(&self) -> [u8; PUBLIC_KEY_LEN] {
        public_key(self.0.verifying_key())
    }

    /// SHA-384 of the public key, as in a report's `id_key_digest` or `author_key_digest`.
    #[must_use]
    pub fn digest(&self) -> Sha384Digest {
        sha384(&self.public())
    }

    fn sign(&self, data: &[u8]) -> Result<[u8; SIGNATURE_LEN], MeasureError> {
        let signature: Signature = self.0.try_sign(data).map_err(|_| MeasureError::Signing)?;
        Ok(signature_bytes(&signature))
    }
}

/// A public key as ID_AUTH holds it.
fn public_key(key: &VerifyingKey) -> [u8; PUBLIC_KEY_LEN] {
    let point = key.to_sec1_point(false);
    let mut out = [0; PUBLIC_KEY_LEN];
    put(&mut out, 0, &CURVE_P384.to_le_bytes());
    put_reversed(&mut out, 4, point.x().map_or(&[], |x| x.as_slice()));
    put_reversed(
        &mut out,
        4 + COMPONENT_LEN,
        point.y().map_or(&[], |y| y.as_slice()),
    );
    out
}

/// A signature as ID_AUTH holds it.
fn signature_bytes(signature: &Signature) -> [u8; SIGNATURE_LEN] {
    let (r, s) = signature.split_bytes();
    let mut out = [0; SIGNATURE_LEN];
    put_reversed(&mut out, 0, &r);
    put_reversed(&mut out, COMPONENT_LEN, &s);
    out
}

/// What the owner signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdBlock {
    /// Expected SNP launch digest.
    pub launch_digest: Sha384Digest,
    /// Family of the guest, the owner's choice.
    pub family_id: [u8; 16],
    /// Image of the guest, the owner's choice.
    pub image_id: [u8; 16],
    /// Security version of the guest.
    pub guest_svn: u32,
    /// Guest policy; must be the one of the launch.
    pub policy: u64,
}

impl IdBlock {
    /// A block with no ids, SVN 0 and the usual policy 0x30000 (bit 17 and SMT).
    #[must_use]
    pub fn new(launch_digest: Sha384Digest) -> Self {
        let none = [0; 16];
        Self {
            launch_digest,
            family_id: none,
            image_id: none,
            guest_svn: 0,
            policy: 0x3_0000,
        }
    }

    /// The block's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_LEN] {
        let mut out = [0; ID_BLOCK_LEN];
        put(&mut out, 0x00, &self.launch_digest);
        put(&mut out, 0x30, &self.family_id);
        put(&mut out, 0x40, &self.image_id);
        put(&mut out, 0x50, &VERSION.to_le_bytes());
        put(&mut out, 0x54, &self.guest_svn.to_le_bytes());
        put(&mut out, 0x58, &self.policy.to_le_bytes());
        out
    }

    /// Signs the block with nobody's key: for a fixed signature (r = 2, s = 1) the public key is
    /// computed under which it is this block's. Nobody knows the private one, so nobody can sign
    /// another block with it, and `id_key_digest` of the guest's reports stands for all that is in
    /// this block. So Contrast does it.
    ///
    /// # Errors
    /// When the policy could never be launched.
    pub fn sign_without_key(&self) -> Result<SignedIdBlock, MeasureError> {
        GuestPolicy::new(self.policy)?;
        let block = self.to_bytes();
        let number = |value| {
            let mut bytes = [0; 48];
            put_reversed(&mut bytes, 0, &[value]);
            bytes.reverse();
            bytes
        };
        let signature = Signature::from_scalars(number(2), number(1));
        let signature = signature.map_err(|_| MeasureError::Signing)?;
        // Of the two points with this x, the one with an even y.
        let key = 0_u8
            .try_into()
            .and_then(|even| VerifyingKey::recover_from_msg(&block, &signature, even))
            .map_err(|_: Error| MeasureError::Signing)?;
        let public = public_key(&key);
        let mut auth = Box::new([0; ID_AUTH_LEN]);
        put(auth.as_mut(), 0x000, &ALGORITHM.to_le_bytes());
        put(auth.as_mut(), 0x040, &signature_bytes(&signature));
        put(auth.as_mut(), 0x240, &public);
        Ok(SignedIdBlock {
            block,
            auth,
            id_key_digest: sha384(&public),
            author_key_digest: None,
        })
    }

    /// Signs the block with the ID key, and that with the author key if given.
    ///
    /// # Errors
    /// When the policy could never be launched, or signing fails.
    pub fn sign(&self, id: &IdKey, author: Option<&IdKey>) -> Result<SignedIdBlock, MeasureError> {
        GuestPolicy::new(self.policy)?;
        let block = self.to_bytes();
        let public = id.public();
        let mut auth = Box::new([0; ID_AUTH_LEN]);
        put(auth.as_mut(), 0x000, &ALGORITHM.to_le_bytes());
        put(auth.as_mut(), 0x040, &id.sign(&block)?);
        put(auth.as_mut(), 0x240, &public);
        if let Some(author) = author {
            put(auth.as_mut(), 0x004, &ALGORITHM.to_le_bytes());
            put(auth.as_mut(), 0x680, &author.sign(&public)?);
            put(auth.as_mut(), 0x880, &author.public());
        }
        Ok(SignedIdBlock {
            block,
            auth,
            id_key_digest: id.digest(),
            author_key_digest: author.map(IdKey::digest),
        })
    }
}

/// An ID block with its authentication information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIdBlock {
    /// ID_BLOCK.
    pub block: [u8; ID_BLOCK_LEN],
    /// ID_AUTH.
    pub auth: Box<[u8; ID_AUTH_LEN]>,
    /// `id_key_digest` of the guest's reports.
    pub id_key_digest: Sha384Digest,
    /// `author_key_digest` of the guest's reports; zero in them when there is no author key.
    pub author_key_digest: Option<Sha384Digest>,
}

impl SignedIdBlock {
    /// Value of `id-block=` of QEMU's `sev-snp-guest` object.
    #[must_use]
    pub fn block_base64(&self) -> String {
        STANDARD.encode(self.block)
    }

    /// Value of `id-auth=` of QEMU's `sev-snp-guest` object.
    #[must_use]
    pub fn auth_base64(&self) -> String {
        STANDARD.encode(self.auth.as_ref())
    }
}

fn put(out: &mut [u8], offset: usize, bytes: &[u8]) {
    for (to, from) in out.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

/// Big-endian numbers are stored little-endian, zero-extended.
fn put_reversed(out: &mut [u8], offset: usize, big_endian: &[u8]) {
    for (to, from) in out.iter_mut().skip(offset).zip(big_endian.iter().rev()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use p384::ecdsa::signature::Verifier as _;

    use super::*;

    #[test]
    fn a_block_without_a_key_holds_under_the_key_in_it() {
        let block = IdBlock {
            guest_svn: 7,
            ..IdBlock::new([9; 48])
        };
        let signed = block.sign_without_key().unwrap();
        let number = |at: usize| -> Vec<u8> {
            let mut bytes = signed.auth[at..at + 48].to_vec();
            bytes.reverse();
            bytes
        };
        let point = [vec![4], number(0x244), number(0x244 + 72)].concat();
        let key = VerifyingKey::from_sec1_bytes(&point).unwrap();
        let signature = Signature::from_slice(&[number(0x40), number(0x40 + 72)].concat()).unwrap();
        assert!(key.verify(&block.to_bytes(), &signature).is_ok());
        // Of no other block, and another block has another key.
        let other = IdBlock {
            guest_svn: 8,
            ..block.clone()
        };
        assert!(key.verify(&other.to_bytes(), &signature).is_err());
        let others = other.sign_without_key().unwrap();
        assert_ne!(others.id_key_digest, signed.id_key_digest);
        assert_eq!(signed.auth[0x680..], [0; ID_AUTH_LEN - 0x680]);
        let impossible = IdBlock { policy: 0, ..block };
        assert_eq!(
            impossible.sign_without_key(),
            Err(MeasureError::GuestPolicy(0))
        );
    }
}
