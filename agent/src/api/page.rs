//! The status page: one HTML file without requests to anywhere else.

use axum::{
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crn_api_types::ErrorCode;

use super::error::{ApiError, ListRefusals};
use crate::ops::OpError;

const PAGE: &str = include_str!("status.html");
/// Stands in the page for what proves to the browser that the script is ours.
const NONCE: &str = "{{nonce}}";

/// A page for people: instances, their phases, and what happens.
#[utoipa::path(get, path = "/", tag = "node", operation_id = "page",
    responses((status = 200, body = String, content_type = "text/html"), ListRefusals))]
pub(super) async fn show() -> Result<Response, ApiError> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| OpError::internal(e.to_string()))?;
    let nonce = hex::encode(bytes);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).map_err(|e| OpError::internal(e.to_string()))?;
    let mut response = PAGE.replace(NONCE, &nonce).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Refuses requests under names that are not this machine's own: a page from
/// elsewhere whose name was pointed here must not read what a browser can reach.
pub(super) async fn local_names_only(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|v| v.to_str().ok());
    if host.is_some_and(is_local) {
        return next.run(request).await;
    }
    let message = "this page answers only under localhost, 127.0.0.1 or [::1]";
    ApiError::new(ErrorCode::Forbidden, message).into_response()
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(host, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_are_local() {
        for good in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:4021",
            "127.8.8.8",
            "[::1]:4021",
        ] {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "localhost.example.org",
            "10.0.0.1",
            "[2001:db8::1]:80",
            "[x",
        ] {
            assert!(!is_local(bad), "{bad}");
        }
    }

    #[test]
    fn the_page_asks_nobody_else() {
        for foreign in ["http://", "https://", "//cdn", "src=", "href="] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
        assert_eq!(PAGE.matches(NONCE).count(), 2);
        assert!(!PAGE.contains("innerHTML"));
    }
}
