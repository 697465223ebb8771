//! `crn-agent image`.

use std::path::Path;

use crn_api_types::{ImageRequest, ImageView, ImportRequest};
use serde::Serialize;

use super::{
    args::ImageCommand,
    exit::{Failure, Status},
    follow,
    out::Out,
    table,
};
use crate::client::{Client, ClientError, segment};

/// Carries out an `image` command.
pub(super) async fn run(client: &Client, out: Out, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::List => list(client, out).await,
        ImageCommand::Pull(one) => {
            let what = format!("pulling {}", one.image);
            let request = ImageRequest { image: one.image };
            follow(client, out, "/v1/images/pull", &request, &what).await
        }
        ImageCommand::Import {
            name,
            from,
            format,
            digest,
        } => {
            let (path, url) = place(&from)?;
            if url.is_some() && digest.is_none() {
                let message = "an image from a URL needs --digest, as its publisher gives it";
                return Err(Failure::new(Status::Usage, message));
            }
            let what = format!("importing {name}");
            let request = ImportRequest {
                name,
                path,
                url,
                format,
                digest,
            };
            follow(client, out, "/v1/images/import", &request, &what).await
        }
        ImageCommand::Verify(one) => {
            let what = format!("verifying {}", one.image);
            let request = ImageRequest { image: one.image };
            follow(client, out, "/v1/images/verify", &request, &what).await
        }
        ImageCommand::Remove(one) => {
            let path = format!("/v1/images/{}", segment(&one.image));
            client.remove(&path).await.map_err(refused)?;
            if out.json {
                return out.value(&serde_json::json!({ "name": one.image, "removed": true }));
            }
            out.text(&format!("{}: removed\n", table::plain(&one.image)))
        }
    }
}

/// What an image is imported from: the absolute path of a file, or a URL.
fn place(from: &Path) -> Result<(Option<String>, Option<String>), Failure> {
    if let Some(url) = from.to_str().filter(|text| is_url(text)) {
        return Ok((None, Some(url.to_owned())));
    }
    Ok((Some(follow::existing(from)?), None))
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

fn refused(e: ClientError) -> Failure {
    let failure = Failure::from(e);
    match failure.status {
        Status::NotFound => failure.or_try("crn-agent image list"),
        _ => failure,
    }
}

async fn follow<B: Serialize>(
    client: &Client,
    out: Out,
    path: &str,
    request: &B,
    what: &str,
) -> Result<(), Failure> {
    let view = follow::follow(client, out, path, request, what).await;
    let view: ImageView = view.map_err(refused)?;
    if out.json {
        return out.value(&view);
    }
    if view.boot_mark == Some(false) {
        let what = "its first sector is not marked as bootable (55 AA)";
        let then = "a guest most likely finds no bootable disk";
        out.note(&format!("note: {what}: {then}"));
    }
    let digest = view.digest.as_deref().unwrap_or_default();
    out.text(&format!("{}: {digest}\n", table::plain(&view.name)))
}

/// Columns of `image list`.
pub(super) const COLUMNS: [(&str, bool); 5] = [
    ("NAME", false),
    ("STATE", true),
    ("SIZE", true),
    ("DISK", true),
    ("USED BY", true),
];

/// Digits of a digest that stand for it in a table, and that other commands take.
const DIGITS: usize = 12;

/// An image's name; a digest cut short.
fn short(name: &str) -> &str {
    let cut = name
        .strip_prefix("sha256:")
        .map(|_| "sha256:".len() + DIGITS);
    cut.and_then(|cut| name.get(..cut)).unwrap_or(name)
}

/// Rows of `image list`.
pub(super) fn rows(views: &[ImageView]) -> Vec<Vec<String>> {
    let size = |n: Option<u64>| n.map(table::bytes).unwrap_or_default();
    let row = |v: &ImageView| {
        let state = if v.stored { "stored" } else { "to be pulled" };
        let state = if v.retired {
            format!("{state}, retired")
        } else {
            state.to_owned()
        };
        let used = if v.instances == 0 {
            String::new()
        } else {
            v.instances.to_string()
        };
        vec![
            short(&v.name).to_owned(),
            state,
            size(v.file_size),
            size(v.virtual_size),
            used,
        ]
    };
    views.iter().map(row).collect()
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let views: Vec<ImageView> = client.get("/v1/images").await?;
    if out.json {
        out.value(&views)
    } else {
        out.table(&COLUMNS, &rows(&views))
    }
}
