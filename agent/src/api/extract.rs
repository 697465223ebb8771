//! What handlers read of a request, with errors as JSON.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use crn_api_types::TransportCode;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::{
    ids::clip,
    ops::{Caller, OpError},
};

/// Largest body, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// Longest explanation of what is wrong with a body, in characters.
const MAX_REASON: usize = 300;

/// A JSON body. Unknown fields are the type's business: all of ours refuse them.
pub(super) struct Body<T>(pub(super) T);

/// A JSON body that may be absent.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let json = is_json(request.headers());
        let bytes = read(request).await?;
        if !json {
            return Err(not_json());
        }
        Ok(Self(parse(&bytes)?))
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let json = is_json(request.headers());
        let bytes = read(request).await?;
        match (bytes.is_empty(), json) {
            (true, _) => Ok(Self(T::default())),
            (false, true) => Ok(Self(parse(&bytes)?)),
            (false, false) => Err(not_json()),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let essence = value
        .and_then(|v| v.split(';').next())
        .unwrap_or_default()
        .trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn not_json() -> ApiError {
    let message = "the body must be announced with Content-Type: application/json";
    ApiError::new(TransportCode::UnsupportedMediaType, message)
}

async fn read(request: Request) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("a request's body has at most {MAX_BODY} bytes");
        ApiError::new(TransportCode::TooLarge, message)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > MAX_BODY as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), MAX_BODY);
    match tokio::time::timeout(BODY_LIMIT, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes().into()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => Err(ApiError::from(OpError::invalid(format!(
            "the body did not arrive: {e}"
        )))),
        Err(_) => {
            let message = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
            Err(ApiError::new(TransportCode::RequestTimeout, message))
        }
    }
}

/// Reads JSON; what is wrong with it is said in a sentence of bounded length.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, OpError> {
    serde_json::from_slice(bytes).map_err(|e| {
        let reason: String = e.to_string().chars().take(MAX_REASON).collect();
        OpError::invalid(format!("the body is not what is expected here: {reason}"))
    })
}

/// The query, with unknown keys refused by its type.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(e) => {
                let reason: String = e.body_text().chars().take(MAX_REASON).collect();
                Err(ApiError::from(OpError::invalid(reason)))
            }
        }
    }
}

/// Who asks, as the connection tells. A request without a connection is nobody's.
pub(super) struct Asker(pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>().cloned();
        Ok(Self(caller.unwrap_or(Caller::Nobody)))
    }
}

/// The one variable part of a path.
pub(super) struct Reference(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Reference {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(reference) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::from(OpError::invalid(clip(&e.body_text()))))?;
        if reference.is_empty() || reference.len() > 256 || reference.chars().any(char::is_control)
        {
            let message = format!("{:?} names nothing", clip(&reference));
            return Err(ApiError::from(OpError::invalid(message)));
        }
        Ok(Self(reference))
    }
}
