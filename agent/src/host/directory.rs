//! Whose a directory is, and who else may look into it.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// What is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectoryFacts {
    /// The directory.
    pub path: PathBuf,
    /// Owner and permission bits; none when there is no such directory yet.
    pub owner: Option<(u32, u32)>,
    /// A directory above it in which others can rename what is not theirs.
    pub open_above: Option<PathBuf>,
}

/// Looks at it.
///
/// # Errors
/// When it cannot be looked at.
pub fn gather(path: &Path) -> io::Result<DirectoryFacts> {
    let owner = match std::fs::metadata(path) {
        Ok(meta) => Some((meta.uid(), meta.mode() & 0o7777)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let open_above = path
        .ancestors()
        .skip(1)
        .find(|above| std::fs::metadata(above).is_ok_and(|m| anybody_may_rename(m.mode())));
    Ok(DirectoryFacts {
        path: path.to_owned(),
        owner,
        open_above: open_above.map(Path::to_owned),
    })
}

/// Whether others can rename entries that are not theirs: `rwxrwxrwx` without the
/// sticky bit.
fn anybody_may_rename(mode: u32) -> bool {
    mode & 0o002 != 0 && mode & 0o1000 == 0
}
