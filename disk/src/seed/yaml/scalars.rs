//! Scalars, tags, anchors and directives: everything of more than one character.

use super::cursor::{Cursor, END, Scan, blank, breaks, space_or_break};

/// A tag as written: the handle before its last `!`, and the rest. Without a handle the rest is
/// the whole tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) handle: Option<String>,
    pub(super) suffix: String,
}

/// A line that begins with `%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Directive {
    Version { major: String },
    Tag { handle: String, prefix: String },
    Other,
}

/// A plain scalar, and whether a line ended after its last character.
pub(super) fn plain(cursor: &mut Cursor, indent: isize, flow: bool) -> (String, bool) {
    let mut text = String::new();
    let mut spaces = String::new();
    let mut line_ended = false;
    while cursor.peek(0) != '#' {
        let mut n = 0;
        loop {
            let (c, next) = (cursor.peek(n), cursor.peek(n + 1));
            let colon = c == ':' && (blank(next) || flow && ",[]{}".contains(next));
            if blank(c) || colon || flow && ",?[]{}".contains(c) {
                break;
            }
            n += 1;
        }
        if n == 0 {
            break;
        }
        text.push_str(&spaces);
        text.push_str(&cursor.ahead(n));
        cursor.forward(n);
        (spaces, line_ended) = plain_spaces(cursor);
        let outside = !flow && isize::try_from(cursor.column).unwrap_or(isize::MAX) < indent;
        if spaces.is_empty() || outside {
            break;
        }
    }
    (text, line_ended)
}

/// What stands between two words of a plain scalar; nothing where the document ends.
fn plain_spaces(cursor: &mut Cursor) -> (String, bool) {
    let mut out = cursor.take_while(|c| c == ' ');
    let Some(first) = cursor.line_break() else {
        return (out, false);
    };
    out.clear();
    let mut more = String::new();
    loop {
        if cursor.document_mark("---") || cursor.document_mark("...") {
            return (String::new(), true);
        }
        cursor.skip_spaces();
        match cursor.line_break() {
            Some(c) => more.push(c),
            None => break,
        }
    }
    fold(&mut out, first, &more);
    (out, true)
}

/// A line break and the empty lines after it, as they are read within a scalar.
fn fold(out: &mut String, first: char, more: &str) {
    if first != '\n' {
        out.push(first);
    } else if more.is_empty() {
        out.push(' ');
    }
    out.push_str(more);
}

/// A scalar in quotes, which are next.
pub(super) fn quoted(cursor: &mut Cursor) -> Scan<String> {
    let quote = cursor.peek(0);
    let start = cursor.line + 1;
    cursor.forward(1);
    let mut out = String::new();
    loop {
        out.push_str(&cursor.take_while(|c| !blank(c) && !matches!(c, '\'' | '"' | '\\')));
        match cursor.peek(0) {
            '\'' if quote == '\'' && cursor.peek(1) == '\'' => {
                out.push('\'');
                cursor.forward(2);
            }
            c if c == quote => {
                cursor.forward(1);
                return Ok(out);
            }
            '\\' if quote == '"' => escape(cursor, &mut out)?,
            END => {
                let reason = format!("the text in quotes that begins in line {start} has no end");
                return Err(cursor.fault(reason));
            }
            c if blank(c) => {
                let spaces = cursor.take_while(|c| c == ' ' || c == '\t');
                match cursor.line_break() {
                    None => out.push_str(&spaces),
                    Some(first) => {
                        let more = quoted_breaks(cursor)?;
                        fold(&mut out, first, &more);
                    }
                }
            }
            c => {
                out.push(c);
                cursor.forward(1);
            }
        }
    }
}

/// The empty lines and indentation after a line break in quotes.
fn quoted_breaks(cursor: &mut Cursor) -> Scan<String> {
    let mut out = String::new();
    loop {
        if cursor.document_mark("---") || cursor.document_mark("...") {
            return Err(cursor.fault("the document ends within a text in quotes"));
        }
        cursor.take_while(|c| c == ' ' || c == '\t');
        match cursor.line_break() {
            Some(c) => out.push(c),
            None => return Ok(out),
        }
    }
}

fn escape(cursor: &mut Cursor, out: &mut String) -> Scan<()> {
    cursor.forward(1);
    let c = cursor.peek(0);
    let digits = match c {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        c if c != END && breaks(c) => {
            cursor.line_break();
            out.push_str(&quoted_breaks(cursor)?);
            return Ok(());
        }
        c => {
            out.push(match c {
                '0' => '\0',
                'a' => '\u{7}',
                'b' => '\u{8}',
                't' | '\t' => '\t',
                'n' => '\n',
                'v' => '\u{b}',
                'f' => '\u{c}',
                'r' => '\r',
                'e' => '\u{1b}',
                ' ' | '"' | '\\' | '/' => c,
                'N' => '\u{85}',
                '_' => '\u{a0}',
                'L' => '\u{2028}',
                'P' => '\u{2029}',
                _ => return Err(cursor.fault(format!("unknown escape \\{c}"))),
            });
            cursor.forward(1);
            return Ok(());
        }
    };
    cursor.forward(1);
    let hex = cursor.ahead(digits);
    if hex.len() != digits || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(cursor.fault(format!("\\{c} needs {digits} hexadecimal digits")));
    }
    let code = u32::from_str_radix(&hex, 16).unwrap_or(u32::MAX);
    if code > 0x10_ffff {
        return Err(cursor.fault(format!("\\{c}{hex} is no character")));
    }
    // Half of a surrogate pair is a character to Python; what it is does not matter here.
    out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
    cursor.forward(digits);
    Ok(())
}

/// A block scalar, whose `|` or `>` is next, within a collection indented by `parent`.
pub(super) fn block(cursor: &mut Cursor, parent: isize) -> Scan<String> {
    let folded = cursor.peek(0) == '>';
    cursor.forward(1);
    let (chomp, increment) = block_header(cursor)?;
    cursor.rest_of_line("the sign of a block")?;
    let least = usize::try_from(parent + 1).unwrap_or(0).max(1);
    let (mut empty, indent) = match increment {
        Some(n) => {
            let indent = least + n - 1;
            (block_breaks(cursor, indent), indent)
        }
        None => {
            let (empty, deepest) = block_indentation(cursor);
            (empty, least.max(deepest))
        }
    };
    let mut out = String::new();
    let mut last = None;
    while cursor.column == indent && cursor.peek(0) != END {
        out.push_str(&empty);
        let indented = matches!(cursor.peek(0), ' ' | '\t');
        out.push_str(&cursor.take_while(|c| !breaks(c)));
        last = cursor.line_break();
        empty = block_breaks(cursor, indent);
        if cursor.column != indent || cursor.peek(0) == END {
            break;
        }
        if folded && last == Some('\n') && !indented && !matches!(cursor.peek(0), ' ' | '\t') {
            if empty.is_empty() {
                out.push(' ');
            }
        } else {
            out.extend(last);
        }
    }
    if chomp != Some('-') {
        out.extend(last);
    }
    if chomp == Some('+') {
        out.push_str(&empty);
    }
    Ok(out)
}

/// `+` or `-`, and how many columns deeper the text is, in either order.
fn block_header(cursor: &mut Cursor) -> Scan<(Option<char>, Option<usize>)> {
    let (mut chomp, mut increment) = (None, None);
    for _ in 0..2 {
        match cursor.peek(0) {
            c @ ('+' | '-') if chomp.is_none() => chomp = Some(c),
            '0' => return Err(cursor.fault("0 is no indentation of a block")),
            c @ '1'..='9' if increment.is_none() => {
                increment = c.to_digit(10).and_then(|n| usize::try_from(n).ok());
            }
            _ => break,
        }
        cursor.forward(1);
    }
    if space_or_break(cursor.peek(0)) {
        Ok((chomp, increment))
    } else {
        Err(cursor.fault(format!("{} after the sign of a block", cursor.found())))
    }
}

/// The empty lines before a block, and the deepest indentation in them and in its first line.
fn block_indentation(cursor: &mut Cursor) -> (String, usize) {
    let mut empty = String::new();
    let mut deepest = 0;
    loop {
        if cursor.peek(0) == ' ' {
            cursor.forward(1);
            deepest = deepest.max(cursor.column);
        } else if let Some(c) = cursor.line_break() {
            empty.push(c);
        } else {
            return (empty, deepest);
        }
    }
}

fn block_breaks(cursor: &mut Cursor, indent: usize) -> String {
    let mut empty = String::new();
    loop {
        while cursor.column < indent && cursor.peek(0) == ' ' {
            cursor.forward(1);
        }
        match cursor.line_break() {
            Some(c) => empty.push(c),
            None => return empty,
        }
    }
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The name after `&` or `*`, which is next.
pub(super) fn anchor(cursor: &mut Cursor) -> Scan<String> {
    let sign = cursor.peek(0);
    cursor.forward(1);
    let name = cursor.take_while(word);
    let next = cursor.peek(0);
    if name.is_empty() || !(blank(next) || "?:,]}%@`".contains(next)) {
        let found = cursor.found();
        return Err(cursor.fault(format!("{found} in the name after {sign}")));
    }
    Ok(name)
}

/// A tag, whose `!` is next.
pub(super) fn tag(cursor: &mut Cursor) -> Scan<Tag> {
    let tag = match cursor.peek(1) {
        '<' => {
            cursor.forward(2);
            let suffix = uri(cursor)?;
            if cursor.peek(0) != '>' {
                return Err(cursor.fault(format!("{} in a tag", cursor.found())));
            }
            cursor.forward(1);
            let handle = None;
            Tag { handle, suffix }
        }
        c if blank(c) => {
            cursor.forward(1);
            let (handle, suffix) = (None, "!".to_owned());
            Tag { handle, suffix }
        }
        _ => {
            let mut n = 1;
            while !space_or_break(cursor.peek(n)) && cursor.peek(n) != '!' {
                n += 1;
            }
            let handle = if cursor.peek(n) == '!' {
                handle(cursor)?
            } else {
                cursor.forward(1);
                "!".to_owned()
            };
            let handle = Some(handle);
            let suffix = uri(cursor)?;
            Tag { handle, suffix }
        }
    };
    if space_or_break(cursor.peek(0)) {
        Ok(tag)
    } else {
        Err(cursor.fault(format!("{} after a tag", cursor.found())))
    }
}

fn handle(cursor: &mut Cursor) -> Scan<String> {
    let fault = |cursor: &Cursor| Err(cursor.fault("a tag's handle is not between two !"));
    if cursor.peek(0) != '!' {
        return fault(cursor);
    }
    let mut n = 1;
    if cursor.peek(1) != ' ' {
        while word(cursor.peek(n)) {
            n += 1;
        }
        if cursor.peek(n) != '!' {
            return fault(cursor);
        }
        n += 1;
    }
    let text = cursor.ahead(n);
    cursor.forward(n);
    Ok(text)
}

fn uri(cursor: &mut Cursor) -> Scan<String> {
    let mut out = String::new();
    loop {
        out.push_str(
            &cursor
                .take_while(|c| c.is_ascii_alphanumeric() || "-;/?:@&=+$,_.!~*'()[]".contains(c)),
        );
        if cursor.peek(0) != '%' {
            break;
        }
        let mut bytes = Vec::new();
        while cursor.peek(0) == '%' {
            cursor.forward(1);
            let pair = cursor.ahead(2);
            match hex::decode(&pair) {
                Ok(byte) if pair.len() == 2 => bytes.extend(byte),
                _ => return Err(cursor.fault("% needs two hexadecimal digits in a tag")),
            }
            cursor.forward(2);
        }
        match String::from_utf8(bytes) {
            Ok(text) => out.push_str(&text),
            Err(_) => return Err(cursor.fault("a tag is not UTF-8")),
        }
    }
    if out.is_empty() {
        return Err(cursor.fault(format!("{} in a tag", cursor.found())));
    }
    Ok(out)
}

/// A directive, whose `%` is next.
pub(super) fn directive(cursor: &mut Cursor) -> Scan<Directive> {
    cursor.forward(1);
    let name = cursor.take_while(word);
    if name.is_empty() || !space_or_break(cursor.peek(0)) {
        return Err(cursor.fault(format!("{} in a directive", cursor.found())));
    }
    let digits = |cursor: &mut Cursor| {
        let number = cursor.take_while(|c| c.is_ascii_digit());
        match number.is_empty() {
            true => Err(cursor.fault(format!("{} in a version", cursor.found()))),
            false => Ok(number),
        }
    };
    let directive = match name.as_str() {
        "YAML" => {
            cursor.skip_spaces();
            let major = digits(cursor)?;
            if cursor.peek(0) != '.' {
                return Err(cursor.fault(format!("{} in a version", cursor.found())));
            }
            cursor.forward(1);
            digits(cursor)?;
            if !space_or_break(cursor.peek(0)) {
                return Err(cursor.fault(format!("{} in a version", cursor.found())));
            }
            Directive::Version { major }
        }
        "TAG" => {
            cursor.skip_spaces();
            let handle = handle(cursor)?;
            if cursor.peek(0) != ' ' {
                return Err(cursor.fault(format!("{} in a directive", cursor.found())));
            }
            cursor.skip_spaces();
            let prefix = uri(cursor)?;
            if !space_or_break(cursor.peek(0)) {
                return Err(cursor.fault(format!("{} in a directive", cursor.found())));
            }
            Directive::Tag { handle, prefix }
        }
        _ => {
            cursor.take_while(|c| !breaks(c));
            Directive::Other
        }
    };
    cursor.rest_of_line("a directive")?;
    Ok(directive)
}
