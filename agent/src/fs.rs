//! Files: blocking work where it blocks nobody, writing whole or not at all, and
//! removing only what is known.

use std::path::Path;

/// Runs blocking work (files, disks) where it blocks nobody.
///
/// # Errors
/// Those of the work; a panic in it becomes an I/O error.
pub async fn blocking<T, E, F>(work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<std::io::Error> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(std::io::Error::other(format!("a blocking task failed: {e}")).into()),
    }
}

/// Writes a file whole or not at all: a temporary beside it, synced, renamed.
///
/// # Errors
/// Those of the file system.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let temporary = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Creates a directory that only root may enter; its parent exists. One that is there
/// is fine.
///
/// # Errors
/// Those of the file system.
pub fn make_private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Removes the files named `names` from a directory, what was left of writing
/// them, and then the directory. What is gone already is fine.
///
/// # Errors
/// Those of the file system; `DirectoryNotEmpty` when there is something else in
/// it, which stays.
pub fn remove_known(dir: &Path, names: &[&str]) -> std::io::Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == NotFound => return Ok(()),
        other => other?,
    };
    let mut others = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let known = name.to_str().is_some_and(|name| is_known(name, names));
        if known && !entry.file_type()?.is_dir() {
            match std::fs::remove_file(entry.path()) {
                Err(e) if e.kind() != NotFound => return Err(e),
                _ => {}
            }
        } else {
            others.push(crate::ids::clip(&name.to_string_lossy()));
        }
    }
    if !others.is_empty() {
        let dir = dir.display();
        let message = format!("{dir} holds what is not the agent's: {}", others.join(", "));
        return Err(std::io::Error::new(DirectoryNotEmpty, message));
    }
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != NotFound => Err(e),
        _ => Ok(()),
    }
}

/// One of `names`, or what a write of it that was cut off leaves: `root.tmp` of
/// [`write_atomically`], `.new-…` of the crate `disk`.
fn is_known(name: &str, names: &[&str]) -> bool {
    let stem = |name: &str| Path::new(name).file_stem().map(ToOwned::to_owned);
    let temporary = name.strip_suffix(".tmp").map(Into::into);
    names.contains(&name)
        || name.starts_with(".new-")
        || temporary
            .is_some_and(|t: std::ffi::OsString| names.iter().any(|n| stem(n) == Some(t.clone())))
}
