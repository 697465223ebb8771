//! Text around bytes: hexadecimal, dumps, base64; and what is wrong with text that is nearly one.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, GeneralPurpose};

use super::{Form, FormatError};

/// The input as text, if it is text: UTF-8 or UTF-16, with or without a byte order mark, with
/// zeros after it at most.
pub(super) fn of_bytes(bytes: &[u8]) -> Option<Cow<'_, str>> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let end = bytes.iter().rposition(|byte| *byte != 0)?;
    let text = bytes.get(..=end)?;
    if bytes.get(1) == Some(&0) && bytes.get(3) == Some(&0) {
        return utf16(bytes, u16::from_le_bytes);
    }
    // Binary input mostly ends this at once.
    if !text.iter().all(|byte| is_text(*byte)) {
        return None;
    }
    std::str::from_utf8(text).ok().map(Cow::Borrowed)
}

fn is_text(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<Cow<'static, str>> {
    let units = bytes
        .chunks(2)
        .map(|pair| Some(unit(pair.try_into().ok()?)));
    let units: Option<Vec<u16>> = units.collect();
    let text = String::from_utf16(&units?).ok()?;
    let text = text.trim_end_matches('\0');
    let printable = text.chars().all(|c| !c.is_control() || c.is_whitespace());
    (printable && !text.is_empty()).then(|| Cow::Owned(text.to_owned()))
}

fn engine(alphabet: &base64::alphabet::Alphabet) -> GeneralPurpose {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}

/// Base64 with or without padding, standard or URL-safe; white space is skipped.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    let alphabet = if text.contains(['-', '_']) {
        &base64::alphabet::URL_SAFE
    } else {
        &base64::alphabet::STANDARD
    };
    engine(alphabet).decode(text).ok()
}

/// Hexadecimal digits, with or without `0x` before them; white space is skipped, and so are colons
/// between bytes.
fn hex(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    if digits.contains(':') {
        let bytes = digits.split(':').map(|byte| {
            let two = (byte.len() == 2 && byte.is_ascii()).then_some(byte)?;
            u8::from_str_radix(two, 16).ok()
        });
        return bytes.collect();
    }
    hex::decode(digits).ok()
}

/// The bytes of a dump as `xxd` and `hexdump -C` write it: in each line an offset, bytes, and
/// mostly the bytes as text, which are not looked at.
fn dump(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (offset, rest) = line.trim().split_at_checked(8)?;
        let at = usize::from_str_radix(offset, 16).ok()?;
        if at != bytes.len() {
            return None;
        }
        let columns = match rest.strip_prefix(": ") {
            Some(xxd) => xxd.split("  ").next()?,
            None => rest.split('|').next()?,
        };
        bytes.extend(hex(columns)?);
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// What is inside text of one of the encodings. Text that is both is hexadecimal.
pub(super) fn decode(text: &str) -> Result<(Vec<u8>, Form), FormatError> {
    if let Some(inner) = hex(text) {
        return Ok((inner, Form::Hex));
    }
    if let Some(inner) = dump(text) {
        return Ok((inner, Form::HexDump));
    }
    // Digits alone are meant as such.
    let digits_alone = |c: char| c.is_ascii_hexdigit() || c.is_ascii_whitespace();
    match base64(text) {
        Some(inner) if !text.chars().all(digits_alone) => Ok((inner, Form::Base64)),
        _ => {
            let reason = nearly_hex(text).unwrap_or_else(|| nearly_base64(text));
            Err(FormatError::Unknown(reason))
        }
    }
}

/// The first character that does not fit, where so few do not that the others are no accident.
fn misfit(text: &[char], fits: fn(&char) -> bool) -> Option<String> {
    let at = text.iter().position(|c| !fits(c))?;
    let misfits = text.iter().filter(|c| !fits(c)).count();
    (misfits * 200 <= text.len()).then(|| format!("{:?}, character {}", text[at], at + 1))
}

/// What is wrong with text that is hexadecimal but for that. Base64 of little else than zeros
/// looks so too.
pub(super) fn nearly_hex(text: &str) -> Option<String> {
    let text: String = text.split_ascii_whitespace().collect();
    let digits: Vec<char> = text.strip_prefix("0x").unwrap_or(&text).chars().collect();
    if !digits.is_empty() && digits.iter().all(char::is_ascii_hexdigit) {
        let count = digits.len();
        return Some(format!("hex with an odd number of digits ({count})"));
    }
    let at = misfit(&digits, |c| c.is_ascii_hexdigit() || *c == ':')?;
    Some(format!("hex, but for {at}"))
}

/// What is wrong with text that is no base64.
fn nearly_base64(text: &str) -> String {
    fn fits(c: &char) -> bool {
        c.is_ascii_alphanumeric() || "+/-_=".contains(*c)
    }
    let text: Vec<char> = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    if let Some(at) = misfit(&text, fits) {
        return format!("base64, but for {at}");
    }
    if text.iter().all(fits) {
        return format!("base64 of {} characters, which does not add up", text.len());
    }
    let start: String = text.iter().take(24).collect();
    format!("text that begins with {start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_read() {
        let xxd = "00000000: 0300 0000 0a00 0000 1f00 0300 0000 0000  ................\n\
                   00000010: 6162 63                                  abc\n";
        let expected = b"\x03\0\0\0\x0a\0\0\0\x1f\0\x03\0\0\0\0\0abc";
        assert_eq!(dump(xxd).unwrap(), expected);
        let hexdump = "00000000  03 00 00 00 0a 00 00 00  1f 00 03 00 00 00 00 00  |....|\n\
                       00000010  61 62 63                                          |abc|\n\
                       00000013\n";
        assert_eq!(dump(hexdump).unwrap(), expected);
        // A text column that is itself hexadecimal.
        let digits = "00000000: 3031 3233 3435 3637 3839 6162 6364 6566  0123456789abcdef\n";
        assert_eq!(dump(digits).unwrap(), b"0123456789abcdef");
        for text in ["words", "0000: zz", "00000010: 0102", "0000000: 01", ""] {
            assert_eq!(dump(text), None, "{text}");
        }
    }

    #[test]
    fn text_is_told_from_bytes() {
        assert_eq!(of_bytes(b"\xef\xbb\xbfab\0\0").unwrap(), "ab");
        assert_eq!(of_bytes(b"\xff\xfea\0b\0").unwrap(), "ab");
        assert_eq!(of_bytes(b"\xfe\xff\0a\0b").unwrap(), "ab");
        assert_eq!(of_bytes(b"a\0b\0").unwrap(), "ab");
        for bytes in [&b"\x03\0\0\0"[..], b"\0\0", b"", b"a\x01b", b"\xff\xff"] {
            assert_eq!(of_bytes(bytes), None, "{bytes:?}");
        }
    }
}
