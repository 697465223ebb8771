//! The agent as it was at an earlier commit, built from the history by `tests/host/old-agent.sh`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Result, success};

/// The script's exit status where the history does not reach so far back.
const NO_SUCH_COMMIT: i32 = 3;

/// Its program, built at the first call on a machine; none in a shallow clone, which lacks the
/// commit.
///
/// # Errors
/// When it cannot be built.
pub fn program(commit: &str) -> Result<Option<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("host/old-agent.sh");
    let mut command = Command::new(script);
    let output = command.arg(commit).output()?;
    if output.status.code() == Some(NO_SUCH_COMMIT) {
        return Ok(None);
    }
    success(&command, &output)?;
    Ok(Some(String::from_utf8(output.stdout)?.trim().into()))
}
