//! Secrets on their way from an owner to a guest.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, MapAccess};
use zeroize::Zeroizing;

/// Most secrets in one message.
const MAX_SECRETS: usize = 16;
/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 64 << 10;

/// Secrets by their names: 1 to 16, names of `[A-Za-z0-9_-]`, so that each can be a
/// file's. Values are wiped when dropped and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secrets(BTreeMap<String, Zeroizing<Vec<u8>>>);

/// Why secrets were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// None at all.
    #[error("no secret is given")]
    None,
    /// Too many.
    #[error("more than {MAX_SECRETS} secrets")]
    TooMany,
    /// A name that is none.
    #[error("a secret's name is 1 to {MAX_NAME} letters, digits, _ and -")]
    Name,
    /// A name twice.
    #[error("two secrets are named {0}")]
    Twice(String),
    /// Too long.
    #[error("the secret {0} is longer than {MAX_VALUE} bytes")]
    TooLong(String),
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Adds a secret.
    ///
    /// # Errors
    /// Beyond the limits, and for a name that is there already.
    pub fn insert(&mut self, name: String, value: Zeroizing<Vec<u8>>) -> Result<(), SecretsError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            return Err(SecretsError::Name);
        }
        if value.len() > MAX_VALUE {
            return Err(SecretsError::TooLong(name));
        }
        if self.0.contains_key(&name) {
            return Err(SecretsError::Twice(name));
        }
        if self.0.len() >= MAX_SECRETS {
            return Err(SecretsError::TooMany);
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// One secret.
    ///
    /// # Errors
    /// Beyond the limits.
    pub fn one(name: &str, value: Zeroizing<Vec<u8>>) -> Result<Self, SecretsError> {
        let mut secrets = Self::default();
        secrets.insert(name.to_owned(), value)?;
        Ok(secrets)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A secret's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|value| value.as_slice())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compact JSON with sorted names, over which version 1's owners sign; `None` where a value is
    /// not UTF-8.
    pub(super) fn to_json(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut texts = BTreeMap::new();
        for (name, value) in self.iter() {
            texts.insert(name, std::str::from_utf8(value).ok()?);
        }
        // Room for the longest form, so that growing leaves no copies behind.
        let room: usize = self.iter().map(|(n, v)| n.len() + 6 * v.len() + 8).sum();
        let mut json = Zeroizing::new(Vec::with_capacity(room + 2));
        serde_json::to_writer(&mut *json, &texts).ok()?;
        Some(json)
    }
}

/// How a value is written in a message.
pub(super) trait Encoding {
    /// The value; `None` for a text that is none.
    fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>>;
}

/// Secrets as a JSON object. A name twice is refused: two readers could take different ones.
pub(super) struct Wire<E>(Secrets, PhantomData<E>);

impl<E> Wire<E> {
    pub(super) fn into_secrets(self) -> Secrets {
        self.0
    }
}

impl<'de, E: Encoding> Deserialize<'de> for Wire<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<E>(PhantomData<E>);

        impl<'de, E: Encoding> de::Visitor<'de> for Visitor<E> {
            type Value = Wire<E>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("secrets by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<E>, A::Error> {
                let mut secrets = Secrets::default();
                while let Some(name) = map.next_key::<String>()? {
                    let text = Zeroizing::new(map.next_value::<String>()?);
                    let value = E::decode(&text)
                        .ok_or_else(|| de::Error::custom("a secret is not Base64"))?;
                    secrets.insert(name, value).map_err(de::Error::custom)?;
                }
                if secrets.is_empty() {
                    return Err(de::Error::custom(SecretsError::None));
                }
                Ok(Wire(secrets, PhantomData))
            }
        }

        deserializer.deserialize_map(Visitor(PhantomData))
    }
}
