//! nftables: the program, and whether the kernel answers it.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::run::{RunError, ask};

const LIMIT: Duration = Duration::from_millis(1000);
/// Where Debian has it; `PATH` of a service may lack `/usr/sbin`.
const PROGRAM: &str = "/usr/sbin/nft";

/// The oldest version that is tested: Debian 12's.
pub const TESTED: (u32, u32, u32) = (1, 0, 6);

/// What nft says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NftFacts {
    /// Its version; `None` when its answer has none.
    pub version: Option<(u32, u32, u32)>,
    /// What the kernel said to a listing of tables, if it refused.
    pub kernel: Result<(), String>,
}

/// Asks the program for its version and the kernel for the names of its tables.
///
/// # Errors
/// When the program is missing or does not answer.
pub async fn gather() -> Result<NftFacts, RunError> {
    let program = Path::new(PROGRAM);
    let program = if program.exists() {
        program
    } else {
        Path::new("nft")
    };
    let (version_answer, tables) = tokio::try_join!(
        ask(program, &["--version"], LIMIT),
        ask(program, &["list", "tables"], LIMIT)
    )?;
    let refused = || {
        let line = tables.errors.lines().next().unwrap_or("no reason given");
        line.chars().take(200).collect::<String>()
    };
    let kernel = if tables.ok { Ok(()) } else { Err(refused()) };
    Ok(NftFacts {
        version: version(&version_answer.output),
        kernel,
    })
}

/// The version in `nftables v1.0.6 (Lester Gooch #5)`.
#[must_use]
pub fn version(text: &str) -> Option<(u32, u32, u32)> {
    let word = text.split_whitespace().find_map(|w| w.strip_prefix('v'))?;
    let mut parts = word.split('.').map(str::parse);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some((major, minor, parts.next().unwrap_or(Ok(0)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("nftables v1.0.6 (Lester Gooch #5)\n", Some((1, 0, 6))),
            ("nftables v1.1.3 (Commodore Bullmoose #4)", Some((1, 1, 3))),
            ("nftables v0.9.8", Some((0, 9, 8))),
            ("nftables v1.1", Some((1, 1, 0))),
            ("nftables", None),
            ("", None),
            ("v.1.2", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn the_installed_one_answers() {
        let facts = gather().await.unwrap();
        assert!(facts.version >= Some(TESTED), "{facts:?}");
        if rustix::process::geteuid().is_root() {
            assert_eq!(facts.kernel, Ok(()));
        }
    }
}
