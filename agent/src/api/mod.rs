//! The native API: HTTP over a unix socket, thin over [`crate::ops`].
//!
//! Handlers read a request, call one operation and write its answer. Routes and
//! their description are one thing (utoipa): what is not described has no route.
//! docs/api.md tells how to use it; `/openapi.json` is the whole of it.

mod console;
mod error;
mod events;
mod extract;
mod images;
mod instances;
mod listen;
mod node;
mod page;
mod volumes;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::Uri,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use crn_api_types::{ErrorBody, ErrorCode, TransportCode};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use extract::MAX_BODY;
pub use listen::{serve, serve_status};

use crate::node::Node;

/// How long a request may take until its answer begins.
const LIMIT: Duration = Duration::from_secs(60);

/// The upgrade that turns a connection into a console's line.
pub const CONSOLE_PROTOCOL: &str = "crn-console";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "crn-agent",
        description = "The native API of the CRN hypervisor agent, on its unix socket.",
        license(name = "MIT OR Apache-2.0"),
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "instances", description = "Virtual machines."),
        (name = "volumes", description = "Disks that outlive instances."),
        (name = "images", description = "What root disks are layered over."),
        (name = "node", description = "The node itself, and what happens on it."),
    )
)]
struct Head;

fn described() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(instances::list, instances::create))
        .routes(routes!(instances::show, instances::delete))
        .routes(routes!(instances::start))
        .routes(routes!(instances::stop))
        .routes(routes!(instances::restart))
        .routes(routes!(instances::ports, instances::change_ports))
        .routes(routes!(instances::export))
        .routes(routes!(console::log))
        .routes(routes!(console::attach))
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::show, volumes::delete))
        .routes(routes!(volumes::attach))
        .routes(routes!(volumes::detach))
        .routes(routes!(volumes::resize))
        .routes(routes!(volumes::import))
        .routes(routes!(volumes::export))
        .routes(routes!(images::list))
        .routes(routes!(images::pull))
        .routes(routes!(images::import))
        .routes(routes!(images::verify))
        .routes(routes!(images::remove))
        .routes(routes!(events::stream))
        .routes(routes!(node::status))
        .routes(routes!(node::openapi))
        .routes(routes!(page::show))
}

/// The API's description.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = described().split_for_parts().1;
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document
}

/// The description as it is served and checked in: indented JSON.
#[must_use]
pub fn document_text() -> String {
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// All routes.
pub fn router(node: Arc<Node>) -> Router {
    finish(described().split_for_parts().0, node)
}

/// The routes of the status page alone: they show, and change nothing.
pub fn status_router(node: Arc<Node>) -> Router {
    use axum::routing::get;
    let routes = Router::new()
        .route("/", get(page::show))
        .route("/v1/instances", get(instances::list))
        .route("/v1/status", get(node::status))
        .route("/v1/events", get(events::stream))
        .layer(middleware::from_fn(page::local_names_only));
    finish(routes, node)
}

fn finish(routes: Router<Arc<Node>>, node: Arc<Node>) -> Router {
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(within_limit))
        .with_state(node)
}

async fn no_such_path(uri: Uri) -> Response {
    let message = format!("there is no {}", crate::ids::clip(uri.path()));
    error::ApiError::new(ErrorCode::NotFound, message).into_response()
}

async fn no_such_method(request: Request) -> Response {
    let path = crate::ids::clip(request.uri().path());
    let message = format!(
        "{path} does not take {}",
        crate::ids::clip(request.method().as_str())
    );
    error::ApiError::new(TransportCode::MethodNotAllowed, message).into_response()
}

async fn within_limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s", LIMIT.as_secs());
            error::ApiError::new(ErrorCode::Timeout, message).into_response()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
