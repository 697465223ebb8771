//! Finding what interruptions left behind.

use std::{path::PathBuf, time::SystemTime};

use super::{
    images::{ImageStore, image_digest, list_dir},
    partial,
};
use crate::{error::Error, files};

/// What [`ImageStore::sweep`] found that is no image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Unfinished downloads that the next pull continues.
    pub resumable: Vec<PathBuf>,
    /// Left-overs that were removed.
    pub removed: Vec<PathBuf>,
    /// Files that are not the store's; left alone.
    pub unknown: Vec<PathBuf>,
}

impl ImageStore {
    /// Finds what interruptions left behind: keeps downloads that can be continued, removes
    /// what is of no use, and reports files that are not the store's.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sweep(&self) -> Result<SweepReport, Error> {
        let mut report = SweepReport::default();
        for path in list_dir(&self.inner.root.join("sha256"))? {
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if is_temp(name) {
                files::remove(&path)?;
                report.removed.push(path);
            } else if image_digest(name).is_none_or(|d| self.path_of(&d) != path) {
                report.unknown.push(path);
            }
        }
        for path in self.links()? {
            if !path.exists() && path.is_symlink() {
                files::remove(&path)?;
                report.removed.push(path);
            }
        }
        let now = SystemTime::now();
        for path in list_dir(&self.tmp())? {
            match partial::classify(&path, now, self.inner.options.keep_partial) {
                partial::Kind::Resumable => report.resumable.push(path),
                partial::Kind::Record => (),
                partial::Kind::Unknown => report.unknown.push(path),
                // A pull or import of this process may be at work on it.
                partial::Kind::Garbage if self.inner.flights.busy() => (),
                partial::Kind::Garbage => {
                    files::remove(&path)?;
                    report.removed.push(path);
                }
            }
        }
        for list in [
            &mut report.resumable,
            &mut report.removed,
            &mut report.unknown,
        ] {
            list.sort();
        }
        Ok(report)
    }
}

fn is_temp(name: &str) -> bool {
    name.starts_with(files::TEMP_PREFIX)
}
