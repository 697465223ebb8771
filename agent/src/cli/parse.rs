//! What people write, as values.

use std::{str::FromStr, time::Duration};

use disk::ByteSize;

/// A size in MiB: a plain number is GiB, else a number with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// MiB.
    pub mib: u64,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let plain = !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit());
        let with_unit = if plain {
            format!("{trimmed}GiB")
        } else {
            trimmed.to_owned()
        };
        let size: ByteSize = with_unit
            .parse()
            .map_err(|_| "expected GiB as a whole number, or a unit, like 20, 512MiB or 1TiB")?;
        if size.bytes() == 0 {
            return Err("expected more than nothing".into());
        }
        if !size.bytes().is_multiple_of(1 << 20) {
            return Err("expected whole MiB".into());
        }
        Ok(Self {
            mib: size.mib_ceil(),
        })
    }
}

/// A number of bytes: plain, or with a unit.
///
/// # Errors
/// When it is neither.
pub fn bytes(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|e: disk::SizeError| e.to_string())?;
    Ok(size.bytes())
}

/// A duration: plain seconds, or with s, m or h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected seconds, or a number with s, m or h, like 300, 90s or 10m";
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let factor = match unit {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong().into()),
        };
        let seconds = number
            .checked_mul(factor)
            .filter(|s| *s <= 7 * 24 * 3600)
            .ok_or_else(wrong)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

/// `--volume`: a name, where it is mounted, and its size if it has to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeArg {
    /// Name.
    pub name: String,
    /// Mount point.
    pub mount: Option<String>,
    /// Size.
    pub size: Option<Size>,
}

impl FromStr for VolumeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let mount = parts.next().filter(|m| !m.is_empty()).map(str::to_owned);
        let size = parts.next().map(str::parse).transpose()?;
        if name.is_empty() || parts.next().is_some() {
            return Err("expected NAME, NAME:MOUNT or NAME:MOUNT:SIZE, like data:/data:50".into());
        }
        Ok(Self { name, mount, size })
    }
}

/// A list of ports as one argument; the agent judges each of them.
#[must_use]
pub fn ports(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The keys in a file of them, as ssh itself reads `authorized_keys`: one a line,
/// without empty lines and comments.
#[must_use]
pub fn keys(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_gib_unless_they_say_otherwise() {
        let table = [
            ("4", Some(4096)),
            ("20", Some(20_480)),
            ("512MiB", Some(512)),
            ("512m", Some(512)),
            ("2G", Some(2048)),
            ("1TiB", Some(1 << 20)),
            ("1048576KiB", Some(1024)),
            ("1KiB", None),
            ("0", None),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("NaN", None),
            ("1e3", None),
            ("99999999999999999999", None),
            ("18446744073709551615", None),
        ];
        for (text, mib) in table {
            assert_eq!(text.parse::<Size>().ok().map(|s| s.mib), mib, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("300", Some(300)),
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1d", None),
            ("99999999999999999999", None),
            ("9999999h", None),
        ] {
            let got = text.parse::<Seconds>().ok().map(|s| s.0.as_secs());
            assert_eq!(got, seconds, "{text:?}");
        }
    }

    #[test]
    fn volumes() {
        let volume = |name: &str, mount: Option<&str>, mib: Option<u64>| VolumeArg {
            name: name.into(),
            mount: mount.map(Into::into),
            size: mib.map(|mib| Size { mib }),
        };
        for (text, expected) in [
            ("data", Some(volume("data", None, None))),
            ("data:/data", Some(volume("data", Some("/data"), None))),
            (
                "data:/data:50",
                Some(volume("data", Some("/data"), Some(51_200))),
            ),
            ("data::512MiB", Some(volume("data", None, Some(512)))),
            ("", None),
            (":/data", None),
            ("data:/data:50:x", None),
            ("data:/data:fifty", None),
        ] {
            assert_eq!(text.parse::<VolumeArg>().ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn files_of_keys() {
        let text = "# mine\n\nssh-ed25519 AAAA me\r\n  ssh-rsa BBBB\n";
        assert_eq!(keys(text), ["ssh-ed25519 AAAA me", "ssh-rsa BBBB"]);
        assert_eq!(ports("22, 80,,443 "), ["22", "80", "443"]);
        assert!(ports("").is_empty());
    }
}
