//! PEM: one or more blocks, with any text between them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Most blocks that are read from one file.
pub const MAX_BLOCKS: usize = 64;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands after `BEGIN`, as `CERTIFICATE`.
    pub label: String,
    /// The contents.
    pub der: Vec<u8>,
}

/// Why text is not PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// A block has no end, or that of another label.
    #[error("PEM block without its end")]
    Unterminated,
    /// A block's contents are not base64.
    #[error("PEM block that is not base64")]
    Base64,
    /// More blocks than are sensible.
    #[error("more than {MAX_BLOCKS} PEM blocks")]
    TooMany,
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// Whether there is a PEM block somewhere.
#[must_use]
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes
        .windows(BEGIN.len())
        .any(|window| window == BEGIN.as_bytes())
}

/// All blocks.
///
/// # Errors
/// For a malformed block. Text outside of blocks is ignored.
pub fn blocks(bytes: &[u8]) -> Result<Vec<Block>, PemError> {
    let text = String::from_utf8_lossy(bytes);
    let mut blocks = Vec::new();
    let mut rest = &*text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        if blocks.len() == MAX_BLOCKS {
            return Err(PemError::TooMany);
        }
        let (label, body) = after.split_once(DASHES).ok_or(PemError::Unterminated)?;
        let end = format!("-----END {label}-----");
        let (body, after) = body.split_once(&end).ok_or(PemError::Unterminated)?;
        let body: String = body.split_ascii_whitespace().collect();
        blocks.push(Block {
            label: label.to_owned(),
            der: STANDARD.decode(body).map_err(|_| PemError::Base64)?,
        });
        rest = after;
    }
    Ok(blocks)
}
