//! Chains of disk layers: which files, in which order, make up one disk.
//!
//! Pure: a chain is resolved from records and refused when the records form none. Every layer
//! costs each read of the guest a look-up, and QEMU a node, so depth is limited.

use std::{collections::HashSet, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{format::Format, units::ByteSize};

/// Most layers of one chain, the base counted.
pub const MAX_CHAIN_DEPTH: usize = 8;

/// Name of a layer: 1 to 128 of letters, digits, `.`, `_`, `:` and `-`, not starting with `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerName(String);

/// A name that no layer can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no layer name: 1 to 128 of A-Z a-z 0-9 . _ : - and no leading dot")]
pub struct LayerNameError(String);

impl LayerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayerName {
    type Err = LayerNameError;

    fn from_str(text: &str) -> Result<Self, LayerNameError> {
        let fits = (1..=128).contains(&text.len())
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
        if fits {
            Ok(LayerName(text.to_owned()))
        } else {
            Err(LayerNameError(text.chars().take(160).collect()))
        }
    }
}

impl TryFrom<String> for LayerName {
    type Error = LayerNameError;

    fn try_from(text: String) -> Result<Self, LayerNameError> {
        text.parse()
    }
}

impl From<LayerName> for String {
    fn from(name: LayerName) -> String {
        name.0
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The record of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name.
    pub name: LayerName,
    /// The layer below; `None` for a base.
    pub parent: Option<LayerName>,
    /// Its file.
    pub path: PathBuf,
    /// Its format. Only a base can be raw.
    pub format: Format,
    /// The size that it shows, never less than its parent's.
    pub virtual_size: ByteSize,
}

/// Why records form no chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A layer has no record.
    #[error("layer {missing} does not exist{}", .child.as_ref().map(|c| format!(", but {c} builds on it")).unwrap_or_default())]
    Missing {
        /// The layer without a record.
        missing: LayerName,
        /// The layer that names it as its parent.
        child: Option<LayerName>,
    },
    /// A layer is its own ancestor.
    #[error("layer {at} is its own ancestor")]
    Cycle {
        /// The first layer met twice.
        at: LayerName,
    },
    /// More layers than allowed.
    #[error("the chain of layer {top} is deeper than {limit} layers; flatten it")]
    TooDeep {
        /// The layer asked for.
        top: LayerName,
        /// The limit.
        limit: usize,
    },
    /// A raw file cannot build on another.
    #[error("layer {name} is raw and cannot build on another layer")]
    RawChild {
        /// The layer.
        name: LayerName,
    },
    /// A layer hides the end of the one below.
    #[error("layer {name} shows {size}, less than the {parent} of the layer below")]
    Shrinks {
        /// The layer.
        name: LayerName,
        /// Its size.
        size: ByteSize,
        /// Its parent's size.
        parent: ByteSize,
    },
}

/// Layers in order, base first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    layers: Vec<Layer>,
}

impl Chain {
    /// Follows parents from `top` down to a base, asking `record` for each layer, at most
    /// `limit` (never more than [`MAX_CHAIN_DEPTH`]) of them.
    ///
    /// # Errors
    /// [`ChainError`], naming the layer.
    pub fn resolve(
        top: &LayerName,
        mut record: impl FnMut(&LayerName) -> Option<Layer>,
        limit: usize,
    ) -> Result<Chain, ChainError> {
        let limit = limit.min(MAX_CHAIN_DEPTH);
        let mut layers: Vec<Layer> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(top.clone());
        while let Some(name) = next {
            if !seen.insert(name.clone()) {
                return Err(ChainError::Cycle { at: name });
            }
            if layers.len() >= limit {
                return Err(ChainError::TooDeep {
                    top: top.clone(),
                    limit,
                });
            }
            let child = layers.last();
            let Some(layer) = record(&name) else {
                let child = child.map(|c| c.name.clone());
                return Err(ChainError::Missing {
                    missing: name,
                    child,
                });
            };
            if layer.format == Format::Raw && layer.parent.is_some() {
                return Err(ChainError::RawChild { name });
            }
            if let Some(child) = child.filter(|c| c.virtual_size < layer.virtual_size) {
                return Err(ChainError::Shrinks {
                    name: child.name.clone(),
                    size: child.virtual_size,
                    parent: layer.virtual_size,
                });
            }
            next = layer.parent.clone();
            layers.push(layer);
        }
        layers.reverse();
        Ok(Chain { layers })
    }

    /// The layers, base first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// How many layers there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The lowest layer.
    #[must_use]
    pub fn base(&self) -> Option<&Layer> {
        self.layers.first()
    }

    /// The layer that was asked for: the one a new overlay builds on.
    #[must_use]
    pub fn top(&self) -> Option<&Layer> {
        self.layers.last()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn name(i: usize) -> LayerName {
        format!("l{i}").parse().unwrap()
    }

    fn layer(i: usize, parent: Option<usize>) -> Layer {
        Layer {
            name: name(i),
            parent: parent.map(name),
            path: format!("/layers/{i}.qcow2").into(),
            format: Format::Qcow2,
            virtual_size: ByteSize::from_gib(10),
        }
    }

    fn resolve(layers: &[Layer], top: usize) -> Result<Vec<String>, ChainError> {
        let records: HashMap<_, _> = layers.iter().map(|l| (l.name.clone(), l.clone())).collect();
        Chain::resolve(&name(top), |n| records.get(n).cloned(), MAX_CHAIN_DEPTH)
            .map(|c| c.layers().iter().map(|l| l.name.to_string()).collect())
    }

    #[test]
    fn chains_and_what_is_none() {
        let two = [layer(0, None), layer(1, Some(0))];
        assert_eq!(resolve(&two, 1).unwrap(), ["l0", "l1"]);
        assert_eq!(resolve(&two, 0).unwrap(), ["l0"]);
        assert_eq!(
            resolve(&[], 0),
            Err(ChainError::Missing {
                missing: name(0),
                child: None
            })
        );
        assert_eq!(
            resolve(&[layer(1, Some(0))], 1),
            Err(ChainError::Missing {
                missing: name(0),
                child: Some(name(1))
            })
        );
        assert_eq!(
            resolve(&[layer(0, Some(0))], 0),
            Err(ChainError::Cycle { at: name(0) })
        );
        let ring = [layer(0, Some(2)), layer(1, Some(0)), layer(2, Some(1))];
        assert_eq!(resolve(&ring, 1), Err(ChainError::Cycle { at: name(1) }));
        let raw = Layer {
            format: Format::Raw,
            ..layer(1, Some(0))
        };
        assert_eq!(
            resolve(&[layer(0, None), raw], 1),
            Err(ChainError::RawChild { name: name(1) })
        );
        let small = Layer {
            virtual_size: ByteSize::from_gib(9),
            ..layer(1, Some(0))
        };
        assert!(matches!(
            resolve(&[layer(0, None), small], 1),
            Err(ChainError::Shrinks { .. })
        ));
        let raw_base = Layer {
            format: Format::Raw,
            ..layer(0, None)
        };
        assert_eq!(resolve(&[raw_base, layer(1, Some(0))], 1).unwrap().len(), 2);
    }

    #[test]
    fn names() {
        for good in ["a", "debian:12", "sha256-0.1_b"] {
            good.parse::<LayerName>().unwrap();
        }
        for bad in ["", ".hidden", "a/b", "a b", "é", &"x".repeat(129)] {
            assert!(bad.parse::<LayerName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_records_end_in_an_answer(
            parents in proptest::collection::vec(proptest::option::of(0_usize..12), 1..12),
            top in 0_usize..12,
        ) {
            let layers: Vec<_> = parents.iter().enumerate().map(|(i, p)| layer(i, *p)).collect();
            match resolve(&layers, top) {
                Ok(chain) => {
                    prop_assert!(chain.len() <= MAX_CHAIN_DEPTH);
                    prop_assert_eq!(chain.last().cloned(), Some(name(top).to_string()));
                    let base: usize = chain[0][1..].parse().unwrap();
                    prop_assert_eq!(parents[base], None);
                }
                Err(ChainError::TooDeep { .. }) => prop_assert!(parents.len() >= MAX_CHAIN_DEPTH),
                Err(_) => (),
            }
        }
    }
}
