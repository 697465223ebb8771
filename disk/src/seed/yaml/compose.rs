//! From tokens to nodes: the grammar, anchors, merge keys, and what the guest's reader can make.

use std::collections::HashMap;

use super::{
    cursor::{Fault, Scan},
    limits::{MAX_BYTES, MAX_DEPTH, MAX_NODES},
    node::Node,
    resolve::{Scalar, check_plain, check_tagged, resolve},
    scalars::{Directive, Tag},
    scanner::{Kind, Token},
};

/// The prefix of the tags that a reader of YAML 1.1 knows.
const KNOWN: &str = "tag:yaml.org,2002:";

/// What a node costs: nodes and bytes of text.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// A node, what it costs, and the tag that it was given or that its text has.
#[derive(Clone)]
struct Made {
    node: Node,
    cost: Cost,
    /// `<<` as a key merges.
    merge: bool,
}

/// The node of the one document in `tokens`, if there is any.
pub(super) fn document(tokens: Vec<Token>) -> Scan<Option<Node>> {
    let mut composer = Composer {
        tokens: tokens.into_iter().peekable(),
        handles: HashMap::new(),
        anchors: HashMap::new(),
        spent: Cost::default(),
        depth: 0,
        line: 1,
    };
    let root = composer.document()?;
    match root {
        Node::Scalar { text, plain: true } if resolve(&text) == Scalar::Null => Ok(None),
        root => Ok(Some(root)),
    }
}

struct Composer {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    handles: HashMap<String, String>,
    /// `None` while the node is being read.
    anchors: HashMap<String, Option<Made>>,
    spent: Cost,
    depth: usize,
    /// Of the last token that was taken.
    line: usize,
}

impl Composer {
    fn peek(&mut self) -> &Kind {
        self.tokens.peek().map_or(&Kind::End, |token| &token.kind)
    }

    fn next_is(&mut self, kinds: &[Kind]) -> bool {
        let next = self.peek().clone();
        kinds.contains(&next)
    }

    fn take(&mut self) -> Kind {
        match self.tokens.next() {
            Some(token) => {
                self.line = token.line;
                token.kind
            }
            None => Kind::End,
        }
    }

    fn take_if(&mut self, kind: &Kind) -> bool {
        let found = self.peek() == kind;
        if found {
            self.take();
        }
        found
    }

    fn fault<T>(&self, reason: impl Into<String>) -> Scan<T> {
        Err(Fault {
            line: self.line,
            reason: reason.into(),
        })
    }

    /// The next token is not what must come.
    fn unexpected<T>(&mut self, wanted: &str) -> Scan<T> {
        let line = self.tokens.peek().map_or(self.line, |token| token.line);
        let reason = format!("{wanted} was expected, and {} is there", name(self.peek()));
        Err(Fault { line, reason })
    }

    fn spend(&mut self, cost: Cost) -> Scan<()> {
        self.spent.add(cost);
        if self.spent.nodes > MAX_NODES || self.spent.bytes > MAX_BYTES {
            return self.fault("too much, with its aliases counted");
        }
        Ok(())
    }

    fn document(&mut self) -> Scan<Node> {
        let default = |(handle, prefix): (&str, &str)| (handle.to_owned(), prefix.to_owned());
        let defaults = [("!", "!"), ("!!", KNOWN)].map(default);
        let implicit = !matches!(
            self.peek(),
            Kind::Directive(_) | Kind::DocumentStart | Kind::End
        );
        let made = if implicit {
            self.handles.extend(defaults);
            self.node(true, false)?
        } else {
            while self.take_if(&Kind::DocumentEnd) {}
            if self.peek() == &Kind::End {
                return Ok(null().node);
            }
            self.directives()?;
            for (handle, prefix) in defaults {
                self.handles.entry(handle).or_insert(prefix);
            }
            if !self.take_if(&Kind::DocumentStart) {
                return self.unexpected("---");
            }
            match self.peek() {
                Kind::Directive(_) | Kind::DocumentStart | Kind::DocumentEnd | Kind::End => null(),
                _ => self.node(true, false)?,
            }
        };
        while self.take_if(&Kind::DocumentEnd) {}
        let made = self.value(made)?;
        match self.peek() {
            Kind::End => Ok(made.node),
            Kind::DocumentStart | Kind::Directive(_) => {
                self.take();
                self.fault("a second document begins")
            }
            _ => self.unexpected("the end"),
        }
    }

    fn directives(&mut self) -> Scan<()> {
        let mut versioned = false;
        while let Kind::Directive(_) = self.peek() {
            let Kind::Directive(directive) = self.take() else {
                break;
            };
            let reason = match directive {
                Directive::Version { major } => {
                    let again = std::mem::replace(&mut versioned, true);
                    (again || major.trim_start_matches('0') != "1")
                        .then_some("another version than 1, or two of them")
                }
                Directive::Tag { handle, prefix } => {
                    let before = self.handles.insert(handle, prefix);
                    before.map(|_| "two prefixes for one tag handle")
                }
                Directive::Other => None,
            };
            if let Some(reason) = reason {
                return self.fault(reason);
            }
        }
        Ok(())
    }

    fn node(&mut self, block: bool, indentless: bool) -> Scan<Made> {
        if let Kind::Alias(_) = self.peek() {
            let Kind::Alias(name) = self.take() else {
                return self.unexpected("an alias");
            };
            return self.alias(&name);
        }
        let (mut anchor, mut tag) = (None, None);
        loop {
            match self.peek() {
                Kind::Anchor(_) if anchor.is_none() => {
                    if let Kind::Anchor(name) = self.take() {
                        anchor = Some(name);
                    }
                }
                Kind::Tag(_) if tag.is_none() => {
                    if let Kind::Tag(found) = self.take() {
                        tag = Some(self.full_tag(found)?);
                    }
                }
                _ => break,
            }
        }
        if let Some(name) = &anchor {
            if self.anchors.contains_key(name) {
                return self.fault(format!("the anchor &{name} is there twice"));
            }
            self.anchors.insert(name.clone(), None);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fault(format!("nested deeper than {MAX_DEPTH}"));
        }
        let named = anchor.is_some() || tag.is_some();
        // The tag ! makes even a text in quotes be read like a plain one.
        let bare = tag.as_deref() == Some("!");
        let tag = tag.filter(|_| !bare);
        let mut made = match self.peek() {
            Kind::Entry if indentless => {
                let items =
                    self.block_entries(&[Kind::Entry, Kind::Key, Kind::Value, Kind::BlockEnd])?;
                self.sequence(items, tag.as_deref())?
            }
            Kind::Scalar { .. } => match self.take() {
                Kind::Scalar { text, plain } => {
                    let plain = tag.is_none() && (plain || bare);
                    self.scalar(text, plain, tag.as_deref())?
                }
                _ => return self.unexpected("a text"),
            },
            Kind::FlowSequenceStart => {
                let items = self.flow_sequence()?;
                self.sequence(items, tag.as_deref())?
            }
            Kind::FlowMappingStart => {
                let entries = self.flow_mapping()?;
                self.mapping(entries, tag.as_deref())?
            }
            Kind::SequenceStart if block => {
                self.take();
                let items = self.block_entries(&[Kind::Entry, Kind::BlockEnd])?;
                if !self.take_if(&Kind::BlockEnd) {
                    return self.unexpected("another list entry or the end of the list");
                }
                self.sequence(items, tag.as_deref())?
            }
            Kind::MappingStart if block => {
                let entries = self.block_mapping()?;
                self.mapping(entries, tag.as_deref())?
            }
            _ if named => self.scalar(String::new(), tag.is_none(), tag.as_deref())?,
            _ => return self.unexpected("a value"),
        };
        self.depth -= 1;
        if let Some(name) = anchor {
            // What an anchor keeps is a copy, so it is paid for.
            self.spend(made.cost)?;
            self.anchors.insert(name, Some(made.clone()));
        }
        made.cost.nodes = made.cost.nodes.max(1);
        Ok(made)
    }

    fn full_tag(&self, tag: Tag) -> Scan<String> {
        let Some(handle) = tag.handle else {
            return Ok(tag.suffix);
        };
        match self.handles.get(&handle) {
            Some(prefix) => Ok(format!("{prefix}{}", tag.suffix)),
            None => self.fault(format!("the tag handle {handle} is not defined")),
        }
    }

    fn alias(&mut self, name: &str) -> Scan<Made> {
        let cost = match self.anchors.get(name) {
            Some(Some(made)) => made.cost,
            Some(None) => return self.fault("an alias stands for what it is part of"),
            None => return self.fault(format!("the alias *{name} has no anchor before it")),
        };
        // Before the copy is made: this is where a small text could become a huge tree.
        self.spend(cost)?;
        match self.anchors.get(name) {
            Some(Some(made)) => Ok(made.clone()),
            _ => self.fault("an alias stands for what it is part of"),
        }
    }

    fn scalar(&mut self, text: String, plain: bool, tag: Option<&str>) -> Scan<Made> {
        let cost = Cost {
            nodes: 1,
            bytes: text.len(),
        };
        self.spend(cost)?;
        let kind = tag
            .map(known)
            .transpose()
            .or_else(|reason| self.fault(reason))?;
        // As a key these are more than texts; as values they are refused with their collection.
        let merge = kind == Some("merge") || plain && resolve(&text) == Scalar::Merge;
        let plain = plain || matches!(kind, Some("bool" | "int" | "float" | "null" | "timestamp"));
        if let Some(kind) = kind.filter(|&kind| kind != "merge") {
            check_tagged(kind, &text).or_else(|reason| self.fault(reason))?;
            let text = if kind == "null" { String::new() } else { text };
            // Checked here, by its tag: it is not to be checked again by its text.
            let plain = plain && check_plain(&text).is_ok();
            let node = Node::Scalar { text, plain };
            return Ok(Made { node, cost, merge });
        }
        let node = Node::Scalar { text, plain };
        Ok(Made { node, cost, merge })
    }

    /// Refuses a scalar that is no value, wherever a value is.
    fn value(&self, made: Made) -> Scan<Made> {
        match &made.node {
            Node::Scalar { text, .. } if made.merge => self.fault(format!(
                "{text:?} is a merge key, and stands where a value should; put it in quotes"
            )),
            Node::Scalar { text, plain: true } => match check_plain(text) {
                Ok(()) => Ok(made),
                Err(reason) => self.fault(reason),
            },
            _ => Ok(made),
        }
    }

    /// An entry that is not there.
    fn empty(&mut self) -> Scan<Made> {
        let made = null();
        self.spend(made.cost)?;
        Ok(made)
    }

    /// Entries of a block list; one of `ends` after its dash is an empty one.
    fn block_entries(&mut self, ends: &[Kind]) -> Scan<Vec<Made>> {
        let mut items = Vec::new();
        while self.take_if(&Kind::Entry) {
            let item = match self.next_is(ends) {
                true => self.empty()?,
                false => self.node(true, false)?,
            };
            items.push(self.value(item)?);
        }
        Ok(items)
    }

    fn block_mapping(&mut self) -> Scan<Vec<(Made, Made)>> {
        const ENDS: &[Kind] = &[Kind::Key, Kind::Value, Kind::BlockEnd];
        self.take();
        let mut entries = Vec::new();
        while self.take_if(&Kind::Key) {
            let key = match self.next_is(ENDS) {
                true => self.empty()?,
                false => self.node(true, true)?,
            };
            let value = match self.take_if(&Kind::Value) && !self.next_is(ENDS) {
                true => self.node(true, true)?,
                false => self.empty()?,
            };
            entries.push((key, self.value(value)?));
        }
        match self.take_if(&Kind::BlockEnd) {
            true => Ok(entries),
            false => self.unexpected("another key or the end of the mapping"),
        }
    }

    fn flow_sequence(&mut self) -> Scan<Vec<Made>> {
        const END: Kind = Kind::FlowSequenceEnd;
        self.take();
        let mut items = Vec::new();
        while !self.take_if(&END) {
            if !items.is_empty() && !self.take_if(&Kind::FlowEntry) {
                return self.unexpected("a comma or ]");
            }
            if self.take_if(&END) {
                break;
            }
            let item = if self.peek() == &Kind::Key {
                let entry = self.flow_pair(&END)?;
                self.mapping(vec![entry], None)?
            } else {
                self.node(false, false)?
            };
            items.push(self.value(item)?);
        }
        Ok(items)
    }

    fn flow_mapping(&mut self) -> Scan<Vec<(Made, Made)>> {
        const END: Kind = Kind::FlowMappingEnd;
        self.take();
        let mut entries = Vec::new();
        while !self.take_if(&END) {
            if !entries.is_empty() && !self.take_if(&Kind::FlowEntry) {
                return self.unexpected("a comma or }");
            }
            if self.take_if(&END) {
                break;
            }
            let entry = if self.peek() == &Kind::Key {
                self.flow_pair(&END)?
            } else {
                (self.node(false, false)?, self.empty()?)
            };
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Key and value within brackets or braces; a key token is next.
    fn flow_pair(&mut self, end: &Kind) -> Scan<(Made, Made)> {
        self.take();
        let over = |this: &mut Self| this.peek() == &Kind::FlowEntry || this.peek() == end;
        let key = match over(self) || self.peek() == &Kind::Value {
            true => self.empty()?,
            false => self.node(false, false)?,
        };
        let value = match self.take_if(&Kind::Value) && !over(self) {
            true => self.node(false, false)?,
            false => self.empty()?,
        };
        Ok((key, self.value(value)?))
    }

    fn sequence(&mut self, items: Vec<Made>, tag: Option<&str>) -> Scan<Made> {
        let mut cost = Cost { nodes: 1, bytes: 0 };
        self.spend(cost)?;
        items.iter().for_each(|item| cost.add(item.cost));
        let items: Vec<Node> = items.into_iter().map(|item| item.node).collect();
        match tag
            .map(known)
            .transpose()
            .or_else(|reason| self.fault(reason))?
        {
            None | Some("seq") => {}
            Some("omap" | "pairs") => {
                let pair = |item: &Node| matches!(item, Node::Mapping(e) if e.len() == 1);
                if !items.iter().all(pair) {
                    return self.fault("a list of pairs has something else in it");
                }
            }
            Some(kind) => return self.fault(format!("a list cannot be of type !!{kind}")),
        }
        let node = Node::Sequence(items);
        let merge = false;
        Ok(Made { node, cost, merge })
    }

    /// Puts merged entries in front: what the mapping says itself counts.
    fn mapping(&mut self, entries: Vec<(Made, Made)>, tag: Option<&str>) -> Scan<Made> {
        let mut cost = Cost { nodes: 1, bytes: 0 };
        self.spend(cost)?;
        let (mut merged, mut own) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            cost.add(key.cost);
            cost.add(value.cost);
            if key.merge {
                merged.extend(self.merged(value.node)?);
                continue;
            }
            let Node::Scalar { text, plain } = key.node else {
                return self.fault("a key is a list or a mapping");
            };
            // The key = is a text.
            if plain && text != "=" {
                check_plain(&text).or_else(|reason| self.fault(reason))?;
            }
            own.push((text, value.node));
        }
        merged.extend(own);
        let node = match tag
            .map(known)
            .transpose()
            .or_else(|reason| self.fault(reason))?
        {
            None | Some("map") => Node::Mapping(merged),
            // A set is no mapping to its reader.
            Some("set") => Node::Sequence(merged.into_iter().map(|(_, value)| value).collect()),
            Some(kind) => return self.fault(format!("a mapping cannot be of type !!{kind}")),
        };
        let merge = false;
        Ok(Made { node, cost, merge })
    }

    /// The entries of what `<<` names: of several mappings the first counts.
    fn merged(&self, value: Node) -> Scan<Vec<(String, Node)>> {
        match value {
            Node::Mapping(entries) => Ok(entries),
            Node::Sequence(items) => {
                let mut out = Vec::new();
                for item in items.into_iter().rev() {
                    match item {
                        Node::Mapping(entries) => out.extend(entries),
                        _ => return self.fault("<< merges something that is no mapping"),
                    }
                }
                Ok(out)
            }
            Node::Scalar { .. } => self.fault("<< merges something that is no mapping"),
        }
    }
}

/// The type that a tag names, where the guest's reader knows it.
fn known(tag: &str) -> Result<&str, String> {
    const KINDS: &[&str] = &[
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
        "python/unicode",
    ];
    match tag.strip_prefix(KNOWN) {
        Some(kind) if KINDS.contains(&kind) => Ok(kind),
        _ => Err(format!(
            "unknown tag {:?}",
            tag.chars().take(48).collect::<String>()
        )),
    }
}

fn null() -> Made {
    Made {
        node: Node::Scalar {
            text: String::new(),
            plain: true,
        },
        cost: Cost { nodes: 1, bytes: 0 },
        merge: false,
    }
}

/// A token in words.
fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directive(_) => "a directive",
        Kind::DocumentStart => "---",
        Kind::DocumentEnd => "...",
        Kind::SequenceStart | Kind::Entry => "a list entry",
        Kind::MappingStart | Kind::Key => "a key",
        Kind::BlockEnd => "the end of the list or mapping",
        Kind::FlowSequenceStart => "[",
        Kind::FlowSequenceEnd => "]",
        Kind::FlowMappingStart => "{",
        Kind::FlowMappingEnd => "}",
        Kind::FlowEntry => "a comma",
        Kind::Value => "a colon",
        Kind::Alias(_) => "an alias",
        Kind::Anchor(_) => "an anchor",
        Kind::Tag(_) => "a tag",
        Kind::Scalar { .. } => "a text",
        Kind::End => "the end",
    }
}
