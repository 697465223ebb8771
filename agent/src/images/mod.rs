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

use crate::{db::DbError, spec::ImageName};

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
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Files.
    #[error("{0}")]
    Io(#[from] io::Error),
}
