//! Images by name: what names mean ([`Catalogue`]), and how an image comes into
//! the store ([`Images`]).
//!
//! The store knows contents by their digests; names are in the database. A name
//! is looked up once, when an instance is created: what is published under it
//! later changes nothing for that instance, and nothing here until somebody
//! pulls the name again.

mod catalogue;
mod fetch;

use std::{io, path::PathBuf};

pub use catalogue::{Catalogue, CatalogueError, Origin, Sum};
pub use fetch::{Images, OpenError};

use crate::{backoff::Backoff, db::DbError, spec::ImageName};

/// How often a server that sends nothing is tried again within one attempt: whoever waits for
/// the image hears of it soon, and makes the next attempt, which goes on where this one ended.
const TRIES: u32 = 3;

/// Before an image that could not be had is tried again.
pub const RETRY: Backoff = Backoff::seconds(5, 600);

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
    /// It came from a file or a URL that nobody recorded as the name's origin.
    #[error("image {name} was imported: it is in no catalogue to be pulled from; import it again")]
    Imported {
        /// As it was named.
        name: ImageName,
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
            | Self::Imported { .. }
            | Self::Name { .. }
            | Self::Db(_)
            | Self::Io(_) => false,
        }
    }
}
