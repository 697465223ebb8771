//! Whose something is: the node's operator's, or a tenant's, known by a wallet's
//! address.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither of the two forms.
    #[error(
        "not an address: expected 0x and 40 hexadecimal digits (Ethereum), or the base58 of 32 \
         bytes (Solana)"
    )]
    Form,
    /// Upper and lower case are an Ethereum address's checksum, and it does not fit.
    #[error("a letter or digit of this Ethereum address is wrong: its checksum (EIP-55) differs")]
    Checksum,
}

/// A wallet's address in its canonical form: Ethereum's with the checksum of EIP-55,
/// Solana's as base58. Two addresses are the same wallet's exactly if they are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl Address {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of 20 bytes, the end of the hash of an Ethereum public key.
    #[must_use]
    pub fn ethereum(bytes: [u8; 20]) -> Self {
        let digits = hex::encode(bytes);
        let hash = Keccak256::digest(digits.as_bytes());
        // A letter is upper case where the hash's digit at its place is 8 or more.
        let nibble = |i: usize| match hash.get(i / 2) {
            Some(byte) if i.is_multiple_of(2) => byte >> 4,
            Some(byte) => byte & 15,
            None => 0,
        };
        let cased = digits.chars().enumerate().map(|(i, c)| match nibble(i) {
            8.. => c.to_ascii_uppercase(),
            _ => c,
        });
        Self("0x".chars().chain(cased).collect())
    }

    /// Of 32 bytes, an Ed25519 public key.
    #[must_use]
    pub fn solana(bytes: [u8; 32]) -> Self {
        Self(bs58::encode(bytes).into_string())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(digits) = text.strip_prefix("0x") {
            let mut bytes = [0; 20];
            hex::decode_to_slice(digits, &mut bytes).map_err(|_| AddressError::Form)?;
            let address = Self::ethereum(bytes);
            let has = |f: fn(&u8) -> bool| digits.as_bytes().iter().any(f);
            let cased = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
            return if cased && address.0 != text {
                Err(AddressError::Checksum)
            } else {
                Ok(address)
            };
        }
        // 32 bytes are at most 44 digits; decoding longer texts costs more than it tells.
        if text.len() > 44 {
            return Err(AddressError::Form);
        }
        let bytes = bs58::decode(text).into_vec();
        let bytes = bytes.map_err(|_| AddressError::Form)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| AddressError::Form)?;
        Ok(Self::solana(bytes))
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The operator as an owner, in text. No address has this form.
const OPERATOR: &str = "operator";

/// Whose a record is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Owner {
    /// The node's operator's.
    Operator,
    /// A tenant's.
    Tenant(Address),
}

impl Owner {
    /// `operator`, or the tenant's address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Operator => OPERATOR,
            Self::Tenant(address) => address.as_str(),
        }
    }
}

impl FromStr for Owner {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            OPERATOR => Ok(Self::Operator),
            address => address.parse().map(Self::Tenant),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.as_str().to_owned()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethereum_addresses_have_one_form() {
        // The examples of EIP-55.
        for canonical in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0x27b1fdb04752bbc536007a920d24acb045561c26",
        ] {
            let digits = &canonical[2..];
            for text in [
                canonical.to_owned(),
                format!("0x{}", digits.to_lowercase()),
                format!("0x{}", digits.to_uppercase()),
            ] {
                assert_eq!(text.parse::<Address>().unwrap().as_str(), canonical);
            }
        }
        let typo = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed";
        assert_eq!(typo.parse::<Address>(), Err(AddressError::Checksum));
    }

    #[test]
    fn solana_addresses_are_32_bytes() {
        for text in [
            "11111111111111111111111111111111",
            "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
            "So11111111111111111111111111111111111111112",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().as_str(), text);
        }
        let all = Address::solana([255; 32]);
        assert_eq!(all.as_str().parse::<Address>().unwrap(), all);
    }

    #[test]
    fn nothing_else_is_an_address() {
        for text in [
            "",
            "0x",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beae",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaedd",
            "0X5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaeg",
            " 0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "1111111111111111111111111111111",
            "111111111111111111111111111111111",
            "So1111111111111111111111111111111111111111O",
            "operator",
            &"1".repeat(10_000),
        ] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Form), "{text:?}");
        }
    }

    #[test]
    fn owners_are_read_as_they_are_written() {
        let wallet = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        for owner in [Owner::Operator, Owner::Tenant(wallet.parse().unwrap())] {
            let text = serde_json::to_string(&owner).unwrap();
            assert_eq!(text, format!("\"{owner}\""));
            assert_eq!(serde_json::from_str::<Owner>(&text).unwrap(), owner);
        }
        assert!(serde_json::from_str::<Owner>("\"Operator\"").is_err());
    }
}
