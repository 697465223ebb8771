//! Operations on images.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use crn_api_types::{ErrorCode, EventKind, ImageView, ImportRequest, Subject, Update};
use disk::{Digest, Expected, Format, PullRequest, Sha256};
use futures::Stream;

use super::{
    Caller, OpError, lookup,
    permission::{Operation, permit},
    progress::updates,
};
use crate::{
    db::{ImageRow, rfc3339},
    fs::blocking,
    images::ImageError,
    node::Node,
    spec::ImageName,
};

fn named(row: ImageRow, instances: u64) -> ImageView {
    ImageView {
        name: row.name,
        stored: true,
        digest: Some(format!("sha256:{}", row.digest)),
        format: Some(row.format),
        virtual_size: Some(row.virtual_size),
        file_size: Some(row.file_size),
        source: row.source,
        boot_mark: None,
        retired: false,
        instances,
        added_at: Some(rfc3339(row.added_at)),
    }
}

/// All images that the caller may use: those in the store, named or not, and those
/// that could be fetched.
///
/// # Errors
/// Those of the database and of the store.
pub async fn list(node: &Arc<Node>, caller: &Caller) -> Result<Vec<ImageView>, OpError> {
    permit(caller, Operation::ListImages, None)?;
    let mut views = all(node).await?;
    if permit(caller, Operation::UseOwnImage, None).is_err() {
        views.retain(|view| is_offered(node, &view.name));
        for view in &mut views {
            view.instances = 0;
            // A path of the host is nobody else's business.
            if view.source.starts_with('/') {
                view.source.clear();
            }
        }
    }
    Ok(views)
}

/// Whether its distribution has given an image up.
fn is_retired(node: &Arc<Node>, name: &str) -> bool {
    let name = name.parse::<ImageName>().ok();
    let entry = name.and_then(|name| node.images.catalogue.get(&name));
    entry.is_some_and(|entry| entry.retired)
}

/// In the catalogue: for whoever may create an instance.
fn is_offered(node: &Arc<Node>, name: &str) -> bool {
    let name = name.parse::<ImageName>();
    name.is_ok_and(|name| node.images.catalogue.get(&name).is_some())
}

/// Refuses an image that is not for this caller, as if there were none.
pub(super) fn may_use(
    node: &Arc<Node>,
    caller: &Caller,
    name: &ImageName,
) -> Result<(), ImageError> {
    let offered = node.images.catalogue.get(name).is_some();
    if offered || permit(caller, Operation::UseOwnImage, None).is_ok() {
        return Ok(());
    }
    Err(ImageError::Unknown { name: name.clone() })
}

async fn all(node: &Arc<Node>) -> Result<Vec<ImageView>, OpError> {
    let users = node.db.image_users().await?;
    let used = |digest: &str| users.get(digest).copied().unwrap_or_default();
    let store = node.images.store.clone();
    let present = blocking(move || store.list().map_err(OpError::from)).await?;
    let mut nameless: BTreeMap<_, _> = present.into_iter().map(|d| (d.hex(), d)).collect();
    let mut views = BTreeMap::new();
    for row in node.db.images().await? {
        let stored = nameless.contains_key(&row.digest) || views_have(&views, &row.digest);
        nameless.remove(&row.digest);
        let instances = used(&row.digest);
        let view = ImageView {
            stored,
            ..named(row, instances)
        };
        views.insert(view.name.clone(), view);
    }
    for entry in node.images.catalogue.entries() {
        let name = entry.name.to_string();
        views
            .entry(name.clone())
            .or_insert_with(|| fetchable(name, entry.source()));
    }
    let mut views: Vec<_> = views.into_values().collect();
    for view in &mut views {
        view.retired = is_retired(node, &view.name);
    }
    for (hex, digest) in nameless {
        let store = node.images.store.clone();
        let image = blocking(move || store.get(&digest.into()).map_err(OpError::from)).await;
        let info = image.ok().flatten().map(|image| image.info);
        views.push(unnamed(&digest, info, used(&hex)));
    }
    Ok(views)
}

/// An image of the store without a name.
fn unnamed(digest: &Sha256, info: Option<disk::ImageInfo>, instances: u64) -> ImageView {
    ImageView {
        stored: true,
        digest: Some(digest.to_string()),
        format: info.as_ref().map(|i| i.format.to_string()),
        virtual_size: info.as_ref().map(|i| i.virtual_size.bytes()),
        file_size: info.as_ref().map(|i| i.file_size.bytes()),
        boot_mark: info.and_then(|i| i.boot_mark),
        instances,
        ..fetchable(digest.to_string(), String::new())
    }
}

/// Two names may share a content.
fn views_have(views: &BTreeMap<String, ImageView>, digest: &str) -> bool {
    views.values().any(|v| {
        v.stored && v.digest.as_deref().and_then(|d| d.strip_prefix("sha256:")) == Some(digest)
    })
}

fn fetchable(name: String, source: String) -> ImageView {
    ImageView {
        name,
        stored: false,
        digest: None,
        format: None,
        virtual_size: None,
        file_size: None,
        source,
        boot_mark: None,
        retired: false,
        instances: 0,
        added_at: None,
    }
}

async fn view(node: &Arc<Node>, name: &ImageName) -> Result<ImageView, OpError> {
    let stored = node.images.stored(name).await?;
    let users = node.db.image_users().await?;
    let used = |digest: &str| users.get(digest).copied().unwrap_or_default();
    if let Some(row) = node.db.image(name.as_str()).await? {
        let instances = used(&row.digest);
        return Ok(ImageView {
            stored: stored.is_some(),
            boot_mark: stored.and_then(|image| image.info.boot_mark),
            retired: is_retired(node, name.as_str()),
            ..named(row, instances)
        });
    }
    match (stored, node.images.catalogue.get(name)) {
        (Some(image), _) => {
            let instances = used(&image.digest.hex());
            Ok(unnamed(&image.digest, Some(image.info), instances))
        }
        (None, Some(entry)) => Ok(ImageView {
            retired: entry.retired,
            ..fetchable(name.to_string(), entry.source())
        }),
        (None, None) => Err(ImageError::Unknown { name: name.clone() }.into()),
    }
}

/// Fetches what is published under a name now.
///
/// # Errors
/// Before it begins: a name that means nothing. In the stream: all others.
pub async fn pull(
    node: &Arc<Node>,
    caller: &Caller,
    name: &str,
) -> Result<impl Stream<Item = Update<ImageView>> + Send + use<>, OpError> {
    permit(caller, Operation::PullImage, None)?;
    let name: ImageName = name.parse()?;
    if !node.images.is_known(&name).await? {
        return Err(ImageError::Unknown { name }.into());
    }
    let node = node.clone();
    Ok(updates(move |reporter| async move {
        node.images.pull(&name, move |p| reporter.report(p)).await?;
        view(&node, &name).await
    }))
}

/// Where an image is imported from.
enum Source {
    File(PathBuf),
    Url { url: String, expected: Expected },
}

impl Source {
    fn of(request: &ImportRequest, digest: Option<Digest>) -> Result<Self, OpError> {
        match (&request.path, &request.url, digest) {
            (Some(path), None, _) => {
                if !path.starts_with('/') || path.contains('\0') {
                    return Err(OpError::invalid("path must be absolute"));
                }
                Ok(Source::File(path.into()))
            }
            (None, Some(url), Some(digest)) => Ok(Source::Url {
                url: url.clone(),
                expected: Expected::Digest(digest),
            }),
            (None, Some(_), None) => Err(OpError::invalid(
                "an image from a URL needs its digest: nothing else tells that it is the right one",
            )),
            (..) => Err(OpError::invalid("exactly one of path and url is needed")),
        }
    }
}

/// Takes a file of this host, or what a URL delivers under its digest, into the store.
///
/// # Errors
/// Before it begins: what is wrong with the request. In the stream: with the image.
pub async fn import(
    node: &Arc<Node>,
    caller: &Caller,
    request: ImportRequest,
) -> Result<impl Stream<Item = Update<ImageView>> + Send + use<>, OpError> {
    // A URL is read with no more rights than `pull` has.
    let operation = match (&request.path, &request.url) {
        (None, Some(_)) => Operation::PullImage,
        _ => Operation::ImportImage,
    };
    permit(caller, operation, None)?;
    let name: ImageName = request.name.parse()?;
    let digest = request.digest.as_ref().map(|d| d.parse::<Digest>());
    let digest = digest
        .transpose()
        .map_err(|e| OpError::invalid(e.to_string()))?;
    let source = Source::of(&request, digest)?;
    let format = request.format.map(|f| f.parse::<Format>()).transpose();
    let format = format.map_err(|e| OpError::invalid(e.to_string()))?;
    let node = node.clone();
    Ok(updates(move |reporter| async move {
        let tell = move |p| reporter.report(p);
        let images = &node.images;
        match source {
            Source::File(path) => images.import(&name, &path, format, digest, tell).await?,
            Source::Url { url, expected } => {
                let request = PullRequest {
                    url,
                    expected,
                    format,
                };
                images.import_url(&name, &request, tell).await?
            }
        };
        view(&node, &name).await
    }))
}

/// Fewest digits that an image can be named by.
const FEWEST_DIGITS: usize = 6;

/// What a caller means: a name, a digest, or the first digits of one in the store.
async fn meant(node: &Arc<Node>, text: &str) -> Result<ImageName, OpError> {
    let name: ImageName = text.parse()?;
    let digits = name.as_str().strip_prefix("sha256:");
    let Some(digits) = digits.filter(|digits| (FEWEST_DIGITS..64).contains(&digits.len())) else {
        return Ok(name);
    };
    let store = node.images.store.clone();
    let all = blocking(move || store.list().map_err(OpError::from)).await?;
    let mut found = all.iter().filter(|d| d.hex().starts_with(digits));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.to_string().parse()?),
        (Some(_), Some(_)) => Err(OpError::conflict(format!("{name}: several images have it"))),
        (None, _) => Ok(name),
    }
}

/// Hashes an image again.
///
/// # Errors
/// Before it begins: an image that is not in the store. In the stream:
/// [`ErrorCode::Damaged`].
pub async fn verify(
    node: &Arc<Node>,
    caller: &Caller,
    name: &str,
) -> Result<impl Stream<Item = Update<ImageView>> + Send + use<>, OpError> {
    permit(caller, Operation::VerifyImage, None)?;
    let name = meant(node, name).await?;
    let digest = recorded_digest(node, &name).await?;
    let node = node.clone();
    Ok(updates(move |reporter| async move {
        let store = node.images.store.clone();
        blocking(move || {
            store
                .verify(&digest, move |p| reporter.report(p))
                .map_err(OpError::from)
        })
        .await?;
        view(&node, &name).await
    }))
}

/// The digest that a name has, whatever state the file is in.
async fn recorded_digest(node: &Arc<Node>, name: &ImageName) -> Result<Sha256, OpError> {
    let recorded = match name.digest() {
        Some(hex) => Some(hex.to_owned()),
        None => node.db.image(name.as_str()).await?.map(|row| row.digest),
    };
    let Some(hex) = recorded else {
        let message = format!("image {name} is not in the store");
        return Err(OpError::new(ErrorCode::NotFound, message).about(Subject::Image));
    };
    Sha256::from_hex(&hex).map_err(|e| OpError::internal(e.to_string()))
}

/// Takes an image's name away, and its content with the last name. Named by
/// digest, it loses all its names.
///
/// # Errors
/// [`ErrorCode::Conflict`] while an instance is layered over it or about to be.
pub async fn remove(node: &Arc<Node>, caller: &Caller, name: &str) -> Result<(), OpError> {
    permit(caller, Operation::RemoveImage, None)?;
    lookup::make_room(node, Operation::RemoveImage).await;
    let name = meant(node, name).await?;
    let node = node.clone();
    super::detached(async move {
        let digest = recorded_digest(&node, &name).await?;
        let hex = digest.hex();
        let names: Vec<String> = match name.digest() {
            None => vec![name.to_string()],
            Some(_) => {
                let rows = node.db.images().await?;
                rows.into_iter()
                    .filter(|r| r.digest == hex)
                    .map(|r| r.name)
                    .collect()
            }
        };
        // One that is being prepared needs what its image's name means, though the
        // digest may not be recorded yet.
        if let Some(user) = node.db.image_user(&hex, &names).await? {
            let message = format!("instance {user} is layered over the image");
            return Err(OpError::conflict(message));
        }
        let mut unused = names.is_empty();
        for name in names {
            unused |= node.db.forget_image(&name).await?.is_some();
        }
        if unused {
            let store = node.images.store.clone();
            let removed = blocking(move || store.remove(&digest).map_err(OpError::from)).await?;
            if name.digest().is_some() && !removed {
                let message = format!("image {name} is not in the store");
                return Err(OpError::new(ErrorCode::NotFound, message).about(Subject::Image));
            }
        }
        let data = serde_json::json!({ "name": name.as_str(), "digest": digest.to_string() });
        node.events.emit(None, EventKind::ImageRemoved, data);
        Ok(())
    })
    .await
}
