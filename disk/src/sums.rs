//! Digest lists as image publishers serve them: `SHA256SUMS`, `SHA512SUMS`, `CHECKSUM`.
//!
//! Understood are the lines of coreutils' sha256sum(1) (`digits, space, space or asterisk, name`,
//! with its backslash escapes; also with one blank or a tab, and with `sha256:` before the digits),
//! those of BSD's `--tag` (`SHA256 (name) = digits`) and of openssl(1) (`SHA256(name)= digits`).
//! Names may have directories before them. In a list with headings (`# BLAKE2B HASH`, as Gentoo's)
//! only digests under SHA-2 count. Other lines (comments, PGP armour) are skipped: a list is trusted
//! for where it came from, and a name that is not found is an error.
//!
//! A list of one digest, alone (as Alpine's `image.qcow2.sha512`) or with any name, is about
//! whatever it is asked for: publishers put such a list beside a link to their latest image, under
//! the name that the image has elsewhere. The digest decides whether that was so.

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
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The kind of digest that the last heading named.
    let mut counts = true;
    let mut entries = Vec::new();
    for line in text.lines() {
        if let Some(kind) = heading(line) {
            counts = matches!(kind, "SHA256" | "SHA512");
        } else if counts {
            entries.extend(parse_line(line));
        }
    }
    Ok(entries)
}

/// The digest listed for `name`; the SHA-512 where both kinds are listed.
///
/// # Errors
/// [`SumsError`]: no list, or none that says one thing about the name.
pub fn find(list: &[u8], name: &str) -> Result<Digest, SumsError> {
    let entries = parse(list)?;
    let plain = |entry: &SumsEntry| entry.name.strip_prefix("./").unwrap_or(&entry.name) == name;
    let last = |entry: &SumsEntry| entry.name.rsplit('/').next() == Some(name);
    let mut found: Option<Digest> = None;
    let exact = entries.iter().any(plain);
    for entry in &entries {
        if !(if exact { plain(entry) } else { last(entry) }) {
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
    let lone = match entries.as_slice() {
        [entry] => Some(entry.digest),
        _ => lone_digest(list),
    };
    found.or(lone).ok_or_else(|| SumsError::NotListed {
        name: name.to_owned(),
    })
}

/// The digest in a list that holds nothing else.
fn lone_digest(list: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(list).ok()?;
    digest(text.trim_start_matches('\u{feff}').trim_ascii())
}

/// Digits, with or without the kind before them.
fn digest(text: &str) -> Option<Digest> {
    text.parse().or_else(|_| Digest::from_hex(text)).ok()
}

/// The kind that a heading like `# SHA512 HASH` names.
fn heading(line: &str) -> Option<&str> {
    let kind = line.strip_prefix('#')?.trim().strip_suffix("HASH")?.trim();
    (!kind.is_empty() && !kind.contains(' ')).then_some(kind)
}

fn parse_line(line: &str) -> Option<SumsEntry> {
    parse_tagged(line).or_else(|| parse_coreutils(line))
}

fn parse_coreutils(line: &str) -> Option<SumsEntry> {
    let (escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digits, rest) = line.split_once([' ', '\t'])?;
    let digest = digest(digits)?;
    let name = rest.strip_prefix([' ', '*']).unwrap_or(rest);
    let name = if escaped {
        unescape(name)?
    } else {
        name.to_owned()
    };
    (!name.is_empty()).then_some(SumsEntry { digest, name })
}

fn parse_tagged(line: &str) -> Option<SumsEntry> {
    let (kind, rest) = line.split_once('(')?;
    let (name, digits) = rest.rsplit_once(')')?;
    let digits = digits.trim_start().strip_prefix('=')?.trim();
    let digest = match kind.trim_end() {
        "SHA256" | "SHA2-256" => format!("sha256:{digits}").parse(),
        "SHA512" | "SHA2-512" => format!("sha512:{digits}").parse(),
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
                " leading space",
                "one space"
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
        let not_alone = [format!("{hex}\n{hex}\n"), format!("{hex}x")];
        for list in not_alone {
            assert!(find(list.as_bytes(), "any.qcow2").is_err(), "{list:?}");
        }
    }

    /// As publishers serve them; each was refused or misread once.
    #[test]
    fn lists_of_publishers() {
        let (a, b, c) = ("11".repeat(64), "22".repeat(64), "33".repeat(32));
        let gentoo = format!(
            "# BLAKE2B HASH\n{a}  x.qcow2\n# SHA512 HASH\n{b}  x.qcow2\n# BLAKE2B HASH\n{a}  y\n"
        );
        assert_eq!(
            find(gentoo.as_bytes(), "x.qcow2"),
            Ok(Digest::Sha512([0x22; 64]))
        );
        let other = format!("{}  other.qcow2\n", "44".repeat(32));
        for line in [
            format!("{c}  ./images/x.qcow2\n"),
            format!("{c}  /builds/image/x.qcow2\n"),
            format!("SHA256(x.qcow2)= {c}\n"),
            format!("SHA2-256(x.qcow2)= {c}\n"),
            format!("{c} x.qcow2\n"),
            format!("{c}\tx.qcow2\r\n"),
            format!("sha256:{c}  x.qcow2\n"),
            format!("{c} *x.qcow2\n"),
        ] {
            for list in [
                line.clone(),
                format!("\u{feff}{line}{other}"),
                format!("{other}{line}"),
            ] {
                let found = find(list.as_bytes(), "x.qcow2");
                assert_eq!(found, Ok(Digest::Sha256([0x33; 32])), "{list:?}");
            }
        }
        // One line, under another name or none: what the list is there for.
        for lone in [
            format!("{c}  x-2026.11.28.qcow2\n"),
            format!("# latest\n{c}  -\n"),
            format!("sha256:{c}\n"),
            format!("\u{feff}{c}\n"),
        ] {
            assert_eq!(
                find(lone.as_bytes(), "x.qcow2"),
                Ok(Digest::Sha256([0x33; 32])),
                "{lone:?}"
            );
        }
        // A name of its own counts before the same name in a directory.
        let both = format!("{}  old/x.qcow2\n{c}  x.qcow2\n", "55".repeat(32));
        assert_eq!(
            find(both.as_bytes(), "x.qcow2"),
            Ok(Digest::Sha256([0x33; 32]))
        );
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
