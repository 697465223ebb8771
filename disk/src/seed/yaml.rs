//! Reading a stranger's YAML within bounds, into the little that the seed must know of it.
//!
//! Scalars stay text, because what they mean is decided by cloud-init in the guest: it reads
//! YAML 1.1 (`yes` is true), the parser here 1.2. Whatever cloud-init's safe loader would not
//! load (other tags, several documents, compound keys) is refused.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most nodes, with every alias counted as what it stands for.
const MAX_NODES: usize = 20_000;
/// Most bytes of scalars, with every alias counted as what it stands for: 1 MiB.
const MAX_BYTES: usize = 1 << 20;

/// A YAML node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Text; `plain` if it was not quoted and so may be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In the order of the document; the same key may come twice, and the last one counts.
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Mapping(entries) => entries.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A boolean of YAML 1.1 (<https://yaml.org/type/bool.html>).
    pub(super) fn boolean(&self) -> Option<bool> {
        match self {
            Self::Scalar { text, plain: true } => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What a node costs: nodes and bytes of text.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
}

/// A collection that is being read.
struct Open {
    node: Node,
    /// The key that waits for its value.
    key: Option<String>,
    anchor: usize,
    cost: Cost,
}

/// Reads the one document in `text`; an empty one is `None`.
///
/// Time and memory are proportional to the text, up to the bounds above.
pub(super) fn parse(text: &str) -> Result<Option<Node>, String> {
    if let Some(c) = text.chars().find(|c| !printable(*c)) {
        return Err(format!(
            "YAML cannot have the character {}",
            c.escape_unicode()
        ));
    }
    // YAML 1.2 has become lenient about tabs, cloud-init's loader is not.
    let tab = |line: &str| line.starts_with('\t') && !line.trim().is_empty();
    if let Some(number) = text.lines().position(tab) {
        return Err(format!(
            "YAML, line {}: a tab where spaces are needed",
            number + 1
        ));
    }
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("YAML: {error}"))?;
        let line = span.start.line();
        reader
            .event(event)
            .map_err(|error| format!("YAML, line {line}: {error}"))?;
    }
    Ok(reader.root)
}

/// The characters of a YAML 1.1 stream (section 4.1), which cloud-init's loader insists on.
fn printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}'
        | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Cost)>,
    spent: Cost,
    documents: usize,
    root: Option<Node>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document begins".to_owned());
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref())?;
                let cost = Cost {
                    nodes: 1,
                    bytes: text.len(),
                };
                let plain = style == ScalarStyle::Plain && tag.is_none();
                self.spend(cost)?;
                self.close(
                    Node::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                    anchor,
                    cost,
                )?;
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref())?;
                self.open(Node::Sequence(Vec::new()), anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref())?;
                self.open(Node::Mapping(Vec::new()), anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open {
                    node, anchor, cost, ..
                }) = self.open.pop()
                {
                    self.close(node, anchor, cost)?;
                }
            }
            Event::Alias(anchor) => {
                let (_, cost) = self
                    .anchors
                    .get(&anchor)
                    .ok_or("an alias stands for what it is part of")?;
                let cost = *cost;
                // Before the copy is made: this is where a small text could become a huge tree.
                self.spend(cost)?;
                if let Some((node, _)) = self.anchors.get(&anchor) {
                    self.close(node.clone(), 0, cost)?;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn spend(&mut self, cost: Cost) -> Result<(), String> {
        self.spent.nodes = self.spent.nodes.saturating_add(cost.nodes);
        self.spent.bytes = self.spent.bytes.saturating_add(cost.bytes);
        if self.spent.nodes > MAX_NODES || self.spent.bytes > MAX_BYTES {
            return Err("too much, with its aliases counted".to_owned());
        }
        Ok(())
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        let cost = Cost { nodes: 1, bytes: 0 };
        self.spend(cost)?;
        self.open.push(Open {
            node,
            key: None,
            anchor,
            cost,
        });
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn close(&mut self, node: Node, anchor: usize, cost: Cost) -> Result<(), String> {
        if anchor != 0 {
            // What an anchor keeps is a copy, so it is paid for.
            self.spend(cost)?;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.cost.nodes = parent.cost.nodes.saturating_add(cost.nodes);
        parent.cost.bytes = parent.cost.bytes.saturating_add(cost.bytes);
        match (&mut parent.node, parent.key.take()) {
            (Node::Sequence(items), _) => items.push(node),
            (Node::Mapping(entries), Some(key)) => entries.push((key, node)),
            (Node::Mapping(_), None) => match node {
                Node::Scalar { text, .. } => parent.key = Some(text),
                _ => return Err("a key is a list or a mapping".to_owned()),
            },
            (Node::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

/// The tags of a safe loader; any other makes cloud-init drop the whole part.
fn check_tag(tag: Option<&Tag>) -> Result<(), String> {
    const KNOWN: &[&str] = &[
        "str",
        "int",
        "float",
        "bool",
        "null",
        "seq",
        "map",
        "binary",
        "timestamp",
        "omap",
        "set",
        "pairs",
        "merge",
        "value",
    ];
    match tag {
        None => Ok(()),
        Some(tag) if tag.handle == "tag:yaml.org,2002:" && KNOWN.contains(&tag.suffix.as_str()) => {
            Ok(())
        }
        Some(tag) => Err(format!(
            "unknown tag {:?}",
            format!("{}{}", tag.handle, tag.suffix)
                .chars()
                .take(48)
                .collect::<String>()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_counts() {
        let node = parse("#cloud-config\na: &x [1, 'two']\nb: {c: *x}\na: last\nyes: Off\n")
            .unwrap()
            .unwrap();
        assert_eq!(node.get("a").unwrap().text(), Some("last"));
        let Node::Sequence(items) = node.get("b").unwrap().get("c").unwrap() else {
            panic!()
        };
        assert_eq!(
            items[1],
            Node::Scalar {
                text: "two".to_owned(),
                plain: false
            }
        );
        assert_eq!(node.get("yes").unwrap().boolean(), Some(false));
        assert_eq!(parse("#cloud-config\n").unwrap(), None);
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let items = vec![format!("*a{}", n - 1); 9].join(", ");
            laughs += &format!("a{n}: &a{n} [{items}]\n");
        }
        let long = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(9000),
            vec!["*a"; 5000].join(",")
        );
        let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
        let deep_block: String = (0..300).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let wide = format!("a: [{}]", "1,".repeat(100_000));
        let start = std::time::Instant::now();
        for bomb in [&laughs, &long, &deep, &deep_block, &wide] {
            parse(bomb).unwrap_err();
        }
        assert!(start.elapsed().as_secs() < 5);
    }

    #[test]
    fn what_the_guest_would_not_load_is_refused() {
        for bad in [
            "a: [",
            "a: !ruby/object:X {}",
            "a: !!python/object/apply:os.system [id]",
            "? [a]\n: b",
            "a: 1\n---\nb: 2\n",
            "a: *unknown",
            "&a [*a]",
            "a: \u{1}",
            "a: \u{7f}",
            "a: \0",
            "\ta: 1",
            "a: b: c",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
