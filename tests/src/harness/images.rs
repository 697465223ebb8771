//! Guests' disk images, from the cache or built by the scripts in `tests/images`.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use super::{Result, agent};

/// The Debian image; the first call on a machine builds it, and says so line by line.
///
/// # Errors
/// When it cannot be built.
pub fn debian(say: impl FnMut(&str)) -> Result<PathBuf> {
    script("build-debian.sh", &[], say)
}

/// The same, with what a host of virtual machines needs.
///
/// # Errors
/// When it cannot be built.
pub fn node(say: impl FnMut(&str)) -> Result<PathBuf> {
    script("build-debian.sh", &["node"], say)
}

/// The image of the small guest.
///
/// # Errors
/// When it cannot be built.
pub fn tiny(say: impl FnMut(&str)) -> Result<PathBuf> {
    // The guest's kernel finds no libc.
    let init = agent::build(
        "tiny-guest",
        &[],
        &["-C", "target-feature=+crt-static", "-C", "strip=symbols"],
    )?;
    script("build-tiny.sh", &[&init], say)
}

fn script(name: &str, arguments: &[&str], mut say: impl FnMut(&str)) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("images")
        .join(name);
    let mut child = Command::new(&path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", path.display()))?;
    // Both pipes are read at once, or a full one would stop the script.
    let stdout = child.stdout.take().ok_or("no output")?;
    let result = thread::spawn(move || std::io::read_to_string(stdout));
    let mut errors = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            say(&line);
            errors.push_str(&line);
            errors.push('\n');
        }
    }
    let status = child.wait()?;
    let out = result
        .join()
        .map_err(|_| "the script's reader panicked")??;
    if !status.success() {
        return Err(format!("{name}: {status}\n{errors}").into());
    }
    Ok(out.trim().into())
}
