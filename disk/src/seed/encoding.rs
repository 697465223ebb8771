//! What user data is wrapped in: base64, gzip, both; as tools that were made for other clouds
//! send it (terraform's `cloudinit_config` does both by default).

use std::io::Read;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::MultiGzDecoder;

/// First bytes of gzip (RFC 1952 section 2.3.1).
pub(super) const GZIP: &[u8] = &[0x1f, 0x8b];
/// Most wrappings around one text.
const MAX_LAYERS: usize = 4;

/// The text itself, of at most `max` bytes.
///
/// # Errors
/// In words: larger, damaged, or wrapped too often.
pub(super) fn unwrap(bytes: &[u8], max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = bytes.to_vec();
    for _ in 0..MAX_LAYERS {
        if bytes.starts_with(GZIP) {
            bytes = gunzip(&bytes, max)?;
        } else if let Some(decoded) = from_base64(&bytes) {
            bytes = decoded;
        } else {
            return Ok(bytes);
        }
    }
    Err(format!(
        "it is wrapped in more than {MAX_LAYERS} layers of gzip and base64"
    ))
}

/// Decompresses at most `max` bytes.
///
/// # Errors
/// In words: more than that, or damaged.
pub(super) fn gunzip(bytes: &[u8], max: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|error| format!("its gzip data is damaged: {error}"))?;
    if out.len() > max {
        return Err(format!("decompressed it has more than {max} bytes"));
    }
    Ok(out)
}

/// Base64 and nothing else, in lines of any length. No kind of user data is read so: each has a
/// character that base64 lacks in its first line.
fn from_base64(bytes: &[u8]) -> Option<Vec<u8>> {
    let plain: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    if plain.len() < 8 {
        return None;
    }
    STANDARD.decode(&plain).ok()
}
