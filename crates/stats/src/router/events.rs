//! `/events`: the live feed as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Instant};

use admission::Network;
use axum::{
    Extension,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use utoipa::ToSchema;

use super::query::QueryPairs;
use crate::{
    event::{IslandClosed, IslandMoved, IslandOpened, Mark, PeerEvent, PeerMovedIsland},
    response::{Refusal, error_response},
    shared::Shared,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The content of `data:` of an event: the property with the event's name.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes events that are sent as text")]
enum Data {
    Ready(Mark),
    Reset(Mark),
    Join(PeerEvent),
    Leave(PeerEvent),
    PeerMovedIsland(PeerMovedIsland),
    IslandOpened(IslandOpened),
    IslandClosed(IslandClosed),
    IslandMoved(IslandMoved),
}

/// Changes of peers and islands as server-sent events. Each event has an id from which a client can resume.
///
/// Without an id, the feed begins with `ready`, which has the current id. A client that then reads `/peers`
/// and `/islands` and follows the feed misses no change. After a `reset`, the client must read both again.
/// `data:` has the property of `Data` with the event's name.
#[utoipa::path(
    get, path = "/events", tag = "presence",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that the client has received; takes precedence over the query"),
        ("last_event_id" = Option<String>, Query, description = "The same, for clients that cannot set headers"),
    ),
    responses(
        (status = 200, body = Data, content_type = "text/event-stream"),
        (status = 503, body = Refusal, description = "There are too many readers, or the server is about to stop", headers(("retry-after" = u64, description = "Seconds"))),
    ),
)]
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    headers: HeaderMap,
    Query(query): QueryPairs,
) -> Response {
    let from_header = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or_default());
    let from_query = query.iter().find_map(|(key, id)| (key == "last_event_id").then_some(&**id));
    let reader = match shared.feed.read(from_header.or(from_query), network, Instant::now()) {
        Ok(reader) => reader,
        Err(refused) => {
            let refusal = error_response(StatusCode::SERVICE_UNAVAILABLE, refused.to_string());
            return ([(header::RETRY_AFTER, "5")], refusal).into_response();
        }
    };
    let chunks = stream::unfold(reader, async |mut reader| {
        let chunk = reader.next().await?;
        Some((Ok::<_, Infallible>(chunk), reader))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Reverse proxies such as nginx buffer responses unless this header disables it.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}
