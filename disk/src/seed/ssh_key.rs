//! SSH public keys (RFC 4253 section 6.6, RFC 5656, RFC 8709, OpenSSH's PROTOCOL.u2f).

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::error::{SeedError, excerpt};

/// Longest line in bytes: 8 KiB holds an RSA key of 16384 bits with room for a comment.
pub const MAX_KEY_LEN: usize = 8 * 1024;

/// One public key as OpenSSH writes it: algorithm, base64, comment.
///
/// The key itself is decoded and must be of the algorithm that the line names, so that a typing
/// error is found when the VM is made and not when its owner cannot log in. There is no options
/// prefix (`command="..." ssh-rsa ...`): what may be done with a key is not the agent's to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SshKey(String);

impl SshKey {
    /// The line, without a newline.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SshKey {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        match check(text) {
            Ok(line) => Ok(Self(line)),
            Err(reason) => Err(SeedError::SshKey {
                value: excerpt(text),
                reason,
            }),
        }
    }
}

fn check(text: &str) -> Result<String, &'static str> {
    if text.len() > MAX_KEY_LEN {
        return Err("it is longer than 8 KiB");
    }
    // A line from a file or a shell often comes with its newline; a second line is another key.
    let line = text.trim_matches([' ', '\t', '\r', '\n']);
    if line.contains("PRIVATE KEY") {
        return Err("it is a private key; give the file ending in .pub");
    }
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err("it has a line break or another control character");
    }
    // Unicode line separators are line breaks to some readers of YAML.
    if line.contains(['\u{2028}', '\u{2029}', '\u{feff}']) {
        return Err("it has a line break or another control character");
    }
    let mut fields = line.splitn(3, [' ', '\t']);
    let algorithm = fields.next().unwrap_or_default();
    let encoded = fields.next().unwrap_or_default();
    let comment = fields.next().unwrap_or_default().trim();
    let kind = Kind::of(algorithm).ok_or_else(|| no_kind(algorithm, line))?;
    let blob = STANDARD
        .decode(encoded)
        .map_err(|_| "its second field is not base64")?;
    check_blob(kind, algorithm, &blob)?;

    let mut out = format!("{algorithm} {encoded}");
    if !comment.is_empty() {
        out.push(' ');
        out.extend(comment.chars().map(|c| if c == '\t' { ' ' } else { c }));
    }
    Ok(out)
}

/// Why a line does not begin with an algorithm, and what to do.
fn no_kind(algorithm: &str, line: &str) -> &'static str {
    let has_key = line
        .split([' ', '\t'])
        .any(|word| Kind::of(word).is_some() || word == "ssh-dss");
    if algorithm.ends_with("-cert-v01@openssh.com") {
        "it is a certificate, which belongs to who logs in: give the key (the file without -cert), \
         or trust its authority by cloud-init user data"
    } else if algorithm != "ssh-dss" && has_key {
        "it begins with options or cert-authority: give the key alone, and such a line in \
         cloud-init user data, as ssh_authorized_keys of a user in `users`"
    } else {
        "it does not begin with ssh-ed25519, ssh-rsa, ecdsa-sha2-nistp256/384/521 or one of the \
         sk- variants, which are what sshd takes"
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Ed25519,
    Rsa,
    /// With the name of the curve and the length of an uncompressed point.
    Ecdsa(&'static str, usize),
    SkEd25519,
    SkEcdsa,
}

impl Kind {
    fn of(algorithm: &str) -> Option<Self> {
        Some(match algorithm {
            "ssh-ed25519" => Self::Ed25519,
            "ssh-rsa" => Self::Rsa,
            "ecdsa-sha2-nistp256" => Self::Ecdsa("nistp256", 65),
            "ecdsa-sha2-nistp384" => Self::Ecdsa("nistp384", 97),
            "ecdsa-sha2-nistp521" => Self::Ecdsa("nistp521", 133),
            "sk-ssh-ed25519@openssh.com" => Self::SkEd25519,
            "sk-ecdsa-sha2-nistp256@openssh.com" => Self::SkEcdsa,
            _ => return None,
        })
    }
}

fn check_blob(kind: Kind, algorithm: &str, blob: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "the key is cut off or damaged";
    let mut reader = Reader(blob);
    if reader.string().ok_or(CUT)? != algorithm.as_bytes() {
        return Err("the key inside is not of the algorithm that the line names");
    }
    match kind {
        Kind::Ed25519 => reader.exactly(32)?,
        Kind::Rsa => {
            let _exponent = reader.string().ok_or(CUT)?;
            let modulus = reader.string().ok_or(CUT)?;
            // RFC 4251 section 5: an mpint has a zero byte in front when its first bit is set.
            let bits = modulus.strip_prefix(&[0]).unwrap_or(modulus).len() * 8;
            if !(1024..=16384).contains(&bits) {
                return Err("its RSA modulus is not of 1024 to 16384 bits, which sshd requires");
            }
        }
        Kind::Ecdsa(curve, len) => {
            reader.curve(curve)?;
            reader.point(len)?;
        }
        Kind::SkEd25519 => {
            reader.exactly(32)?;
            reader.string().ok_or(CUT)?;
        }
        Kind::SkEcdsa => {
            reader.curve("nistp256")?;
            reader.point(65)?;
            reader.string().ok_or(CUT)?;
        }
    }
    if reader.0.is_empty() {
        Ok(())
    } else {
        Err("the key has bytes after its end")
    }
}

/// Reads strings of RFC 4251 section 5: a length of four bytes, big endian, then the bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn string(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (string, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(string)
    }

    fn exactly(&mut self, len: usize) -> Result<(), &'static str> {
        match self.string() {
            Some(string) if string.len() == len => Ok(()),
            _ => Err("the key is cut off or damaged"),
        }
    }

    fn curve(&mut self, name: &str) -> Result<(), &'static str> {
        match self.string() {
            Some(curve) if curve == name.as_bytes() => Ok(()),
            _ => Err("the key is on another curve than the line names"),
        }
    }

    /// An uncompressed point (SEC 1 section 2.3.3): 0x04 and both coordinates.
    fn point(&mut self, len: usize) -> Result<(), &'static str> {
        match self.string() {
            Some(point) if point.len() == len && point.first() == Some(&4) => Ok(()),
            _ => Err("the key is not an uncompressed point of its curve"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(strings: &[&[u8]]) -> String {
        let mut out = Vec::new();
        for string in strings {
            out.extend_from_slice(&(string.len() as u32).to_be_bytes());
            out.extend_from_slice(string);
        }
        STANDARD.encode(out)
    }

    fn line(algorithm: &str, rest: &[&[u8]]) -> String {
        let mut strings = vec![algorithm.as_bytes()];
        strings.extend_from_slice(rest);
        format!("{algorithm} {}", blob(&strings))
    }

    fn point(len: usize) -> Vec<u8> {
        let mut point = vec![9; len];
        point[0] = 4;
        point
    }

    #[test]
    fn every_algorithm_is_taken() {
        let modulus = [&[0u8, 0x80][..], &[1; 255]].concat();
        for key in [
            line("ssh-ed25519", &[&[7; 32]]),
            line("ssh-rsa", &[&[1, 0, 1], &modulus]),
            line("ecdsa-sha2-nistp256", &[b"nistp256", &point(65)]),
            line("ecdsa-sha2-nistp384", &[b"nistp384", &point(97)]),
            line("ecdsa-sha2-nistp521", &[b"nistp521", &point(133)]),
            line("sk-ssh-ed25519@openssh.com", &[&[7; 32], b"ssh:"]),
            line(
                "sk-ecdsa-sha2-nistp256@openssh.com",
                &[b"nistp256", &point(65), b"ssh:"],
            ),
        ] {
            assert_eq!(key.parse::<SshKey>().unwrap().as_str(), key);
            let commented = format!("{key} me@home, \"née\" #1\n");
            assert_eq!(
                commented.parse::<SshKey>().unwrap().as_str(),
                commented.trim_end()
            );
        }
    }

    #[test]
    fn hostile_lines_are_refused() {
        let good = line("ssh-ed25519", &[&[7; 32]]);
        let small = line("ssh-rsa", &[&[3], &[0x7f; 64]]);
        for (bad, because) in [
            (String::new(), "does not begin"),
            (format!("{good} a\nssh-rsa AAAA"), "line break"),
            (format!("{good} a\r\nruncmd: [reboot]"), "line break"),
            (format!("{good} a\0b"), "control"),
            (format!("{good} a\u{2028}b"), "line break"),
            (format!("{good} a\u{85}b"), "control"),
            (format!("command=\"reboot\" {good}"), "`users`"),
            (format!("no-pty {good}"), "`users`"),
            (format!("cert-authority {good}"), "`users`"),
            (
                "ssh-ed25519-cert-v01@openssh.com AAAA".to_owned(),
                "certificate",
            ),
            ("ssh-dss AAAAB3NzaC1kc3M=".to_owned(), "does not begin"),
            ("ssh-ed25519".to_owned(), "cut off"),
            ("ssh-ed25519 !!!!".to_owned(), "base64"),
            (good[..good.len() - 4].to_owned(), "cut off"),
            (
                good.replacen("ssh-ed25519", "ssh-rsa", 1),
                "not of the algorithm",
            ),
            (line("ssh-ed25519", &[&[7; 31]]), "cut off"),
            (line("ssh-ed25519", &[&[7; 32], b"x"]), "after its end"),
            (small, "modulus"),
            (
                line("ecdsa-sha2-nistp256", &[b"nistp384", &point(65)]),
                "curve",
            ),
            (
                line("ecdsa-sha2-nistp256", &[b"nistp256", &[2; 33]]),
                "uncompressed",
            ),
            (
                format!("ssh-ed25519 {}", STANDARD.encode([0xff; 8])),
                "cut off",
            ),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
                "private key",
            ),
            (format!("{good} {}", "x".repeat(MAX_KEY_LEN)), "8 KiB"),
        ] {
            let error = bad.parse::<SshKey>().unwrap_err().to_string();
            assert!(error.contains(because), "{bad:?}: {error}");
        }
    }
}
