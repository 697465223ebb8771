//! The signature field: r and s little-endian in 72 bytes each, zeros after.

use std::fmt;

/// The 512 bytes of the signature field.
#[derive(Clone, PartialEq, Eq)]
pub struct SignatureField(pub [u8; 512]);

impl fmt::Debug for SignatureField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignatureField({})", hex::encode(&self.0[..2 * WIDTH]))
    }
}

/// Width of r and of s in the field.
const WIDTH: usize = 72;
/// Bytes of a P-384 scalar.
const SCALAR: usize = 48;
/// Order of P-384, big-endian.
const ORDER: [u8; SCALAR] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf,
    0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// Why the signature field holds no ECDSA signature on P-384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// r or s has more than 384 bits.
    #[error("{0} is not zero-extended")]
    NotZeroExtended(char),
    /// Bytes after r and s are not zero.
    #[error("bytes after r and s are not zero")]
    TrailingBytes,
    /// r or s is zero.
    #[error("{0} is zero")]
    Zero(char),
    /// r or s is not below the order of the curve.
    #[error("{0} is not below the order of P-384")]
    TooLarge(char),
}

impl SignatureField {
    /// r and s, big-endian, one after the other.
    ///
    /// # Errors
    /// Where the field is not what the security processor writes.
    pub fn fixed(&self) -> Result<[u8; 2 * SCALAR], SignatureError> {
        let mut fixed = [0; 2 * SCALAR];
        let (r, rest) = self.0.split_at(WIDTH);
        let (s, rest) = rest.split_at(WIDTH);
        for (name, field, out) in [('r', r, 0), ('s', s, SCALAR)] {
            let (scalar, extension) = field.split_at(SCALAR);
            if extension.iter().any(|byte| *byte != 0) {
                return Err(SignatureError::NotZeroExtended(name));
            }
            let out = &mut fixed[out..out + SCALAR];
            out.copy_from_slice(scalar);
            out.reverse();
            if out.iter().all(|byte| *byte == 0) {
                return Err(SignatureError::Zero(name));
            }
            // Public values: no need for constant time.
            if &*out >= ORDER.as_slice() {
                return Err(SignatureError::TooLarge(name));
            }
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(SignatureError::TrailingBytes);
        }
        Ok(fixed)
    }
}
