//! Containers of named values (JSON, CBOR, MessagePack) as one tree.

use std::fmt;

use ciborium::Value as Cbor;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Nothing, a truth value, or a number that is no byte, length or bit field.
    Other,
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    /// No key comes twice: readers differ in which of the two they take.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A value of an object.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Bytes, as such or as a list of numbers.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes.clone()),
            Self::List(items) => items
                .iter()
                .map(|item| u8::try_from(item.number()?).ok())
                .collect(),
            _ => None,
        }
    }
}

/// Reads JSON.
pub(super) fn json(text: &str) -> Result<Node, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Reads CBOR, of which nothing may be left over.
pub(super) fn cbor(mut bytes: &[u8]) -> Result<Node, String> {
    const DEPTH: usize = 32;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, DEPTH);
    let value: Cbor = value.map_err(|error: ciborium::de::Error<_>| error.to_string())?;
    if !bytes.is_empty() {
        return Err(format!("{} bytes after its end", bytes.len()));
    }
    of_cbor(value)
}

/// Reads MessagePack, of which nothing may be left over.
pub(super) fn message_pack(bytes: &[u8]) -> Result<Node, String> {
    const DEPTH: usize = 32;
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(DEPTH);
    let value = Node::deserialize(&mut reader).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes after its end", rest.len()));
    }
    Ok(value)
}

fn of_cbor(value: Cbor) -> Result<Node, String> {
    Ok(match value {
        Cbor::Integer(number) => u64::try_from(number).map_or(Node::Other, Node::Number),
        Cbor::Bytes(bytes) => Node::Bytes(bytes),
        Cbor::Text(text) => Node::Text(text),
        Cbor::Tag(_, inner) => of_cbor(*inner)?,
        Cbor::Array(items) => Node::List(items.into_iter().map(of_cbor).collect::<Result<_, _>>()?),
        Cbor::Map(entries) => {
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let key = match key {
                    Cbor::Text(text) => text,
                    Cbor::Integer(number) => i128::from(number).to_string(),
                    Cbor::Bytes(bytes) => hex::encode(bytes),
                    other => return Err(format!("a key that is no name: {other:?}")),
                };
                insert(&mut map, key, of_cbor(value)?)?;
            }
            Node::Map(map)
        }
        _ => Node::Other,
    })
}

fn insert(map: &mut Vec<(String, Node)>, key: String, value: Node) -> Result<(), String> {
    if map.iter().any(|(name, _)| *name == key) {
        return Err(format!("{key:?} is there twice"));
    }
    map.push((key, value));
    Ok(())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(u64::try_from(value).map_or(Node::Other, Node::Number))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Node, E> {
        Ok(Node::Bytes(value.to_owned()))
    }

    fn visit_byte_buf<E>(self, value: Vec<u8>) -> Result<Node, E> {
        Ok(Node::Bytes(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Node>()? {
            insert(&mut entries, key, value).map_err(de::Error::custom)?;
        }
        Ok(Node::Map(entries))
    }
}
