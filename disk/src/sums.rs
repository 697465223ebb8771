//! Digest lists as image publishers serve them: `SHA256SUMS`, `SHA512SUMS`, `CHECKSUM`.
//!
//! Understood are the lines of coreutils' sha256sum(1) (`digits, space, space or asterisk, name`,
//! with its backslash escapes) and of BSD's `--tag` (`SHA256 (name) = digits`). Other lines
//! (comments, PGP armour) are skipped: a list is trusted for where it came from, and a name that
//! is not found is an error. A list that is nothing but a digest, as Alpine's `image.qcow2.sha512`,
//! is about whatever it is asked for.

use crate::digest::Digest;

/// Longest list that is read, in bytes. Debian's and Ubuntu's have a few KiB.
pub const MAX_SUMS_LEN: usize = 1 << 20;

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumsEntry {
    /// The digest.
    pub digest: Digest,
    /// The file's name as listed, unescaped.
    pub name: String,
}

/// Why a list gives no digest for a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SumsError {
    /// More than [`MAX_SUMS_LEN`] bytes.
    #[error("it has more than {MAX_SUMS_LEN} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("it is no text")]
    NotText,
    /// No line for the name.
    #[error("it does not list {name:?}")]
    NotListed {
        /// The name looked for.
        name: String,
    },
    /// Two lines for the name that disagree.
    #[error("it lists {name:?} with different digests")]
    Contradiction {
        /// The name looked for.
        name: String,
    },
}

/// Reads all entries, in the order of the list.
///
/// # Errors
/// [`SumsError::TooLong`], [`SumsError::NotText`].
pub fn parse(list: &[u8]) -> Result<Vec<SumsEntry>, SumsError> {
    if list.len() > MAX_SUMS_LEN {
        return Err(SumsError::TooLong);
    }
    let text = std::str::from_utf8(list).map_err(|_| SumsError::NotText)?;
    Ok(text.lines().filter_map(parse_line).collect())
}

/// The digest listed for `name`; the SHA-512 where both kinds are listed.
///
/// # Errors
/// [`SumsError`]: no list, or none that says one thing about the name.
pub fn find(list: &[u8], name: &str) -> Result<Digest, SumsError> {
    let mut found: Option<Digest> = None;
    for entry in parse(list)? {
        if entry.name.strip_prefix("./").unwrap_or(&entry.name) != name {
            continue;
        }
        found = match (found, entry.digest) {
            (None, digest) => Some(digest),
            (Some(old), digest) if old == digest => Some(old),
            (Some(Digest::Sha256(_)), digest @ Digest::Sha512(_)) => Some(digest),
            (Some(old @ Digest::Sha512(_)), Digest::Sha256(_)) => Some(old),
            _ => {
                return Err(SumsError::Contradiction {
                    name: name.to_owned(),
                });
            }
        };
    }
    found
        .or_else(|| lone_digest(list))
        .ok_or_else(|| SumsError::NotListed {
            name: name.to_owned(),
        })
}

/// The digest in a list that holds nothing else.
fn lone_digest(list: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(list).ok()?;
    Digest::from_hex(text.trim_ascii()).ok()
}

fn parse_line(line: &str) -> Option<SumsEntry> {
    parse_tagged(line).or_else(|| parse_coreutils(line))
}

fn parse_coreutils(line: &str) -> Option<SumsEntry> {
    let (escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digits, rest) = line.split_once(' ')?;
    let digest = Digest::from_hex(digits).ok()?;
    let name = rest.strip_prefix([' ', '*'])?;
    let name = if escaped {
        unescape(name)?
    } else {
        name.to_owned()
    };
    (!name.is_empty()).then_some(SumsEntry { digest, name })
}

fn parse_tagged(line: &str) -> Option<SumsEntry> {
    let (kind, rest) = line.split_once(" (")?;
    let (name, digits) = rest.rsplit_once(") = ")?;
    let digest = match kind {
        "SHA256" => format!("sha256:{digits}").parse(),
        "SHA512" => format!("sha512:{digits}").parse(),
        _ => return None,
    }
    .ok()?;
    (!name.is_empty()).then(|| SumsEntry {
        digest,
        name: name.to_owned(),
    })
}

fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::Sha256([byte; 32])
    }

    #[test]
    fn every_known_form() {
        let (a, b) = ("11".repeat(32), "22".repeat(64));
        let list = format!(
            "# Debian\n\
             -----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n\
             {a}  plain.qcow2\n\
             {b} *binary.img\n\
             SHA256 (bsd (1).raw) = {a}\n\
             SHA512 (bsd) = {b}\n\
             SHA512 (wrong length) = {a}\n\
             MD5 (old) = {a}\n\
             \\{a}  new\\nline\\\\\n\
             {a}  ./here\n\
             {a}   leading space\n\
             {a} one space\n\
             {a}  \n\
             zz{a}  bad\n"
        );
        let names: Vec<_> = parse(list.as_bytes())
            .unwrap()
            .into_iter()
            .map(|e| e.name)
            .collect();
        assert_eq!(
            names,
            [
                "plain.qcow2",
                "binary.img",
                "bsd (1).raw",
                "bsd",
                "new\nline\\",
                "./here",
                " leading space"
            ]
        );
        assert_eq!(find(list.as_bytes(), "here"), Ok(digest(0x11)));
        assert_eq!(
            find(list.as_bytes(), "binary.img"),
            Ok(Digest::Sha512([0x22; 64]))
        );
    }

    #[test]
    fn a_digest_alone_is_about_what_is_asked_for() {
        let hex = "22".repeat(64);
        let found = Ok(Digest::Sha512([0x22; 64]));
        for list in [hex.clone(), format!("{hex}\n"), format!("\n{hex} \r\n")] {
            assert_eq!(find(list.as_bytes(), "any.qcow2"), found, "{list:?}");
        }
        let not_alone = [
            format!("{hex}\n{hex}\n"),
            format!("{hex}  other\n"),
            format!("{hex}x"),
        ];
        for list in not_alone {
            assert!(find(list.as_bytes(), "any.qcow2").is_err(), "{list:?}");
        }
    }

    #[test]
    fn refuses_what_is_unclear() {
        let line = |b: u8| format!("{}  x\n", hex::encode([b; 32]));
        let name = || "x".to_owned();
        assert_eq!(find(b"", "x"), Err(SumsError::NotListed { name: name() }));
        assert_eq!(find((line(1) + &line(1)).as_bytes(), "x"), Ok(digest(1)));
        assert_eq!(
            find((line(1) + &line(2)).as_bytes(), "x"),
            Err(SumsError::Contradiction { name: name() })
        );
        assert_eq!(find(b"\xff", "x"), Err(SumsError::NotText));
        assert_eq!(
            find(&vec![b'\n'; MAX_SUMS_LEN + 1], "x"),
            Err(SumsError::TooLong)
        );
        let both = line(1) + &format!("{}  x\n", "22".repeat(64)) + &line(1);
        assert_eq!(find(both.as_bytes(), "x"), Ok(Digest::Sha512([0x22; 64])));
    }

    proptest! {
        #[test]
        fn what_sha256sum_writes_is_found(bytes: [u8; 32], name in "[a-z0-9._-]{1,40}") {
            let list = format!("{}  {name}\n", hex::encode(bytes));
            prop_assert_eq!(find(list.as_bytes(), &name), Ok(Digest::Sha256(bytes)));
        }

        #[test]
        fn never_panics(list: Vec<u8>, name: String) {
            let _ = find(&list, &name);
        }
    }
}
