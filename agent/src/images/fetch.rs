//! From a name to an image of the store.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crn_api_types::EventKind;
use disk::{
    ByteSize, Digest, Expected, Format, ImageStore, Import, Progress, PullRequest, Sha256,
    StoreOptions, StoredImage, Tuning,
};

use tokio::sync::{Notify, futures::Notified};

use super::{Catalogue, CatalogueError, ImageError, Origin, Sum};
use crate::{
    config,
    db::{Db, ImageRow, now},
    events::Events,
    fs::blocking,
    spec::ImageName,
};

/// The node's base images: the store, which knows contents by their digests, and
/// the names that they have in the catalogue and in the database.
pub struct Images {
    /// Contents by digest.
    pub store: Arc<ImageStore>,
    /// What names mean before anything is imported.
    pub catalogue: Catalogue,
    db: Db,
    events: Events,
    /// Somebody gave an image a name.
    named: Notify,
    /// One import of a file at a time: ten instances of one image are one import.
    imports: tokio::sync::Mutex<()>,
}

/// Why the images cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store's directory.
    #[error("image store: {0}")]
    Store(#[from] disk::Error),
    /// The configured images.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The blocking work itself.
    #[error("image store: {0}")]
    Io(#[from] std::io::Error),
}

impl Images {
    /// Opens the store in `dir`, which is made.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        dir: &Path,
        config: &config::Images,
        db: Db,
        events: Events,
    ) -> Result<Self, OpenError> {
        let most = u32::try_from(config.max_mib).unwrap_or(u32::MAX);
        let options = StoreOptions {
            max_image_size: ByteSize::from_mib(most),
            tuning: Tuning {
                attempts: super::TRIES,
                ..Tuning::default()
            },
            ..StoreOptions::default()
        };
        let dir = dir.to_owned();
        let open = move || Ok::<_, OpenError>(ImageStore::open_with(&dir, options)?);
        Ok(Self {
            store: Arc::new(blocking(open).await?),
            catalogue: Catalogue::new(config)?,
            db,
            events,
            named: Notify::new(),
            imports: tokio::sync::Mutex::new(()),
        })
    }

    /// The image that a name means here and now: the one in the store that has it,
    /// else the one that its origin delivers, which then has the name. Calls for one
    /// image at the same time are one download. Cancel-safe.
    ///
    /// # Errors
    /// [`ImageError`]; nothing is named then.
    pub async fn ensure(
        &self,
        name: &ImageName,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<StoredImage, ImageError> {
        match self.stored(name).await? {
            Some(image) => Ok(image),
            None => self.fetch(name, Reimport::IfMissing, progress).await,
        }
    }

    /// Returns when an image has got a name since this was first polled, or enabled.
    pub fn named(&self) -> Notified<'_> {
        self.named.notified()
    }

    /// The image in the store that has the name, if there is one.
    ///
    /// # Errors
    /// Those of the database and of the store.
    pub async fn stored(&self, name: &ImageName) -> Result<Option<StoredImage>, ImageError> {
        let digest = match name.digest() {
            Some(digits) => Sha256::from_hex(digits).ok(),
            None => self
                .db
                .image(name.as_str())
                .await?
                .and_then(|r| Sha256::from_hex(&r.digest).ok()),
        };
        let Some(digest) = digest else {
            return Ok(None);
        };
        let store = self.store.clone();
        blocking(move || store.get(&digest.into()).map_err(ImageError::from)).await
    }

    /// Whether there is any hope of [`Self::ensure`]: asked before a record is made.
    ///
    /// # Errors
    /// Those of the database and of the store.
    pub async fn is_known(&self, name: &ImageName) -> Result<bool, ImageError> {
        Ok(self.catalogue.get(name).is_some() || self.stored(name).await?.is_some())
    }

    /// Fetches what is published under the name now, and gives it the name; an older
    /// image loses it and stays as long as instances are layered over it.
    ///
    /// # Errors
    /// [`ImageError`]; the name means what it meant then.
    pub async fn pull(
        &self,
        name: &ImageName,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<StoredImage, ImageError> {
        self.fetch(name, Reimport::Always, progress).await
    }

    async fn fetch(
        &self,
        name: &ImageName,
        reimport: Reimport,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<StoredImage, ImageError> {
        let Some(entry) = self.catalogue.get(name) else {
            // An image that was imported has no origin; it is what there is.
            let name = name.clone();
            return match self.stored(&name).await? {
                Some(_) if reimport == Reimport::Always => Err(ImageError::Imported { name }),
                Some(found) => Ok(found),
                None => Err(ImageError::Unknown { name }),
            };
        };
        let image = match &entry.origin {
            Origin::Url { url, sum } => self.download(name, url, sum, progress).await?,
            Origin::File { path, digest } => {
                let _one = self.imports.lock().await;
                if reimport == Reimport::IfMissing
                    && let Some(image) = self.stored(name).await?
                {
                    return Ok(image);
                }
                let import = Import {
                    format: None,
                    expected: *digest,
                };
                self.take_file(name, path, import, progress).await?
            }
        };
        self.record(name, &image, entry.source()).await?;
        Ok(image)
    }

    async fn download(
        &self,
        name: &ImageName,
        url: &str,
        sum: &Sum,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<StoredImage, ImageError> {
        let expected = match sum {
            Sum::Digest(digest) => Expected::Digest(*digest),
            Sum::List { url, name } => Expected::Sums {
                url: url.clone(),
                name: name.clone(),
            },
        };
        let request = PullRequest {
            url: url.to_owned(),
            expected,
            format: None,
        };
        self.pull_as(name, &request, progress).await
    }

    async fn pull_as(
        &self,
        name: &ImageName,
        request: &PullRequest,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<StoredImage, ImageError> {
        let progress = Mutex::new(progress);
        let tell = |p| (progress.lock().unwrap_or_else(PoisonError::into_inner))(p);
        self.store
            .pull(request, tell)
            .await
            .map_err(|source| ImageError::Get {
                name: name.clone(),
                source,
            })
    }

    async fn take_file(
        &self,
        name: &ImageName,
        path: &Path,
        import: Import,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<StoredImage, ImageError> {
        let (store, path, name) = (self.store.clone(), path.to_owned(), name.clone());
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
        &self,
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
        new_name(name)?;
        let _one = self.imports.lock().await;
        let (store, file) = (self.store.clone(), path.to_owned());
        let import = Import { format, expected };
        let image = blocking(move || {
            store
                .import(&file, &import, progress)
                .map_err(ImageError::from)
        })
        .await?;
        self.record(name, &image, path.display().to_string())
            .await?;
        Ok(image)
    }

    /// Downloads an image that is in no catalogue, with its digest, and gives it a name.
    ///
    /// # Errors
    /// [`ImageError`]; the name means what it meant then.
    pub async fn import_url(
        &self,
        name: &ImageName,
        request: &PullRequest,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<StoredImage, ImageError> {
        new_name(name)?;
        let image = self.pull_as(name, request, progress).await?;
        // What follows the path may be a signature.
        let source = request.url.split(['?', '#']).next().unwrap_or_default();
        self.record(name, &image, source.to_owned()).await?;
        Ok(image)
    }

    /// Gives the image its name.
    async fn record(
        &self,
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
        let known = self.db.image(name.as_str()).await?;
        if known.is_some_and(|k| k.digest == row.digest && k.source == row.source) {
            return Ok(());
        }
        let data = serde_json::json!({ "name": row.name, "digest": image.digest.to_string() });
        self.db.name_image(row).await?;
        self.events.emit(None, EventKind::Image, data);
        self.named.notify_waiters();
        Ok(())
    }
}

/// Refuses what no image can be called.
fn new_name(name: &ImageName) -> Result<(), ImageError> {
    if name.digest().is_some() || name.as_str().starts_with("sha256:") {
        return Err(ImageError::Name { name: name.clone() });
    }
    Ok(())
}

/// Whether an image that comes from a file of this host is read again.
#[derive(PartialEq, Eq)]
enum Reimport {
    /// Not if the store has it, perhaps from an import that this one waited for.
    IfMissing,
    /// Whatever the store has.
    Always,
}
