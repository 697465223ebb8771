//! Errors as JSON, with the HTTP status that fits.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use crn_api_types::{Code, ErrorBody, ErrorCode, ErrorDetail, TransportCode};
use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder},
};

use super::CONSOLE_PROTOCOL;
use crate::ops::OpError;

/// The HTTP status of an error.
#[must_use]
pub fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Operation(code) => match code {
            ErrorCode::Invalid => StatusCode::BAD_REQUEST,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::NameTaken | ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Internal | ErrorCode::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::ImageSource => StatusCode::BAD_GATEWAY,
            ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::NoCapacity => StatusCode::INSUFFICIENT_STORAGE,
        },
        Code::Transport(code) => match code {
            TransportCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            TransportCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            TransportCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            TransportCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            TransportCode::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            TransportCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct ApiError(ErrorDetail);

impl ApiError {
    /// An error of the transport's own, or of an operation.
    pub(super) fn new(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self(ErrorDetail::new(code, message))
    }
}

impl<E: Into<OpError>> From<E> for ApiError {
    fn from(e: E) -> Self {
        Self(e.into().0)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.0.code;
        if code == ErrorCode::Internal {
            tracing::error!("a request failed: {}", self.0.message);
        }
        let body = ErrorBody { error: self.0 };
        let mut response = (status_of(code), Json(body)).into_response();
        let headers = response.headers_mut();
        match code {
            // What is left of the body is not read: the connection cannot go on.
            Code::Transport(TransportCode::TooLarge | TransportCode::RequestTimeout) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Code::Transport(TransportCode::UpgradeRequired) => {
                headers.insert(header::UPGRADE, HeaderValue::from_static(CONSOLE_PROTOCOL));
            }
            _ => {}
        }
        response
    }
}

/// The errors of a route in the API's description.
fn described(codes: &[Code]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
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
const ALWAYS: [Code; 5] = [
    Code::Operation(ErrorCode::Invalid),
    Code::Operation(ErrorCode::Internal),
    Code::Operation(ErrorCode::Timeout),
    Code::Transport(TransportCode::MethodNotAllowed),
    Code::Transport(TransportCode::Unavailable),
];

/// What every route with a body may answer besides.
const WITH_BODY: [Code; 3] = [
    Code::Transport(TransportCode::RequestTimeout),
    Code::Transport(TransportCode::TooLarge),
    Code::Transport(TransportCode::UnsupportedMediaType),
];

const NOTHING: [Code; 0] = [];

macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident: [$($code:ident),*], $also:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
                let mut codes = ALWAYS.to_vec();
                codes.extend::<Vec<Code>>(vec![$(ErrorCode::$code.into()),*]);
                codes.extend($also);
                described(&codes)
            }
        }
    };
}

refusals!(
    /// Of routes that list.
    ListRefusals: [], NOTHING);
refusals!(
    /// Of routes that show one thing.
    ShowRefusals: [NotFound], NOTHING);
refusals!(
    /// Of routes that change one thing, without a body or with an optional one.
    ChangeRefusals: [NotFound, Conflict, NoCapacity], WITH_BODY);
refusals!(
    /// Of routes that create.
    CreateRefusals: [NotFound, NameTaken, Conflict, NoCapacity], WITH_BODY);
refusals!(
    /// Of routes that take a file of the host.
    ImportRefusals: [Forbidden], WITH_BODY);
refusals!(
    /// Of routes that end in an upgrade.
    UpgradeRefusals: [NotFound, Conflict],
    [Code::Transport(TransportCode::UpgradeRequired)]);
