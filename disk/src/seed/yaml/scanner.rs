//! From text to tokens, by the rules of the guest's reader.

use super::{
    cursor::{Cursor, END, Fault, Scan, blank, breaks},
    limits::MAX_DEPTH,
    scalars::{self, Directive, Tag},
};

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directive(Directive),
    DocumentStart,
    DocumentEnd,
    SequenceStart,
    MappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    Entry,
    FlowEntry,
    Key,
    Value,
    Alias(String),
    Anchor(String),
    Tag(Tag),
    Scalar { text: String, plain: bool },
    End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// From 1.
    pub(super) line: usize,
}

/// All tokens of a text; the last one is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Scan<Vec<Token>> {
    let mut scanner = Scanner {
        cursor: Cursor::new(text),
        tokens: Vec::new(),
        indent: -1,
        indents: Vec::new(),
        key_allowed: true,
        // One for the block, and one for each flow collection that is open.
        keys: vec![None],
    };
    if scanner.cursor.peek(0) == '\u{feff}' {
        scanner.cursor.forward(1);
    }
    while !scanner.next()? {}
    Ok(scanner.tokens)
}

/// The beginning of what may turn out to be a key, when a colon follows on the same line.
struct PossibleKey {
    /// Where its token would be.
    token: usize,
    at: usize,
    line: usize,
    column: usize,
    /// Nothing but a key can be at this column.
    required: bool,
}

/// Longest key without `?`, in characters.
const MAX_KEY: usize = 1024;

struct Scanner {
    cursor: Cursor,
    tokens: Vec<Token>,
    /// Column of the block collection that is open; -1 without one.
    indent: isize,
    indents: Vec<isize>,
    key_allowed: bool,
    keys: Vec<Option<PossibleKey>>,
}

impl Scanner {
    fn flow(&self) -> bool {
        self.keys.len() > 1
    }

    fn column(&self) -> isize {
        isize::try_from(self.cursor.column).unwrap_or(isize::MAX)
    }

    fn push(&mut self, kind: Kind) {
        let line = self.cursor.line + 1;
        self.tokens.push(Token { kind, line });
    }

    fn fault(&self, reason: impl Into<String>) -> Fault {
        self.cursor.fault(reason)
    }

    /// Scans one token; `true` after the last.
    fn next(&mut self) -> Scan<bool> {
        self.skip_blanks();
        self.drop_stale_keys()?;
        self.close_blocks(self.column());
        let cursor = &self.cursor;
        let (c, next) = (cursor.peek(0), cursor.peek(1));
        let flow = self.flow();
        match c {
            END => {
                self.close_blocks(-1);
                self.drop_key()?;
                self.push(Kind::End);
                return Ok(true);
            }
            '%' if cursor.column == 0 => {
                self.leave_document()?;
                let directive = scalars::directive(&mut self.cursor)?;
                self.push(Kind::Directive(directive));
            }
            '-' if cursor.document_mark("---") => {
                self.leave_document()?;
                self.push(Kind::DocumentStart);
                self.cursor.forward(3);
            }
            '.' if cursor.document_mark("...") => {
                self.leave_document()?;
                self.push(Kind::DocumentEnd);
                self.cursor.forward(3);
            }
            '[' => self.open_flow(Kind::FlowSequenceStart)?,
            '{' => self.open_flow(Kind::FlowMappingStart)?,
            ']' => self.close_flow(Kind::FlowSequenceEnd)?,
            '}' => self.close_flow(Kind::FlowMappingEnd)?,
            ',' => self.indicator(Kind::FlowEntry, true)?,
            '-' if blank(next) => {
                self.begin_block(Kind::SequenceStart, "a list entry cannot begin here")?;
                self.indicator(Kind::Entry, true)?;
            }
            '?' if flow || blank(next) => {
                self.begin_block(Kind::MappingStart, "a key cannot begin here")?;
                self.indicator(Kind::Key, !flow)?;
            }
            ':' if flow || blank(next) => self.value()?,
            '*' => {
                self.possible_key()?;
                let name = scalars::anchor(&mut self.cursor)?;
                self.push(Kind::Alias(name));
            }
            '&' => {
                self.possible_key()?;
                let name = scalars::anchor(&mut self.cursor)?;
                self.push(Kind::Anchor(name));
            }
            '!' => {
                self.possible_key()?;
                let tag = scalars::tag(&mut self.cursor)?;
                self.push(Kind::Tag(tag));
            }
            '|' | '>' if !flow => {
                self.key_allowed = true;
                self.drop_key()?;
                let line = self.cursor.line + 1;
                let text = scalars::block(&mut self.cursor, self.indent)?;
                self.scalar(text, false, line);
            }
            '\'' | '"' => {
                self.possible_key()?;
                let line = self.cursor.line + 1;
                let text = scalars::quoted(&mut self.cursor)?;
                self.scalar(text, false, line);
            }
            _ if begins_plain(c, next, flow) => {
                self.possible_key()?;
                let line = self.cursor.line + 1;
                let (text, line_ended) = scalars::plain(&mut self.cursor, self.indent + 1, flow);
                self.key_allowed = line_ended;
                self.scalar(text, true, line);
            }
            '\t' => {
                return Err(self.fault("a tab where only spaces may be; write spaces"));
            }
            '@' | '`' | '%' => {
                return Err(self.fault(format!("a text cannot begin with {c}; put it in quotes")));
            }
            c => return Err(self.fault(format!("{c:?} cannot be here"))),
        }
        Ok(false)
    }

    fn scalar(&mut self, text: String, plain: bool, line: usize) {
        let kind = Kind::Scalar { text, plain };
        self.tokens.push(Token { kind, line });
    }

    /// Spaces, comments and line breaks. Not tabs: a reader of YAML 1.1 need not take them, and
    /// the guest's does not.
    fn skip_blanks(&mut self) {
        loop {
            self.cursor.skip_spaces();
            if self.cursor.peek(0) == '#' {
                self.cursor.take_while(|c| !breaks(c));
            }
            if self.cursor.line_break().is_none() {
                return;
            }
            if !self.flow() {
                self.key_allowed = true;
            }
        }
    }

    fn drop_stale_keys(&mut self) -> Scan<()> {
        let (line, at) = (self.cursor.line, self.cursor.at);
        for slot in &mut self.keys {
            if let Some(key) = slot
                && (key.line != line || at - key.at > MAX_KEY)
            {
                if key.required {
                    return Err(not_a_key(key));
                }
                *slot = None;
            }
        }
        Ok(())
    }

    /// What comes next may be a key.
    fn possible_key(&mut self) -> Scan<()> {
        if self.key_allowed {
            self.drop_key()?;
            let key = PossibleKey {
                token: self.tokens.len(),
                at: self.cursor.at,
                line: self.cursor.line,
                column: self.cursor.column,
                required: !self.flow() && self.indent == self.column(),
            };
            if let Some(slot) = self.keys.last_mut() {
                *slot = Some(key);
            }
        }
        self.key_allowed = false;
        Ok(())
    }

    /// What was a possible key is none.
    fn drop_key(&mut self) -> Scan<()> {
        match self.keys.last_mut().and_then(Option::take) {
            Some(key) if key.required => Err(not_a_key(&key)),
            _ => Ok(()),
        }
    }

    fn close_blocks(&mut self, column: isize) {
        if self.flow() {
            return;
        }
        while self.indent > column {
            self.indent = self.indents.pop().unwrap_or(-1);
            self.push(Kind::BlockEnd);
        }
    }

    fn deepen(&mut self, column: isize) -> bool {
        let deeper = self.indent < column;
        if deeper {
            self.indents.push(self.indent);
            self.indent = column;
        }
        deeper
    }

    /// The beginning of a block collection, if its first entry is here.
    fn begin_block(&mut self, kind: Kind, otherwise: &str) -> Scan<()> {
        if self.flow() {
            return Ok(());
        }
        if !self.key_allowed {
            return Err(self.fault(otherwise));
        }
        if self.deepen(self.column()) {
            self.push(kind);
        }
        Ok(())
    }

    fn leave_document(&mut self) -> Scan<()> {
        self.close_blocks(-1);
        self.drop_key()?;
        self.key_allowed = false;
        Ok(())
    }

    fn indicator(&mut self, kind: Kind, key_allowed: bool) -> Scan<()> {
        self.key_allowed = key_allowed;
        self.drop_key()?;
        self.push(kind);
        self.cursor.forward(1);
        Ok(())
    }

    fn open_flow(&mut self, kind: Kind) -> Scan<()> {
        self.possible_key()?;
        if self.keys.len() > MAX_DEPTH {
            return Err(self.fault(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.keys.push(None);
        self.key_allowed = true;
        self.push(kind);
        self.cursor.forward(1);
        Ok(())
    }

    fn close_flow(&mut self, kind: Kind) -> Scan<()> {
        self.drop_key()?;
        if !self.flow() {
            return Err(self.fault(format!("{} closes nothing", self.cursor.peek(0))));
        }
        self.keys.pop();
        self.key_allowed = false;
        self.push(kind);
        self.cursor.forward(1);
        Ok(())
    }

    /// A colon: what was a possible key is one, or else a value without a key begins.
    fn value(&mut self) -> Scan<()> {
        match self.keys.last_mut().and_then(Option::take) {
            Some(key) => {
                let line = key.line + 1;
                let column = isize::try_from(key.column).unwrap_or(isize::MAX);
                let begin = !self.flow() && self.deepen(column);
                let kind = Kind::Key;
                self.tokens.insert(key.token, Token { kind, line });
                if begin {
                    let kind = Kind::MappingStart;
                    self.tokens.insert(key.token, Token { kind, line });
                }
                self.key_allowed = false;
                self.push(Kind::Value);
                self.cursor.forward(1);
                Ok(())
            }
            None => {
                self.begin_block(
                    Kind::MappingStart,
                    "a colon with a blank after it is only for keys; put the text in quotes",
                )?;
                let key_allowed = !self.flow();
                self.indicator(Kind::Value, key_allowed)
            }
        }
    }
}

fn not_a_key(key: &PossibleKey) -> Fault {
    Fault {
        line: key.line + 1,
        reason: "a key without its colon, or a text that goes on in a line that is not indented"
            .to_owned(),
    }
}

fn begins_plain(c: char, next: char, flow: bool) -> bool {
    !(blank(c) || "-?:,[]{}#&*!|>'\"%@`".contains(c))
        || !blank(next) && (c == '-' || !flow && matches!(c, '?' | ':'))
}
