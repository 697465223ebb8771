//! Whole processes for the benchmarks: this package's program and its rivals.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program `sev-attest`, built beside the examples.
pub(crate) fn ours() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .parent()
        .and_then(Path::parent)
        .map(|target| target.join("sev-attest"))
        .unwrap()
}

/// A rival, from a variable or the PATH.
pub(crate) fn rival(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from)
}

/// A program whose words nobody reads.
pub(crate) fn quiet(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Whether it ends well.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
