//! A place in a text, and what YAML 1.1 calls blanks and line breaks.

/// Why a document cannot be loaded, and in which line (from 1).
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) reason: String,
}

pub(super) type Scan<T> = Result<T, Fault>;

/// The end of the text. Texts with a NUL are refused before.
pub(super) const END: char = '\0';

/// A line break of YAML 1.1 (section 4.2), or the end.
pub(super) fn breaks(c: char) -> bool {
    matches!(c, END | '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// A space, a line break or the end; a tab is none of them.
pub(super) fn space_or_break(c: char) -> bool {
    c == ' ' || breaks(c)
}

/// The same with tabs.
pub(super) fn blank(c: char) -> bool {
    c == '\t' || space_or_break(c)
}

/// Reads a text character by character.
pub(super) struct Cursor {
    chars: Vec<char>,
    /// Characters before this place.
    pub(super) at: usize,
    /// From 0.
    pub(super) line: usize,
    /// From 0.
    pub(super) column: usize,
}

impl Cursor {
    pub(super) fn new(text: &str) -> Self {
        Cursor {
            chars: text.chars().collect(),
            at: 0,
            line: 0,
            column: 0,
        }
    }

    /// The character `n` places on.
    pub(super) fn peek(&self, n: usize) -> char {
        self.chars.get(self.at + n).copied().unwrap_or(END)
    }

    /// The next `n` characters.
    pub(super) fn ahead(&self, n: usize) -> String {
        self.chars.iter().skip(self.at).take(n).collect()
    }

    pub(super) fn forward(&mut self, n: usize) {
        for _ in 0..n {
            let c = self.peek(0);
            self.at += 1;
            if c != END && breaks(c) && !(c == '\r' && self.peek(0) == '\n') {
                self.line += 1;
                self.column = 0;
            } else if c != '\u{feff}' {
                self.column += 1;
            }
        }
    }

    /// Takes the characters for which `wanted` is true.
    pub(super) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut n = 0;
        while self.peek(n) != END && wanted(self.peek(n)) {
            n += 1;
        }
        let text = self.ahead(n);
        self.forward(n);
        text
    }

    pub(super) fn skip_spaces(&mut self) {
        while self.peek(0) == ' ' {
            self.forward(1);
        }
    }

    /// Takes one line break, if there is one: what it means in a scalar.
    pub(super) fn line_break(&mut self) -> Option<char> {
        match self.peek(0) {
            '\r' if self.peek(1) == '\n' => {
                self.forward(2);
                Some('\n')
            }
            '\r' | '\n' | '\u{85}' => {
                self.forward(1);
                Some('\n')
            }
            c @ ('\u{2028}' | '\u{2029}') => {
                self.forward(1);
                Some(c)
            }
            _ => None,
        }
    }

    /// Spaces, a comment and the end of the line, and nothing else.
    pub(super) fn rest_of_line(&mut self, after: &str) -> Scan<()> {
        self.skip_spaces();
        if self.peek(0) == '#' {
            self.take_while(|c| !breaks(c));
        }
        if !breaks(self.peek(0)) {
            return Err(self.fault(format!("{} after {after}", self.found())));
        }
        self.line_break();
        Ok(())
    }

    /// `---` or `...` at the beginning of a line.
    pub(super) fn document_mark(&self, mark: &str) -> bool {
        self.column == 0 && self.ahead(3) == mark && blank(self.peek(3))
    }

    pub(super) fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault {
            line: self.line + 1,
            reason: reason.into(),
        }
    }

    /// The next character in words.
    pub(super) fn found(&self) -> String {
        match self.peek(0) {
            END => "the end".to_owned(),
            '\t' => "a tab where only spaces may be".to_owned(),
            c if breaks(c) => "the end of the line".to_owned(),
            c => format!("{c:?}"),
        }
    }
}
