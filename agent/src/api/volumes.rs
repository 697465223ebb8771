//! Routes of volumes.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use crn_api_types::{
    AttachVolume, CreateVolume, ExportRequest, ExportView, ImportVolume, ResizeVolume, Update,
    VolumeView,
};

use super::{
    error::{ApiError, ChangeRefusals, CreateRefusals, ImportRefusals, ListRefusals, ShowRefusals},
    extract::{Asker, Body, Reference},
    images::lines,
};
use crate::{
    node::Node,
    ops::{copies, volumes},
};

/// All volumes, oldest first.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", operation_id = "list_volumes",
    responses((status = 200, body = Vec<VolumeView>), ListRefusals))]
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
) -> Result<Json<Vec<VolumeView>>, ApiError> {
    Ok(Json(volumes::list(&node, &caller).await?))
}

/// Create an empty volume.
#[utoipa::path(post, path = "/v1/volumes", tag = "volumes", operation_id = "create_volume",
    request_body = CreateVolume,
    responses((status = 201, body = VolumeView), CreateRefusals))]
pub(super) async fn create(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Body(request): Body<CreateVolume>,
) -> Result<(StatusCode, Json<VolumeView>), ApiError> {
    Ok((
        StatusCode::CREATED,
        Json(volumes::create(&node, &caller, request).await?),
    ))
}

/// One volume.
#[utoipa::path(get, path = "/v1/volumes/{volume}", tag = "volumes", operation_id = "show_volume",
    params(("volume" = String, Path, description = "Name")),
    responses((status = 200, body = VolumeView), ShowRefusals))]
pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(volume): Reference,
) -> Result<Json<VolumeView>, ApiError> {
    Ok(Json(volumes::get(&node, &caller, &volume).await?))
}

/// Delete a volume and all that is on it. It must not be attached.
#[utoipa::path(delete, path = "/v1/volumes/{volume}", tag = "volumes",
    operation_id = "delete_volume",
    params(("volume" = String, Path, description = "Name")),
    responses((status = 204, description = "Deleted."), ChangeRefusals))]
pub(super) async fn delete(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(volume): Reference,
) -> Result<StatusCode, ApiError> {
    volumes::delete(&node, &caller, &volume).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Attach a volume to an instance, running or not.
#[utoipa::path(post, path = "/v1/volumes/{volume}/attach", tag = "volumes",
    operation_id = "attach_volume",
    params(("volume" = String, Path, description = "Name")),
    request_body = AttachVolume,
    responses((status = 200, body = VolumeView), ChangeRefusals))]
pub(super) async fn attach(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(volume): Reference,
    Body(request): Body<AttachVolume>,
) -> Result<Json<VolumeView>, ApiError> {
    Ok(Json(
        volumes::attach(&node, &caller, &volume, request).await?,
    ))
}

/// Detach a volume. A running guest has to let go of it: with a status of 504 the
/// volume is `detaching`, and detached as soon as the guest does.
#[utoipa::path(post, path = "/v1/volumes/{volume}/detach", tag = "volumes",
    operation_id = "detach_volume",
    params(("volume" = String, Path, description = "Name")),
    responses((status = 200, body = VolumeView), ChangeRefusals))]
pub(super) async fn detach(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(volume): Reference,
) -> Result<Json<VolumeView>, ApiError> {
    Ok(Json(volumes::detach(&node, &caller, &volume).await?))
}

/// Grow a volume. A running guest sees its new size at once.
#[utoipa::path(post, path = "/v1/volumes/{volume}/resize", tag = "volumes",
    operation_id = "resize_volume",
    params(("volume" = String, Path, description = "Name")),
    request_body = ResizeVolume,
    responses((status = 200, body = VolumeView), ChangeRefusals))]
pub(super) async fn resize(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(volume): Reference,
    Body(request): Body<ResizeVolume>,
) -> Result<Json<VolumeView>, ApiError> {
    Ok(Json(
        volumes::resize(&node, &caller, &volume, request).await?,
    ))
}

/// Make a volume of a file of the agent's host. Only root may: the agent reads the file
/// with its own rights.
#[utoipa::path(post, path = "/v1/volumes/import", tag = "volumes",
    operation_id = "import_volume",
    request_body = ImportVolume,
    responses(
        (status = 200, body = Update<VolumeView>, content_type = "application/x-ndjson",
            description = "Progress, one object a line."),
        ImportRefusals))]
pub(super) async fn import(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Body(request): Body<ImportVolume>,
) -> Result<Response, ApiError> {
    Ok(lines(copies::import_volume(&node, &caller, request).await?))
}

/// Copy a volume that is attached to no running instance into a new file of the agent's
/// host. Only root may.
#[utoipa::path(post, path = "/v1/volumes/{volume}/export", tag = "volumes",
    operation_id = "export_volume",
    params(("volume" = String, Path, description = "Name")),
    request_body = ExportRequest,
    responses(
        (status = 200, body = Update<ExportView>, content_type = "application/x-ndjson",
            description = "Progress, one object a line."),
        ChangeRefusals))]
pub(super) async fn export(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(volume): Reference,
    Body(request): Body<ExportRequest>,
) -> Result<Response, ApiError> {
    Ok(lines(
        copies::export_volume(&node, &caller, &volume, request).await?,
    ))
}
