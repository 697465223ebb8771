//! The owner's signature: Ethereum's `personal_sign` (EIP-191) with secp256k1, as wallets make it.

use std::fmt;
use std::str::FromStr;

use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use sha3::{Digest as _, Keccak256};
use zeroize::Zeroizing;

/// Length of a signature: r, s, and which of the keys that fit.
const SIGNATURE_LEN: usize = 65;

/// The address of an account: the end of the Keccak-256 hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address([u8; 20]);

/// Why a text is no address, key or signature, or a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EthereumError {
    /// Not an address.
    #[error("an address is 0x and 40 hexadecimal digits")]
    Address,
    /// An address in capitals and small letters whose checksum is wrong.
    #[error("the address has a slip in it: its checksum (EIP-55) is wrong")]
    Checksum,
    /// Not a private key.
    #[error("a private key is 64 hexadecimal digits, with or without 0x")]
    Key,
    /// Not a signature.
    #[error("a signature is 0x and 130 hexadecimal digits")]
    Signature,
    /// A signature that can be another one as well: high s, or an odd recovery value.
    #[error("the signature is not in its one form: s is high, or v is neither 27 nor 28")]
    Malleable,
    /// No key fits.
    #[error("no key made this signature")]
    NoKey,
}

impl FromStr for Address {
    type Err = EthereumError;

    fn from_str(text: &str) -> Result<Self, EthereumError> {
        let digits = text.strip_prefix("0x").ok_or(EthereumError::Address)?;
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| EthereumError::Address)?;
        let mixed = digits.contains(|c: char| c.is_ascii_lowercase())
            && digits.contains(|c: char| c.is_ascii_uppercase());
        if mixed && checksummed(&bytes) != digits {
            return Err(EthereumError::Checksum);
        }
        Ok(Self(bytes))
    }
}

/// The digits of an address as EIP-55 writes them.
fn checksummed(address: &[u8; 20]) -> String {
    let digits = hex::encode(address);
    let hash = hex::encode(Keccak256::digest(digits.as_bytes()));
    let pairs = digits.chars().zip(hash.chars());
    pairs
        .map(|(digit, mark)| match mark {
            '0'..='7' => digit,
            _ => digit.to_ascii_uppercase(),
        })
        .collect()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Address {
    fn of(key: &VerifyingKey) -> Self {
        let point = key.to_sec1_point(false);
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        let mut address = [0; 20];
        address.copy_from_slice(&hash[12..]);
        Self(address)
    }
}

/// An owner's private key. It is wiped when dropped and never shown by `Debug`.
pub struct OwnerKey(SigningKey);

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKey")
    }
}

impl OwnerKey {
    /// Reads a key in hex, as wallets export it; space around it is passed over.
    ///
    /// # Errors
    /// For anything else.
    pub fn from_text(text: &str) -> Result<Self, EthereumError> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, &mut *bytes).map_err(|_| EthereumError::Key)?;
        let key = SigningKey::from_slice(&*bytes).map_err(|_| EthereumError::Key)?;
        Ok(Self(key))
    }

    /// The account that the key is of.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::of(self.0.verifying_key())
    }

    /// Signs a text: `0x`, r, s and v.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let (signature, recovery) = self.0.sign_prehash_recoverable(&digest(text));
        let mut bytes = signature.to_bytes().to_vec();
        bytes.push(27 + recovery.to_byte());
        format!("0x{}", hex::encode(bytes))
    }
}

/// Who signed `text`. `signature` is as wallets give it, with or without `0x`; of the two forms that
/// every signature has, the one with the high s is refused.
///
/// # Errors
/// Where that is no signature. Who signed *another* text comes out as somebody: compare the address.
pub fn signer(text: &str, signature: &str) -> Result<Address, EthereumError> {
    let digits = signature.strip_prefix("0x").unwrap_or(signature);
    let mut bytes = [0; SIGNATURE_LEN];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| EthereumError::Signature)?;
    let [rs @ .., v] = &bytes;
    let recovery = match v {
        27 | 28 => RecoveryId::from_byte(v - 27).ok_or(EthereumError::Malleable)?,
        _ => return Err(EthereumError::Malleable),
    };
    let signature = Signature::from_slice(rs).map_err(|_| EthereumError::NoKey)?;
    if signature.normalize_s() != signature {
        return Err(EthereumError::Malleable);
    }
    VerifyingKey::recover_from_prehash(&digest(text), &signature, recovery)
        .map(|key| Address::of(&key))
        .map_err(|_| EthereumError::NoKey)
}

/// The owner that a kernel command line names: its one word `owner=ADDRESS`.
///
/// # Errors
/// Where there is none, more than one, or none that is an address.
pub fn owner_of_cmdline(cmdline: &str) -> Result<Address, String> {
    let mut words = cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("owner="));
    match (words.next(), words.next()) {
        (Some(owner), None) => owner.parse().map_err(|error| format!("owner=: {error}")),
        (None, _) => Err("the command line names no owner=".to_owned()),
        (Some(_), Some(_)) => Err("the command line names owner= twice".to_owned()),
    }
}

/// EIP-191, version 0x45.
fn digest(text: &str) -> [u8; 32] {
    let hash = Keccak256::new()
        .chain_update(format!("\x19Ethereum Signed Message:\n{}", text.len()))
        .chain_update(text);
    hash.finalize().into()
}
