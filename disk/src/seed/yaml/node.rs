//! What is kept of a document.

use super::resolve::{Scalar, resolve};

/// A YAML node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// Text; `plain` if it was not quoted and so may be a number, a boolean or null.
    Scalar { text: String, plain: bool },
    /// A list, or another of the types that a guest reads as one or as a set.
    Sequence(Vec<Node>),
    /// In the order of the document, merged entries first; the same key may come twice, and the
    /// last one counts.
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Mapping(entries) => entries.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A boolean of YAML 1.1 (<https://yaml.org/type/bool.html>).
    pub(crate) fn boolean(&self) -> Option<bool> {
        match self {
            Self::Scalar { text, plain: true } => match resolve(text) {
                Scalar::Bool(value) => Some(value),
                _ => None,
            },
            _ => None,
        }
    }
}
