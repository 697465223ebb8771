//! Routes of an instance's console.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use crn_api_types::TransportCode;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    CONSOLE_PROTOCOL,
    error::{ApiError, ShowRefusals, UpgradeRefusals},
    extract::{Asker, Params, Reference},
};
use crate::{
    node::Node,
    ops::console::{self, LogQuery},
};

/// Which part of the log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogParams {
    /// The last so many bytes; all of it unless given.
    tail: Option<u64>,
    /// Stay and wait for more.
    follow: Option<bool>,
}

/// What the guest wrote to its serial console: bytes, as they are.
#[utoipa::path(get, path = "/v1/instances/{instance}/console", tag = "instances",
    operation_id = "console_log",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id"),
        LogParams),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        ShowRefusals))]
pub(super) async fn log(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
    Params(params): Params<LogParams>,
) -> Result<Response, ApiError> {
    let query = LogQuery {
        tail: params.tail,
        follow: params.follow.unwrap_or(false),
    };
    let bytes = console::log(&node, &caller, &instance, query).await?;
    let kind = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((kind, Body::from_stream(bytes)).into_response())
}

/// Become the line of the guest's serial console. Ask with `Connection: Upgrade`
/// and `Upgrade: crn-console`; after the answer 101 the connection carries the
/// console's bytes both ways. One at a time.
#[utoipa::path(get, path = "/v1/instances/{instance}/console/attach", tag = "instances",
    operation_id = "attach_console",
    params(("instance" = String, Path, description = "Name, id, or the first digits of the id"),
        ("Upgrade" = String, Header, description = "`crn-console`")),
    responses((status = 101, description = "The connection is the console now."),
        UpgradeRefusals))]
pub(super) async fn attach(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Reference(instance): Reference,
    mut request: Request,
) -> Result<Response, ApiError> {
    let asked = request
        .headers()
        .get(header::UPGRADE)
        .and_then(|v| v.to_str().ok());
    if !asked.is_some_and(|v| v.eq_ignore_ascii_case(CONSOLE_PROTOCOL)) {
        let message = format!("this path is for connections with Upgrade: {CONSOLE_PROTOCOL}");
        return Err(ApiError::new(TransportCode::UpgradeRequired, message));
    }
    let console = console::attach(&node, &caller, &instance).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // The whole of it, not the line alone: it is ours until this ends.
        let mut console = console;
        match upgrade.await {
            Ok(connection) => {
                let mut caller = TokioIo::new(connection);
                // Either end may go away at any time: that is how it ends.
                let _ = tokio::io::copy_bidirectional(&mut caller, &mut console.line).await;
            }
            Err(e) => tracing::debug!("a console was asked for and not taken: {e}"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(CONSOLE_PROTOCOL));
    Ok(response)
}
