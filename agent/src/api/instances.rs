//! Routes of instances.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use crn_api_types::{
    CreateRequest, ExportRequest, ExportView, InstanceView, PortChange, Ports, StopOptions, Update,
};

use super::{
    error::{ApiError, ChangeRefusals, CreateRefusals, ListRefusals, ShowRefusals},
    extract::{Asker, Body, OptionalBody, Reference},
    images::lines,
};
use crate::{
    node::Node,
    ops::{OpError, copies, instances, ports},
};

/// All instances, oldest first.
#[utoipa::path(get, path = "/v1/instances", tag = "instances", operation_id = "list_instances",
    responses((status = 200, body = Vec<InstanceView>), ListRefusals))]
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
) -> Result<Json<Vec<InstanceView>>, ApiError> {
    Ok(Json(instances::list(&node, &caller).await?))
}

/// Create an instance. It is prepared and started after the answer: watch its
/// phase. With an Idempotency-Key the same request can be sent again: it answers
/// 200 with the instance that the first one created.
#[utoipa::path(post, path = "/v1/instances", tag = "instances", operation_id = "create_instance",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "1 to 200 visible ASCII characters")),
    request_body = CreateRequest,
    responses(
        (status = 201, body = InstanceView, description = "Created; Location has its path."),
        (status = 200, body = InstanceView, description = "This key created it before."),
        CreateRefusals))]
pub(super) async fn create(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    headers: HeaderMap,
    Body(request): Body<CreateRequest>,
) -> Result<Response, ApiError> {
    let key = headers
        .get("idempotency-key")
        .map(|v| v.to_str())
        .transpose();
    let key = key.map_err(|_| OpError::invalid("Idempotency-Key is not visible ASCII"))?;
    let (view, new) = instances::create(&node, &caller, request, key).await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = format!("/v1/instances/{}", view.id);
    Ok((status, [(header::LOCATION, location)], Json(view)).into_response())
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{instance}", tag = "instances",
    operation_id = "show_instance",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    responses((status = 200, body = InstanceView), ShowRefusals))]
pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
) -> Result<Json<InstanceView>, ApiError> {
    Ok(Json(instances::get(&node, &caller, &instance).await?))
}

/// Delete an instance and its root disk. Volumes are detached and kept. It is
/// gone when it is no longer found.
#[utoipa::path(delete, path = "/v1/instances/{instance}", tag = "instances",
    operation_id = "delete_instance",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    request_body(content = Option<StopOptions>),
    responses((status = 202, body = InstanceView), ChangeRefusals))]
pub(super) async fn delete(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
    OptionalBody(options): OptionalBody<StopOptions>,
) -> Result<(StatusCode, Json<InstanceView>), ApiError> {
    let view = instances::delete(&node, &caller, &instance, options).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// Start an instance. One that failed is tried again.
#[utoipa::path(post, path = "/v1/instances/{instance}/start", tag = "instances",
    operation_id = "start_instance",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    responses((status = 202, body = InstanceView), ChangeRefusals))]
pub(super) async fn start(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
) -> Result<(StatusCode, Json<InstanceView>), ApiError> {
    Ok((
        StatusCode::ACCEPTED,
        Json(instances::start(&node, &caller, &instance).await?),
    ))
}

/// Stop an instance: power button, then QMP quit, then SIGKILL, each with its
/// own time limit.
#[utoipa::path(post, path = "/v1/instances/{instance}/stop", tag = "instances",
    operation_id = "stop_instance",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    request_body(content = Option<StopOptions>),
    responses((status = 202, body = InstanceView), ChangeRefusals))]
pub(super) async fn stop(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
    OptionalBody(options): OptionalBody<StopOptions>,
) -> Result<(StatusCode, Json<InstanceView>), ApiError> {
    Ok((
        StatusCode::ACCEPTED,
        Json(instances::stop(&node, &caller, &instance, options).await?),
    ))
}

/// Stop an instance and start it again.
#[utoipa::path(post, path = "/v1/instances/{instance}/restart", tag = "instances",
    operation_id = "restart_instance",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    request_body(content = Option<StopOptions>),
    responses((status = 202, body = InstanceView), ChangeRefusals))]
pub(super) async fn restart(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
    OptionalBody(options): OptionalBody<StopOptions>,
) -> Result<(StatusCode, Json<InstanceView>), ApiError> {
    Ok((
        StatusCode::ACCEPTED,
        Json(instances::restart(&node, &caller, &instance, options).await?),
    ))
}

/// The open ports.
#[utoipa::path(get, path = "/v1/instances/{instance}/ports", tag = "instances",
    operation_id = "show_ports",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    responses((status = 200, body = Ports), ShowRefusals))]
pub(super) async fn ports(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
) -> Result<Json<Ports>, ApiError> {
    Ok(Json(ports::show(&node, &caller, &instance).await?))
}

/// Open and close ports. Established connections stay.
#[utoipa::path(patch, path = "/v1/instances/{instance}/ports", tag = "instances",
    operation_id = "change_ports",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    request_body = PortChange,
    responses((status = 200, body = Ports), ChangeRefusals))]
pub(super) async fn change_ports(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
    Body(change): Body<PortChange>,
) -> Result<Json<Ports>, ApiError> {
    Ok(Json(
        ports::change(&node, &caller, &instance, change).await?,
    ))
}

/// Copy the root disk of a stopped instance into a new file of the agent's host. Only root
/// may.
#[utoipa::path(post, path = "/v1/instances/{instance}/export", tag = "instances",
    operation_id = "export_instance",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id")),
    request_body = ExportRequest,
    responses(
        (status = 200, body = Update<ExportView>, content_type = "application/x-ndjson",
            description = "Progress, one object a line."),
        ChangeRefusals))]
pub(super) async fn export(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
    Body(request): Body<ExportRequest>,
) -> Result<Response, ApiError> {
    Ok(lines(
        copies::export_instance(&node, &caller, &instance, request).await?,
    ))
}
