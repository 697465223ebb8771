//! `crn-agent image`.

use crn_api_types::{ImageRequest, ImageView, ImportRequest, Update};
use hyper::Method;
use serde::Serialize;

use super::{
    args::ImageCommand,
    exit::{Failure, Status},
    out::{Meter, Out},
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
            file,
            format,
            digest,
        } => {
            let wrong = |e| Failure::new(Status::Usage, format!("{}: {e}", file.display()));
            // The agent's working directory is not ours.
            let path = std::fs::canonicalize(&file).map_err(wrong)?;
            let path = path.into_os_string().into_string().map_err(|_| {
                Failure::new(Status::Usage, format!("{} is not UTF-8", file.display()))
            })?;
            let what = format!("importing {name}");
            let request = ImportRequest {
                name,
                path,
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
    let mut lines = client
        .lines(Method::POST, path, Some(request))
        .await
        .map_err(refused)?;
    let mut meter = Meter::new(out);
    meter.show(what, None);
    let view = loop {
        match lines.json::<Update<ImageView>>().await? {
            Some(Update::Progress(progress)) => meter.show(what, Some(progress)),
            Some(Update::Done(view)) => break view,
            Some(Update::Error(detail)) => return Err(refused(ClientError::Refused(detail))),
            None => return Err(ClientError::Broken("it ended in the middle".into()).into()),
        }
    };
    drop(meter);
    if out.json {
        return out.value(&view);
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

/// Rows of `image list`.
pub(super) fn rows(views: &[ImageView]) -> Vec<Vec<String>> {
    let size = |n: Option<u64>| n.map(table::bytes).unwrap_or_default();
    let row = |v: &ImageView| {
        let state = if v.stored { "stored" } else { "to be pulled" };
        let used = if v.instances == 0 {
            String::new()
        } else {
            v.instances.to_string()
        };
        vec![
            v.name.clone(),
            state.to_owned(),
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
