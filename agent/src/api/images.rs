//! Routes of images. What takes long answers 200 at once and then tells its
//! progress, one JSON object a line; the last line is `done` or `error`.

use std::sync::Arc;

use axum::{
    Json,
    body::{Body as HttpBody, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use crn_api_types::{ImageRequest, ImageView, ImportRequest, Update};
use futures::{Stream, StreamExt};
use serde::Serialize;

use super::{
    error::{ApiError, ChangeRefusals, ImportRefusals, ListRefusals},
    extract::{Asker, Body, Reference},
};
use crate::{node::Node, ops::images};

/// Progress and outcome, one JSON object a line.
pub(super) fn lines<T: Serialize + Send + 'static>(
    updates: impl Stream<Item = Update<T>> + Send + 'static,
) -> Response {
    let lines = updates.map(|update| {
        let mut line = serde_json::to_vec(&update)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, HttpBody::from_stream(lines)).into_response()
}

/// All images: in the store, or in the catalogue to be fetched.
#[utoipa::path(get, path = "/v1/images", tag = "images", operation_id = "list_images",
    responses((status = 200, body = Vec<ImageView>), ListRefusals))]
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
) -> Result<Json<Vec<ImageView>>, ApiError> {
    Ok(Json(images::list(&node, &caller).await?))
}

/// Fetch what is published under a name now.
#[utoipa::path(post, path = "/v1/images/pull", tag = "images", operation_id = "pull_image",
    request_body = ImageRequest,
    responses(
        (status = 200, body = Update<ImageView>, content_type = "application/x-ndjson",
            description = "Progress, one object a line."),
        ChangeRefusals))]
pub(super) async fn pull(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Body(request): Body<ImageRequest>,
) -> Result<Response, ApiError> {
    Ok(lines(images::pull(&node, &caller, &request.image).await?))
}

/// Take a file of the agent's host, or what a URL delivers under its digest, into the
/// store. Only root may import a file: the agent reads it with its own rights.
#[utoipa::path(post, path = "/v1/images/import", tag = "images", operation_id = "import_image",
    request_body = ImportRequest,
    responses(
        (status = 200, body = Update<ImageView>, content_type = "application/x-ndjson",
            description = "Progress, one object a line."),
        ImportRefusals))]
pub(super) async fn import(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Body(request): Body<ImportRequest>,
) -> Result<Response, ApiError> {
    Ok(lines(images::import(&node, &caller, request).await?))
}

/// Hash an image again and compare.
#[utoipa::path(post, path = "/v1/images/verify", tag = "images", operation_id = "verify_image",
    request_body = ImageRequest,
    responses(
        (status = 200, body = Update<ImageView>, content_type = "application/x-ndjson",
            description = "Progress, one object a line."),
        ChangeRefusals))]
pub(super) async fn verify(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Body(request): Body<ImageRequest>,
) -> Result<Response, ApiError> {
    Ok(lines(images::verify(&node, &caller, &request.image).await?))
}

/// Take an image's name away, and its content with the last name. Refused while
/// an instance is layered over it.
#[utoipa::path(delete, path = "/v1/images/{image}", tag = "images", operation_id = "remove_image",
    params(("image" = String, Path, description = "Name, or `sha256:` and 64 digits")),
    responses((status = 204, description = "Removed."), ChangeRefusals))]
pub(super) async fn remove(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(image): Reference,
) -> Result<StatusCode, ApiError> {
    images::remove(&node, &caller, &image).await?;
    Ok(StatusCode::NO_CONTENT)
}
