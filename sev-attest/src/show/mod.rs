//! Reports and certificates in words.
//!
//! Both are shown as sections of named values, so that text and JSON tell the same.

mod binding;
mod certificate;
mod report;

use std::fmt::Write as _;

use serde_json::{Map, Value};

pub use binding::binding;
pub use certificate::{certificate, crl};
pub use report::report;

/// One line of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name in JSON.
    pub key: &'static str,
    /// Name in text.
    pub label: &'static str,
    /// The value itself, for JSON.
    pub value: Value,
    /// The value in words, for text.
    pub words: String,
}

impl Entry {
    /// A value whose text is the same in both.
    fn text(key: &'static str, label: &'static str, text: impl Into<String>) -> Self {
        let words = text.into();
        Self {
            key,
            label,
            value: Value::String(words.clone()),
            words,
        }
    }

    fn new(
        key: &'static str,
        label: &'static str,
        value: impl Into<Value>,
        words: impl Into<String>,
    ) -> Self {
        Self {
            key,
            label,
            value: value.into(),
            words: words.into(),
        }
    }

    fn hex(key: &'static str, label: &'static str, bytes: &[u8]) -> Self {
        let digits = hex::encode(bytes);
        let zero = bytes.iter().all(|byte| *byte == 0);
        let words = if zero {
            "all zero".to_owned()
        } else {
            digits.clone()
        };
        Self::new(key, label, digits, words)
    }

    fn bit(key: &'static str, label: &'static str, bit: bool, [no, yes]: [&str; 2]) -> Self {
        Self::new(key, label, bit, if bit { yes } else { no })
    }

    /// A bit that not every version of the report has.
    fn later_bit(
        key: &'static str,
        label: &'static str,
        bit: Option<bool>,
        words: [&str; 2],
    ) -> Self {
        match bit {
            Some(bit) => Self::bit(key, label, bit, words),
            None => Self::new(key, label, Value::Null, "not in this version"),
        }
    }
}

/// A titled group of entries; in JSON an object under `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name in JSON; the entries of a section without one stand in the object above.
    pub key: &'static str,
    /// Name in text.
    pub title: String,
    /// Its lines.
    pub entries: Vec<Entry>,
}

/// Sections as text.
#[must_use]
pub fn to_text(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", plain(&section.title));
        let width = section
            .entries
            .iter()
            .map(|entry| entry.label.chars().count())
            .max();
        let width = width.unwrap_or(0);
        for entry in &section.entries {
            let _ = writeln!(text, "  {:<width$}  {}", entry.label, plain(&entry.words));
        }
    }
    text
}

/// Sections as JSON.
#[must_use]
pub fn to_json(sections: &[Section]) -> Value {
    let mut top = Map::new();
    for section in sections {
        let entries = section.entries.iter();
        let entries = entries.map(|entry| (entry.key.to_owned(), entry.value.clone()));
        if section.key.is_empty() {
            top.extend(entries);
        } else {
            top.insert(section.key.to_owned(), Value::Object(entries.collect()));
        }
    }
    Value::Object(top)
}

/// Text with control characters escaped, for it may come from whoever made the input.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(
                c,
                '\u{200b}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}'
                    | '\u{feff}'
            );
        if hidden {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// As [`plain`], for text of several lines.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// Long runs of hexadecimal digits with their middle left out.
#[must_use]
pub fn abbreviated(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let long = word.len() > 40 && word.bytes().all(|b| b.is_ascii_hexdigit());
        if long {
            format!("{}…{}", &word[..16], &word[word.len() - 8..])
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
