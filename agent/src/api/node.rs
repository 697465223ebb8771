//! Routes of the node itself.

use std::sync::{Arc, LazyLock};

use axum::{Json, extract::State, http::header, response::IntoResponse};
use crn_api_types::NodeStatus;

use super::{
    error::{ApiError, ListRefusals},
    extract::Asker,
};
use crate::{node::Node, ops::status};

/// The node at a glance.
#[utoipa::path(get, path = "/v1/status", tag = "node", operation_id = "status",
    responses((status = 200, body = NodeStatus), ListRefusals))]
pub(super) async fn status(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
) -> Result<Json<NodeStatus>, ApiError> {
    Ok(Json(status::get(&node, &caller).await?))
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "node", operation_id = "openapi",
    responses((status = 200, body = Object, content_type = "application/json"), ListRefusals))]
pub(super) async fn openapi() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(super::document_text);
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}
