//! Errors as JSON, with the HTTP status that fits.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder},
};

use super::CONSOLE_PROTOCOL;
use crate::ops::{ErrorCode, OpError};

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// A stable word for programs.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
}

/// The HTTP status of an error.
#[must_use]
pub fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Invalid => StatusCode::BAD_REQUEST,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::NameTaken | ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        ErrorCode::Internal | ErrorCode::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::ImageSource => StatusCode::BAD_GATEWAY,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::NoCapacity => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct ApiError(pub(super) OpError);

impl<E: Into<OpError>> From<E> for ApiError {
    fn from(e: E) -> Self {
        Self(e.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let OpError { code, message } = self.0;
        if code == ErrorCode::Internal {
            tracing::error!("a request failed: {message}");
        }
        let body = ErrorBody {
            error: ErrorDetail { code, message },
        };
        let mut response = (status_of(code), Json(body)).into_response();
        let headers = response.headers_mut();
        match code {
            // What is left of the body is not read: the connection cannot go on.
            ErrorCode::TooLarge | ErrorCode::RequestTimeout => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            ErrorCode::UpgradeRequired => {
                headers.insert(header::UPGRADE, HeaderValue::from_static(CONSOLE_PROTOCOL));
            }
            _ => {}
        }
        response
    }
}

/// The errors of a route in the API's description.
fn described(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for code in codes {
        let word = serde_json::to_value(code).unwrap_or_default();
        let word = word.as_str().unwrap_or_default();
        words
            .entry(status_of(*code).as_str().to_owned())
            .or_default()
            .push(format!("`{word}`"));
    }
    let content = || {
        ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("ErrorBody")))
            .build()
    };
    words
        .into_iter()
        .map(|(status, words)| {
            let response = ResponseBuilder::new()
                .description(format!("Error {}.", words.join(" or ")))
                .content("application/json", content());
            (status, response.build().into())
        })
        .collect()
}

/// What every route may answer.
const ALWAYS: [ErrorCode; 5] = [
    ErrorCode::Invalid,
    ErrorCode::MethodNotAllowed,
    ErrorCode::Internal,
    ErrorCode::Unavailable,
    ErrorCode::Timeout,
];

macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident: $($code:ident),*) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
                let mut codes = ALWAYS.to_vec();
                codes.extend::<Vec<ErrorCode>>(vec![$(ErrorCode::$code),*]);
                described(&codes)
            }
        }
    };
}

refusals!(
    /// Of routes that list.
    ListRefusals: );
refusals!(
    /// Of routes that show one thing.
    ShowRefusals: NotFound);
refusals!(
    /// Of routes that change one thing, without a body or with an optional one.
    ChangeRefusals: NotFound, Conflict, RequestTimeout, TooLarge, UnsupportedMediaType, NoCapacity);
refusals!(
    /// Of routes that create.
    CreateRefusals: NotFound, NameTaken, Conflict, RequestTimeout, TooLarge,
    UnsupportedMediaType, NoCapacity);
refusals!(
    /// Of routes that take a file of the host.
    ImportRefusals: Forbidden, RequestTimeout, TooLarge, UnsupportedMediaType);
refusals!(
    /// Of routes that end in an upgrade.
    UpgradeRefusals: NotFound, Conflict, UpgradeRequired);
