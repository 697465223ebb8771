//! Images by name: what names mean ([`Catalogue`]), and how an image comes into
//! the store ([`Images`]).
//!
//! The store knows contents by their digests; names are in the database. A name
//! is looked up once, when an instance is created: what is published under it
//! later changes nothing for that instance, and nothing here until somebody
//! pulls the name again.

mod catalogue;
mod fetch;

use std::{io, path::PathBuf, time::Duration};

pub use catalogue::{Catalogue, CatalogueError, Origin, Sum};
pub use fetch::{Images, OpenError};

use crate::{db::DbError, spec::ImageName};

/// How often a server that sends nothing is tried again within one attempt: whoever waits for
/// the image hears of it soon, and makes the next attempt, which goes on where this one ended.
const TRIES: u32 = 3;

/// How long to wait before an image that could not be had is tried again, after so many
/// attempts (from 1): 5 s doubling to 10 minutes.
#[must_use]
pub fn pause(attempt: u32) -> Duration {
    let seconds = 5u64 << attempt.saturating_sub(1).min(7);
    Duration::from_secs(seconds.min(600))
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nobody told us what it is.
    #[error("image {name} is neither in the store nor in the catalogue")]
    Unknown {
        /// As it was named.
        name: ImageName,
    },
    /// Its origin does not deliver it.
    #[error("image {name}: {source}")]
    Get {
        /// As it was named.
        name: ImageName,
        /// Why.
        source: disk::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] disk::Error),
    /// A file that is to be imported cannot be named so.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A name that means a content already.
    #[error("{name}: a digest is no name that an image can be given")]
    Name {
        /// The name.
        name: ImageName,
    },
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Files.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ImageError {
    /// Whether it may be had later without anybody's doing.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Get { source, .. } | Self::Store(source) => source.may_pass(),
            Self::Unknown { .. }
            | Self::File { .. }
            | Self::Name { .. }
            | Self::Db(_)
            | Self::Io(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_minutes() {
        let seconds: Vec<_> = (1..10).map(|n| pause(n).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(pause(u32::MAX).as_secs(), 600);
    }
}
