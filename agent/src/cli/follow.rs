//! Long operations as they are followed on the command line, and the files that they are about.

use std::path::Path;

use crn_api_types::{ExportRequest, ExportView, Update};
use hyper::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    exit::{Failure, Status},
    out::{Meter, Out},
    table,
};
use crate::client::{Client, ClientError};

/// Begins a long operation and shows how far it is until its outcome.
pub(super) async fn follow<B: Serialize, T: DeserializeOwned>(
    client: &Client,
    out: Out,
    path: &str,
    request: &B,
    what: &str,
) -> Result<T, ClientError> {
    let mut lines = client.lines(Method::POST, path, Some(request)).await?;
    let mut meter = Meter::new(out);
    meter.show(what, None);
    loop {
        match lines.json::<Update<T>>().await? {
            Some(Update::Progress(progress)) => meter.show(what, Some(progress)),
            Some(Update::Done(view)) => return Ok(view),
            Some(Update::Error(detail)) => return Err(ClientError::Refused(detail)),
            None => return Err(ClientError::Broken("it ended in the middle".into())),
        }
    }
}

/// Copies a disk into a new file, and says so.
pub(super) async fn export(
    client: &Client,
    out: Out,
    path: &str,
    name: &str,
    file: &Path,
    refused: impl FnOnce(ClientError) -> Failure,
) -> Result<(), Failure> {
    let request = ExportRequest {
        path: new_file(file)?,
    };
    let what = format!("exporting {name}");
    let view: ExportView = follow(client, out, path, &request, &what)
        .await
        .map_err(refused)?;
    if out.json {
        return out.value(&view);
    }
    let (file, size) = (table::plain(&view.path), table::bytes(view.file_size));
    out.text(&format!("{}: {file} ({size})\n", table::plain(name)))
}

/// A file that is there, as the agent can find it: its working directory is not ours.
pub(super) fn existing(file: &Path) -> Result<String, Failure> {
    let path = std::fs::canonicalize(file).map_err(|e| wrong(file, &e))?;
    let path = path.into_os_string().into_string();
    path.map_err(|_| wrong(file, &"it is not UTF-8"))
}

/// A file that is not there yet, likewise.
fn new_file(file: &Path) -> Result<String, Failure> {
    let name = file
        .file_name()
        .ok_or_else(|| wrong(file, &"it names no file"))?;
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let dir = std::fs::canonicalize(dir).map_err(|e| wrong(file, &e))?;
    let path = dir.join(name).into_os_string().into_string();
    path.map_err(|_| wrong(file, &"it is not UTF-8"))
}

fn wrong(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Status::Usage, format!("{}: {why}", file.display()))
}
