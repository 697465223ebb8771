//! The event stream.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use crn_api_types::Event;
use futures::StreamExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    error::{ApiError, ShowRefusals},
    extract::{Asker, Params},
};
use crate::{
    node::Node,
    ops::{
        OpError,
        events::{self, Query},
    },
};

/// A comment is sent when nothing else was for so long, so that a dead
/// connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventParams {
    /// Events after this number; from now on unless given.
    after: Option<i64>,
    /// The last so many events first.
    last: Option<u32>,
    /// Of this instance only: name or id.
    instance: Option<String>,
    /// Stay and wait for more (the default), or end with the last one.
    follow: Option<bool>,
}

/// What happens, as server-sent events: `id` is the event's number, `data` an
/// `Event`. Last-Event-ID resumes without a gap, as far back as events are kept
/// (the operator's last 10,000, each tenant's last 1,000), and goes before `after` and
/// `last`.
#[utoipa::path(get, path = "/v1/events", tag = "node", operation_id = "events",
    params(EventParams,
        ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event seen")),
    responses(
        (status = 200, body = Event, content_type = "text/event-stream"),
        ShowRefusals))]
pub(super) async fn stream(
    State(node): State<Arc<Node>>,
    Asker(caller): Asker,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let resume = match headers.get("last-event-id") {
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|v| v.parse::<i64>().ok())
                .ok_or_else(|| OpError::invalid("Last-Event-ID is not a number"))?,
        ),
        None => None,
    };
    let query = Query {
        after: resume.or(params.after),
        last: params.last.filter(|_| resume.is_none()),
        instance: params.instance,
        follow: params.follow.unwrap_or(true),
    };
    let events = events::stream(&node, &caller, query).await?.map(|event| {
        let event = event.map_err(std::io::Error::other)?;
        let id = event.seq.to_string();
        sse::Event::default()
            .id(id)
            .json_data(event)
            .map_err(std::io::Error::other)
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}
