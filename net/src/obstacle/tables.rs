//! Tables of others, as nft lists them.

use std::collections::HashMap;

use nftables::{expr::Expression, stmt::Statement};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

/// A table's family and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Table {
    pub(super) family: String,
    pub(super) name: String,
}

/// A chain that the kernel hands packets to.
#[derive(Debug, Clone)]
pub(super) struct BaseChain {
    pub(super) table: Table,
    pub(super) name: String,
    pub(super) hook: String,
    /// The interfaces of a chain at ingress.
    pub(super) devices: Vec<String>,
    pub(super) drops_by_policy: bool,
}

/// One part of a rule.
#[derive(Debug)]
pub(super) enum Part {
    /// One that the crate `nftables` has a type for.
    Known(Box<Statement<'static>>),
    /// A match or target of iptables, of which nft tells the name alone.
    Extension { target: bool, name: String },
    /// Anything else.
    Unknown,
}

/// All of others' tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    bases: Vec<BaseChain>,
    rules: HashMap<(Table, String), Vec<Vec<Part>>>,
    /// Elements of sets and maps.
    sets: HashMap<(Table, String), Vec<Expression<'static>>>,
}

/// As much of a chain as counts; the crate's own type has no chain with two devices.
#[derive(Deserialize)]
struct RawChain {
    family: String,
    table: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    hook: Option<String>,
    policy: Option<String>,
    dev: Option<Value>,
}

#[derive(Deserialize)]
struct RawRule {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

impl Tables {
    /// Reads a listing. Objects of a kind that is unknown are left out.
    pub(super) fn parse(listing: &[u8]) -> Result<Self, Error> {
        let mut tables = Self::default();
        for document in serde_json::Deserializer::from_slice(listing).into_iter::<Value>() {
            let document = document.map_err(|e| Error::Answer {
                what: "nft's listing of other tables",
                why: e.to_string().chars().take(300).collect(),
            })?;
            let objects = document.get("nftables").and_then(Value::as_array);
            for object in objects.into_iter().flatten() {
                tables.take(object);
            }
        }
        Ok(tables)
    }

    fn take(&mut self, object: &Value) {
        let Some((kind, value)) = object.as_object().and_then(|o| o.iter().next()) else {
            return;
        };
        match kind.as_str() {
            "chain" => self
                .bases
                .extend(RawChain::deserialize(value).ok().and_then(base)),
            "rule" => {
                if let Ok(raw) = RawRule::deserialize(value) {
                    let table = Table {
                        family: raw.family,
                        name: raw.table,
                    };
                    let parts = raw.expr.iter().map(part).collect();
                    self.rules
                        .entry((table, raw.chain))
                        .or_default()
                        .push(parts);
                }
            }
            "set" | "map" => self.elements(value),
            _ => {}
        }
    }

    /// Notes what a set or map holds, if all of it can be understood.
    fn elements(&mut self, value: &Value) {
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let table = Table {
            family: text("family").to_owned(),
            name: text("table").to_owned(),
        };
        let elements = value.get("elem").and_then(Value::as_array);
        let elements = elements.into_iter().flatten().map(Expression::deserialize);
        if let Ok(elements) = elements.collect() {
            self.sets.insert((table, text("name").to_owned()), elements);
        }
    }

    pub(super) fn base_chains(&self) -> &[BaseChain] {
        &self.bases
    }

    /// Rules of a chain, in order.
    pub(super) fn rules(&self, table: &Table, chain: &str) -> &[Vec<Part>] {
        let key = (table.clone(), chain.to_owned());
        self.rules.get(&key).map_or(&[], Vec::as_slice)
    }

    /// What a named set or map holds.
    pub(super) fn set(&self, table: &Table, name: &str) -> Option<&[Expression<'static>]> {
        let key = (table.clone(), name.to_owned());
        self.sets.get(&key).map(Vec::as_slice)
    }
}

fn base(raw: RawChain) -> Option<BaseChain> {
    // Chains of type nat only choose addresses.
    if raw.kind.as_deref() == Some("nat") {
        return None;
    }
    let devices = match raw.dev {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(|n| n.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    Some(BaseChain {
        table: Table {
            family: raw.family,
            name: raw.table,
        },
        name: raw.name,
        hook: raw.hook?,
        devices,
        drops_by_policy: raw.policy.as_deref() == Some("drop"),
    })
}

fn part(value: &Value) -> Part {
    if let Some(extension) = value.get("xt") {
        let text = |key| extension.get(key).and_then(Value::as_str);
        return Part::Extension {
            target: text("type") == Some("target"),
            name: text("name").unwrap_or_default().to_owned(),
        };
    }
    // The crate has no field for what is done with an element, such as a limit.
    if value
        .get("set")
        .is_some_and(|set| set.get("stmt").is_some())
    {
        return Part::Unknown;
    }
    match Statement::deserialize(value) {
        Ok(statement) => Part::Known(Box::new(statement)),
        Err(_) => Part::Unknown,
    }
}
