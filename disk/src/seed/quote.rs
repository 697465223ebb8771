//! Text as YAML.

use std::fmt::Write as _;

/// A double-quoted scalar, ASCII alone (YAML 1.1 section 5.7), so that no reader can take it for
/// anything but this text.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            ' '..='~' => write!(out, "{c}"),
            c => write!(out, "\\U{:08X}", u32::from(c)),
        };
    }
    out.push('"');
    out
}
