//! Content digests, and hashing in bounded memory.

use std::{fmt, fs::File, io, os::unix::fs::FileExt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// A SHA-256 digest: the name of an image in the store.
///
/// Displays as `sha256:` and 64 lower-case hexadecimal digits; parses that, or the digits alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

/// A digest of one of the kinds that image publishers use.
///
/// Displays as `sha256:…` or `sha512:…`; parses that, or the digits alone, whose number tells the kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// SHA-256 (FIPS 180-4).
    Sha256([u8; 32]),
    /// SHA-512 (FIPS 180-4).
    Sha512([u8; 64]),
}

/// Text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no digest: expected sha256: and 64 or sha512: and 128 hexadecimal digits")]
pub struct DigestError {
    text: String,
}

impl DigestError {
    fn new(text: &str) -> Self {
        DigestError {
            text: text.chars().take(160).collect(),
        }
    }
}

impl Sha256 {
    /// The 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads 64 hexadecimal digits of either case.
    ///
    /// # Errors
    /// Text that is not 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        decode(text)
            .map(Sha256)
            .ok_or_else(|| DigestError::new(text))
    }

    /// The digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Sha256(sha2::Sha256::digest(bytes).into())
    }
}

impl Digest {
    /// Reads bare hexadecimal digits; their number tells the kind.
    ///
    /// # Errors
    /// Text that is neither 64 nor 128 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        match text.len() {
            64 => decode(text).map(Digest::Sha256),
            128 => decode(text).map(Digest::Sha512),
            _ => None,
        }
        .ok_or_else(|| DigestError::new(text))
    }

    /// The lower-case hexadecimal digits, without the kind.
    #[must_use]
    pub fn hex(&self) -> String {
        match self {
            Digest::Sha256(d) => hex::encode(d),
            Digest::Sha512(d) => hex::encode(d),
        }
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

impl From<Sha256> for Digest {
    fn from(digest: Sha256) -> Self {
        Digest::Sha256(digest.0)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Digest::Sha256(_) => "sha256",
            Digest::Sha512(_) => "sha512",
        };
        write!(f, "{kind}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::from_hex(text.strip_prefix("sha256:").unwrap_or(text))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        if let Some(hex) = text.strip_prefix("sha256:") {
            decode(hex).map(Digest::Sha256)
        } else if let Some(hex) = text.strip_prefix("sha512:") {
            decode(hex).map(Digest::Sha512)
        } else {
            return Self::from_hex(text);
        }
        .ok_or_else(|| DigestError::new(text))
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

serde_as_text!(Sha256);
serde_as_text!(Digest);

/// The digests of one content: SHA-256 always, SHA-512 where it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) sha256: Sha256,
    pub(crate) sha512: Option<[u8; 64]>,
}

impl Digests {
    /// The digest of the same kind as `expected`, if it differs from it.
    pub(crate) fn mismatch(&self, expected: &Digest) -> Option<Digest> {
        let found = match expected {
            Digest::Sha256(_) => self.sha256.into(),
            Digest::Sha512(_) => Digest::Sha512(self.sha512.unwrap_or([0; 64])),
        };
        (found != *expected).then_some(found)
    }
}

/// Hashes a content that arrives in order.
#[derive(Clone)]
pub(crate) struct Hasher {
    sha256: sha2::Sha256,
    sha512: Option<sha2::Sha512>,
}

impl Hasher {
    /// A hasher that can answer whether the content has the digest `expected`.
    pub(crate) fn for_expected(expected: Option<&Digest>) -> Self {
        let sha512 = matches!(expected, Some(Digest::Sha512(_))).then(sha2::Sha512::new);
        Hasher {
            sha256: sha2::Sha256::new(),
            sha512,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    pub(crate) fn finish(self) -> Digests {
        Digests {
            sha256: Sha256(self.sha256.finalize().into()),
            sha512: self.sha512.map(|h| h.finalize().into()),
        }
    }
}

/// Block size of sequential reads.
pub(crate) const BLOCK: usize = 256 << 10;

/// Hashes `file` from `from` to `to`, calling `progress` with the position after each block.
/// Fails with `UnexpectedEof` where the file is shorter.
pub(crate) fn hash_range(
    hasher: &mut Hasher,
    file: &File,
    from: u64,
    to: u64,
    mut progress: impl FnMut(u64),
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(BLOCK).min(BLOCK);
        let block = block.get_mut(..want).unwrap_or_default();
        file.read_exact_at(block, at)?;
        hasher.update(block);
        at += want as u64;
        progress(at);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn known_answers() {
        assert_eq!(Sha256::of(b"abc").hex(), ABC);
        let expected = Digest::Sha512([0; 64]);
        let mut hasher = Hasher::for_expected(Some(&expected));
        hasher.update(b"a");
        hasher.update(b"bc");
        let digests = hasher.finish();
        assert_eq!(digests.sha256.hex(), ABC);
        let found = digests.mismatch(&expected).unwrap();
        assert!(
            found
                .to_string()
                .starts_with("sha512:ddaf35a193617abacc417349ae204131")
        );
        assert_eq!(digests.mismatch(&found), None);
        assert_eq!(digests.mismatch(&digests.sha256.into()), None);
    }

    #[test]
    fn parses_only_whole_digests() {
        assert_eq!(
            format!("sha256:{ABC}").parse::<Digest>().unwrap().hex(),
            ABC
        );
        assert_eq!(ABC.parse::<Sha256>().unwrap(), Sha256::of(b"abc"));
        assert_eq!(
            ABC.to_uppercase().parse::<Sha256>().unwrap(),
            Sha256::of(b"abc")
        );
        // As publishers list them.
        assert_eq!(ABC.parse::<Digest>(), Ok(Digest::from(Sha256::of(b"abc"))));
        for bad in [
            "",
            "sha256:",
            &ABC[1..],
            &format!("sha256:{}", &ABC[1..]),
            &format!("sha256:{ABC}0"),
            &format!("sha512:{ABC}"),
            &format!("md5:{ABC}"),
            &format!("sha256: {ABC}"),
            &format!("sha256:{}é", &ABC[2..]),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_json_round_trip(a: [u8; 32], b in proptest::array::uniform32(0_u8..)) {
            let mut wide = [0; 64];
            wide[..32].copy_from_slice(&a);
            wide[32..].copy_from_slice(&b);
            for digest in [Digest::Sha256(a), Digest::Sha512(wide)] {
                prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
                prop_assert_eq!(Digest::from_hex(&digest.hex()).unwrap(), digest);
                let json = serde_json::to_string(&digest).unwrap();
                prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
            }
        }

        #[test]
        fn hashing_a_file_in_blocks_is_hashing_it(len in 0_usize..(3 * BLOCK), cut in 0_usize..BLOCK) {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let mut hasher = Hasher::for_expected(None);
            let cut = cut.min(len) as u64;
            hash_range(&mut hasher, &file, 0, cut, |_| ()).unwrap();
            hash_range(&mut hasher, &file, cut, len as u64, |_| ()).unwrap();
            prop_assert_eq!(hasher.finish().sha256, Sha256::of(&bytes));
        }
    }
}
