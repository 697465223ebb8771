//! Multi-part MIME (RFC 2045, 2046) as cloud-init reads it: writing the seed's, reading a user's.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use sha2::{Digest as _, Sha256};

use super::{encoding, limits::MAX_USER_DATA};

/// Most parts in a user's message.
pub(super) const MAX_PARTS: usize = 32;
/// Longest line that needs no encoding (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 998;

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// `type/subtype`, lower case.
    pub(super) content_type: String,
    /// Of the characters that [`plain_name`] lets pass.
    pub(super) filename: Option<String>,
    /// cloud-init's `Merge-Type`, of the characters that [`merge_type`] lets pass.
    pub(super) merge_type: Option<String>,
    /// Decoded.
    pub(super) body: String,
}

/// Writes a message; the same parts give the same bytes.
///
/// Parts that plain lines of ASCII can carry stay readable, all others are in base64, so that
/// every body arrives byte for byte.
pub(super) fn encode(parts: &[Part]) -> String {
    let bodies: Vec<(&str, String)> = parts
        .iter()
        .map(|part| match readable(&part.body) {
            true => ("7bit", part.body.clone()),
            false => ("base64", wrapped_base64(part.body.as_bytes())),
        })
        .collect();
    let boundary = boundary(&bodies);

    let length: usize = bodies.iter().map(|(_, body)| body.len() + 256).sum();
    let mut out = String::with_capacity(length + 256);
    // cloud-init takes user data for MIME when it finds this header near the beginning.
    let _ = write!(
        out,
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\n"
    );
    for (part, (encoding, body)) in parts.iter().zip(&bodies) {
        let _ = write!(
            out,
            "\n--{boundary}\nContent-Type: {}; charset=\"utf-8\"\nContent-Transfer-Encoding: \
             {encoding}\n",
            part.content_type
        );
        if let Some(name) = &part.filename {
            let _ = writeln!(out, "Content-Disposition: attachment; filename=\"{name}\"");
        }
        if let Some(merge) = &part.merge_type {
            let _ = writeln!(out, "Merge-Type: {merge}");
        }
        out.push('\n');
        out.push_str(body);
    }
    let _ = writeln!(out, "\n--{boundary}--");
    out
}

fn readable(body: &str) -> bool {
    body.bytes()
        .all(|c| matches!(c, b'\t' | b'\n' | b' '..=b'~'))
        && body.split('\n').all(|line| line.len() <= MAX_LINE)
}

/// RFC 2045 section 6.8: lines of 76.
fn wrapped_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() / 57 * 77 + 80);
    for line in bytes.chunks(57) {
        STANDARD.encode_string(line, &mut out);
        out.push('\n');
    }
    out
}

/// A boundary made from the bodies, and found in none of them.
fn boundary(bodies: &[(&str, String)]) -> String {
    let mut hash = Sha256::new();
    for (_, body) in bodies {
        hash.update((body.len() as u64).to_be_bytes());
        hash.update(body.as_bytes());
    }
    let mut digest = hash.finalize();
    loop {
        let mut boundary = String::from("=_");
        for byte in digest.iter().take(16) {
            let _ = write!(boundary, "{byte:02x}");
        }
        // Practically always so: a body cannot know a hash of itself.
        if !bodies.iter().any(|(_, body)| body.contains(&boundary)) {
            return boundary;
        }
        digest = Sha256::digest(digest);
    }
}

/// Bytes in which cloud-init looks for `MIME-Version:` (`cloudinit/user_data.py`).
const SNIFF: usize = 4096;

/// Does cloud-init or a mail program see a message in this text?
pub(super) fn is_message(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default().to_ascii_lowercase();
    if first.starts_with("content-type:") || first.starts_with("mime-version:") {
        return true;
    }
    // Any other header first, or the line that a mailbox puts before a message.
    let name = first.split_once(':').map_or("", |(name, _)| name);
    let header = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let start = text.as_bytes().get(..SNIFF).unwrap_or(text.as_bytes());
    (header || first.starts_with("from "))
        && start
            .to_ascii_lowercase()
            .windows(13)
            .any(|w| w == b"mime-version:")
}

/// The types whose content cloud-init decompresses.
const COMPRESSED: &[&str] = &[
    "application/gzip",
    "application/gzip-compressed",
    "application/gzipped",
    "application/x-compress",
    "application/x-compressed",
    "application/x-gunzip",
    "application/x-gzip",
    "application/x-gzip-compressed",
];

/// Reads a message into its parts, containers left out.
pub(super) fn decode(text: &str) -> Result<Vec<Part>, String> {
    let headers = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("From ") => rest,
        _ => text,
    };
    let message = MessageParser::default()
        .parse(headers)
        .ok_or("it is not a MIME message")?;
    // A nested part has a container, so this bounds containers, too.
    if message.parts.len() > 2 * MAX_PARTS {
        return Err(format!("it has more than {MAX_PARTS} parts"));
    }
    let mut parts = Vec::new();
    for part in &message.parts {
        let mut content_type = match part.content_type() {
            None => "text/plain".to_owned(),
            Some(t) => format!("{}/{}", t.ctype(), t.subtype().unwrap_or_default()),
        }
        .to_ascii_lowercase();
        let body = match &part.body {
            PartType::Multipart(_) => continue,
            PartType::Text(text) | PartType::Html(text) => text.clone().into_owned(),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => {
                let bytes = if COMPRESSED.contains(&content_type.as_str()) {
                    // What it is, its first line says.
                    content_type = "text/plain".to_owned();
                    encoding::gunzip(bytes, MAX_USER_DATA)?
                } else {
                    bytes.to_vec()
                };
                match String::from_utf8(bytes) {
                    Ok(text) => text,
                    Err(_) => return Err(format!("a part of type {content_type:?} is not UTF-8")),
                }
            }
            PartType::Message(_) => return Err("it has a message within a message".to_owned()),
        };
        let charset = part
            .content_type()
            .and_then(|t| t.attribute("charset"))
            .unwrap_or("utf-8");
        if !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("us-ascii") {
            return Err("a part has another charset than utf-8 or us-ascii".to_owned());
        }
        // The parser puts U+FFFD where the bytes were no text.
        if part.is_encoding_problem || body.contains('\u{fffd}') {
            return Err("a part is not UTF-8 or not in the encoding that it names".to_owned());
        }
        let merge = part
            .headers
            .iter()
            .filter(|header| {
                ["merge-type", "x-merge-type"]
                    .iter()
                    .any(|n| header.name().eq_ignore_ascii_case(n))
            })
            .find_map(|header| header.value().as_text());
        parts.push(Part {
            content_type,
            filename: part
                .attachment_name()
                .filter(|name| plain_name(name))
                .map(str::to_owned),
            merge_type: merge.map(merge_type).transpose()?,
            body,
        });
    }
    if parts.len() > MAX_PARTS {
        return Err(format!("it has more than {MAX_PARTS} parts"));
    }
    Ok(parts)
}

/// A file name that can stand in a header and in a directory; others are left out, and
/// cloud-init numbers the part.
pub(super) fn plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
}

pub(super) fn merge_type(text: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"_-+(), ".contains(&c);
    if text.len() <= 128 && text.bytes().all(allowed) {
        Ok(text.trim().to_owned())
    } else {
        Err("a part has a Merge-Type that cloud-init does not know".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(body: &str) -> Part {
        Part {
            content_type: "text/x-shellscript".to_owned(),
            filename: Some("run-me.sh".to_owned()),
            merge_type: None,
            body: body.to_owned(),
        }
    }

    #[test]
    fn a_body_that_looks_like_the_message_is_still_a_body() {
        let first = encode(&[part("#!/bin/sh\ntrue\n")]);
        let second = encode(&[part(&first), part("x")]);
        let parts = decode(&second).unwrap();
        assert_eq!(parts, [part(&first), part("x")]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bodies in prop::collection::vec("(?s)[ -~\n\tä\r]{0,200}", 1..5)) {
            let parts: Vec<_> = bodies.iter().map(|body| part(body)).collect();
            let text = encode(&parts);
            prop_assert_eq!(&encode(&parts), &text);
            prop_assert_eq!(decode(&text).unwrap(), parts);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(?s)(MIME-Version: 1.0\n)?(Content-Type: multipart/mixed; boundary=\"b\"\n)?.{0,300}") {
            let _ = decode(&text);
        }
    }
}
