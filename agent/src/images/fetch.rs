//! From a name to an image of the store.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use disk::{Digest, Expected, Format, Import, Progress, PullRequest, Sha256, StoredImage};

use super::{ImageError, Origin, Sum};
use crate::{
    db::{ImageRow, now},
    node::{Node, blocking},
    spec::ImageName,
};

/// The image that a name means here and now: the one in the store that has it,
/// else the one that its origin delivers, which then has the name. Calls for one
/// image at the same time are one download. Cancel-safe.
///
/// # Errors
/// [`ImageError`]; nothing is named then.
pub async fn ensure(
    node: &Arc<Node>,
    name: &ImageName,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<StoredImage, ImageError> {
    match stored(node, name).await? {
        Some(image) => Ok(image),
        None => fetch(node, name, Unless::Stored, progress).await,
    }
}

/// The image in the store that has the name, if there is one.
///
/// # Errors
/// Those of the database and of the store.
pub async fn stored(node: &Arc<Node>, name: &ImageName) -> Result<Option<StoredImage>, ImageError> {
    let digest = match name.digest() {
        Some(digits) => Sha256::from_hex(digits).ok(),
        None => node
            .db
            .image(name.as_str())
            .await?
            .and_then(|r| Sha256::from_hex(&r.digest).ok()),
    };
    let Some(digest) = digest else {
        return Ok(None);
    };
    let store = node.store.clone();
    blocking(move || store.get(&digest.into()).map_err(ImageError::from)).await
}

/// Whether there is any hope of [`ensure`]: asked before a record is made.
///
/// # Errors
/// Those of the database and of the store.
pub async fn is_known(node: &Arc<Node>, name: &ImageName) -> Result<bool, ImageError> {
    Ok(node.catalogue.get(name).is_some() || stored(node, name).await?.is_some())
}

/// Fetches what is published under the name now, and gives it the name; an older
/// image loses it and stays as long as instances are layered over it.
///
/// # Errors
/// [`ImageError`]; the name means what it meant then.
pub async fn pull(
    node: &Arc<Node>,
    name: &ImageName,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<StoredImage, ImageError> {
    fetch(node, name, Unless::Never, progress).await
}

/// When a file of this host is not imported after all.
#[derive(PartialEq, Eq)]
enum Unless {
    /// Somebody else imported it while we waited.
    Stored,
    /// It is imported whatever the store has.
    Never,
}

async fn fetch(
    node: &Arc<Node>,
    name: &ImageName,
    unless: Unless,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<StoredImage, ImageError> {
    let Some(entry) = node.catalogue.get(name) else {
        // An image that was imported has no origin; it is what there is.
        let found = stored(node, name).await?;
        return found.ok_or_else(|| ImageError::Unknown { name: name.clone() });
    };
    let image = match &entry.origin {
        Origin::Url { url, sum } => from_url(node, name, url, sum, progress).await?,
        Origin::File { path, digest } => {
            let _one = node.catalogue.imports.lock().await;
            if unless == Unless::Stored
                && let Some(image) = stored(node, name).await?
            {
                return Ok(image);
            }
            let import = Import {
                format: None,
                expected: *digest,
            };
            from_file(node, name, path, import, progress).await?
        }
    };
    record(node, name, &image, entry.source()).await?;
    Ok(image)
}

async fn from_url(
    node: &Arc<Node>,
    name: &ImageName,
    url: &str,
    sum: &Sum,
    progress: impl FnMut(Progress) + Send,
) -> Result<StoredImage, ImageError> {
    let expected = match sum {
        Sum::Digest(digest) => Expected::Digest(*digest),
        Sum::List(url) => Expected::Sums {
            url: url.clone(),
            name: None,
        },
    };
    let request = PullRequest {
        url: url.to_owned(),
        expected,
        format: None,
    };
    let progress = Mutex::new(progress);
    let tell = |p| (progress.lock().unwrap_or_else(PoisonError::into_inner))(p);
    node.store
        .pull(&request, tell)
        .await
        .map_err(|source| ImageError::Get {
            name: name.clone(),
            source,
        })
}

async fn from_file(
    node: &Arc<Node>,
    name: &ImageName,
    path: &Path,
    import: Import,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<StoredImage, ImageError> {
    let (store, path, name) = (node.store.clone(), path.to_owned(), name.clone());
    blocking(move || {
        store
            .import(&path, &import, progress)
            .map_err(|source| ImageError::Get { name, source })
    })
    .await
}

/// Takes a file of this host into the store and gives it a name. The file is
/// only read. A name of the catalogue may be taken: the file stands in for it.
///
/// # Errors
/// [`ImageError`]; the name means what it meant then.
pub async fn import(
    node: &Arc<Node>,
    name: &ImageName,
    path: &Path,
    format: Option<Format>,
    expected: Option<Digest>,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<StoredImage, ImageError> {
    let refuse = |reason| {
        Err(ImageError::File {
            path: path.to_owned(),
            reason,
        })
    };
    if !path.is_absolute() {
        return refuse("the path of a file to import must be absolute");
    }
    if name.digest().is_some() || name.as_str().starts_with("sha256:") {
        return refuse("a digest is no name that an image can be given");
    }
    let _one = node.catalogue.imports.lock().await;
    let (store, file) = (node.store.clone(), path.to_owned());
    let import = Import { format, expected };
    let image = blocking(move || {
        store
            .import(&file, &import, progress)
            .map_err(ImageError::from)
    })
    .await?;
    record(node, name, &image, path.display().to_string()).await?;
    Ok(image)
}

/// Gives the image its name.
async fn record(
    node: &Arc<Node>,
    name: &ImageName,
    image: &StoredImage,
    source: String,
) -> Result<(), ImageError> {
    let row = ImageRow {
        name: name.to_string(),
        digest: image.digest.hex(),
        format: image.info.format.as_str().to_owned(),
        virtual_size: image.info.virtual_size.bytes(),
        file_size: image.info.file_size.bytes(),
        source,
        added_at: now(),
    };
    let known = node.db.image(name.as_str()).await?;
    if known.is_some_and(|k| k.digest == row.digest && k.source == row.source) {
        return Ok(());
    }
    let data = serde_json::json!({ "name": row.name, "digest": image.digest.to_string() });
    node.db.name_image(row).await?;
    node.events.emit(None, "image", data);
    Ok(())
}
