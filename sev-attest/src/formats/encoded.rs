//! Hexadecimal and base64.

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, GeneralPurpose};

use super::Form;

/// Shortest text that is taken for an encoding; the smallest thing inside is a certificate.
const SHORTEST: usize = 256;

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

/// Hexadecimal digits, with or without `0x` before them; white space is skipped.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    hex::decode(digits).ok()
}

/// What is inside, where the whole input is text of one of the encodings. Text that is both is
/// hexadecimal.
pub(super) fn decode(bytes: &[u8]) -> Option<(Vec<u8>, Form)> {
    let text = std::str::from_utf8(bytes).ok()?.trim_ascii();
    if text.len() < SHORTEST {
        return None;
    }
    if let Some(inner) = hex(text) {
        return Some((inner, Form::Hex));
    }
    Some((base64(text)?, Form::Base64))
}
