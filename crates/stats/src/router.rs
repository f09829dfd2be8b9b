use std::{
    collections::BTreeSet,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use admission::Network;
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use protocol::{Address, IslandId};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Shared,
    answers::{HotScene, IslandAnswer, ParcelAnswer, PeerAnswer, hot_scenes, parcels},
    event::{IslandClosed, IslandMoved, IslandOpened, Mark, PeerEvent, PeerMovedIsland},
};

/// How old the answer is, in milliseconds.
const AGE: HeaderName = HeaderName::from_static("atoll-age-ms");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Sites of other origins may read all of it.
const EVERYBODY: [(HeaderName, &str); 2] =
    [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::ACCESS_CONTROL_EXPOSE_HEADERS, "atoll-age-ms")];

pub(crate) fn router(shared: Arc<Shared>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(peers))
        .routes(routes!(peer))
        .routes(routes!(islands))
        .routes(routes!(island))
        .routes(routes!(all_parcels))
        .routes(routes!(core_status))
        .routes(routes!(all_hot_scenes))
        .routes(routes!(events))
        .with_state(shared)
}

fn answer(status: StatusCode, age: Option<Duration>, body: impl Serialize) -> Response {
    let age = age.map(|age| [(AGE, age.as_millis().to_string())]);
    (status, EVERYBODY, age, Json(body)).into_response()
}

/// What was asked cannot be answered.
#[derive(Serialize, ToSchema)]
struct Refusal {
    ok: bool,
    error: String,
}

fn refuse(status: StatusCode, error: String) -> Response {
    answer(status, None, Refusal { ok: false, error })
}

type Pairs = Query<Vec<(String, String)>>;

/// The ids that stand in a query, `?id=…&id=…`, which may be in capitals; empty: all are meant.
fn ids<T>(Query(query): &Pairs) -> Result<BTreeSet<T>, String>
where
    T: FromStr<Err: std::fmt::Display> + Ord,
{
    let ids = query.iter().filter(|(key, _)| key == "id");
    ids.map(|(_, id)| id.to_lowercase().parse().map_err(|error| format!("id {id:?}: {error}"))).collect()
}

#[derive(Serialize, ToSchema)]
struct Peers {
    ok: bool,
    peers: Vec<PeerAnswer>,
}

/// Who is here, and where: all peers, or those that are asked for.
#[utoipa::path(
    get, path = "/peers", tag = "presence",
    params(("id" = Option<Vec<String>>, Query, description = "Addresses, in small letters or capitals; those who are not here are left out")),
    responses(
        (status = 200, body = Peers, headers(("atoll-age-ms" = u64, description = "How old this is"))),
        (status = 400, body = Refusal, description = "An id is no address"),
    ),
)]
async fn peers(State(shared): State<Arc<Shared>>, query: Pairs) -> Response {
    let ids = match ids::<Address>(&query) {
        Ok(ids) => ids,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
    };
    let presence = shared.presence();
    let meant = presence.peers().filter(|(address, _)| ids.is_empty() || ids.contains(address));
    let peers = meant.map(|(address, peer)| PeerAnswer::new(address, peer)).collect();
    answer(StatusCode::OK, presence.peers_age(Instant::now()), Peers { ok: true, peers })
}

#[derive(Serialize, ToSchema)]
struct OnePeer {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<PeerAnswer>,
}

/// One peer.
#[utoipa::path(
    get, path = "/peers/{id}", tag = "presence",
    params(("id" = String, Path, description = "An address")),
    responses(
        (status = 200, body = OnePeer, headers(("atoll-age-ms" = u64, description = "How old this is"))),
        (status = 404, body = OnePeer, description = "It is not here"),
    ),
)]
async fn peer(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let presence = shared.presence();
    let address = id.to_lowercase().parse::<Address>().ok();
    let peer = address.and_then(|address| Some(PeerAnswer::new(address, presence.peer(address)?)));
    let status = if peer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    answer(status, presence.peers_age(Instant::now()), OnePeer { ok: peer.is_some(), peer })
}

#[derive(Serialize, ToSchema)]
struct Islands {
    ok: bool,
    islands: Vec<IslandAnswer>,
}

/// Who is together: all islands, or those that are asked for.
#[utoipa::path(
    get, path = "/islands", tag = "presence",
    params(("id" = Option<Vec<String>>, Query, description = "Ids of islands, in small letters or capitals; those that are not there are left out")),
    responses(
        (status = 200, body = Islands, headers(("atoll-age-ms" = u64, description = "How old this is"))),
        (status = 400, body = Refusal, description = "An id cannot be an island's"),
    ),
)]
async fn islands(State(shared): State<Arc<Shared>>, query: Pairs) -> Response {
    let ids = match ids::<IslandId>(&query) {
        Ok(ids) => ids,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
    };
    let is_meant = |id: &IslandId| {
        ids.is_empty() || id.as_str().to_lowercase().parse().is_ok_and(|id| ids.contains(&id))
    };
    let presence = shared.presence();
    let meant = presence.islands().filter(|(id, _)| is_meant(id));
    let islands = meant.map(|(id, island)| IslandAnswer::new(id, island, &presence, &shared.settings));
    let islands = Islands { ok: true, islands: islands.collect() };
    answer(StatusCode::OK, presence.islands_age(Instant::now()), islands)
}

#[derive(Serialize, ToSchema)]
struct Absent {
    ok: bool,
}

/// One island.
#[utoipa::path(
    get, path = "/islands/{id}", tag = "presence",
    params(("id" = String, Path, description = "The id of an island")),
    responses(
        (status = 200, body = IslandAnswer, headers(("atoll-age-ms" = u64, description = "How old this is"))),
        (status = 404, body = Absent, description = "There is no such island"),
    ),
)]
async fn island(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let presence = shared.presence();
    let age = presence.islands_age(Instant::now());
    match presence.islands().find(|(island, _)| island.as_str() == id) {
        Some((id, island)) => {
            answer(StatusCode::OK, age, IslandAnswer::new(id, island, &presence, &shared.settings))
        }
        None => answer(StatusCode::NOT_FOUND, age, Absent { ok: false }),
    }
}

#[derive(Serialize, ToSchema)]
struct Parcels {
    parcels: Vec<ParcelAnswer>,
}

/// How many peers are on which parcel.
#[utoipa::path(
    get, path = "/parcels", tag = "presence",
    responses((status = 200, body = Parcels, headers(("atoll-age-ms" = u64, description = "How old this is")))),
)]
async fn all_parcels(State(shared): State<Arc<Shared>>) -> Response {
    let presence = shared.presence();
    let parcels = parcels(presence.parcels());
    answer(StatusCode::OK, presence.peers_age(Instant::now()), Parcels { parcels })
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CoreStatus {
    /// Whether a director was heard of.
    healthy: bool,
    user_count: usize,
}

/// Whether a director was heard of, and how many people there are.
#[utoipa::path(
    get, path = "/core-status", tag = "presence",
    responses((status = 200, body = CoreStatus, headers(("atoll-age-ms" = u64, description = "How old this is")))),
)]
async fn core_status(State(shared): State<Arc<Shared>>) -> Response {
    let presence = shared.presence();
    let status = CoreStatus { healthy: presence.has_director(), user_count: presence.peers().count() };
    answer(StatusCode::OK, presence.peers_age(Instant::now()), status)
}

/// The scenes in which people are, most people first.
#[utoipa::path(
    get, path = "/hot-scenes", tag = "presence",
    responses((status = 200, body = Vec<HotScene>, headers(("atoll-age-ms" = u64, description = "How old this is")))),
)]
async fn all_hot_scenes(State(shared): State<Arc<Shared>>) -> Response {
    let (counts, age) = {
        let presence = shared.presence();
        (presence.parcels(), presence.peers_age(Instant::now()))
    };
    let scenes = hot_scenes(counts, &shared.scenes(), &shared.settings);
    answer(StatusCode::OK, age, scenes)
}

/// What the `data:` of an event holds.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "describes what goes out as text")]
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

/// What happens, as it happens: server-sent events, each with an id at which it can be followed on.
///
/// Without an id it begins with `ready`, which tells the present id: whoever reads `/peers` and `/islands`
/// after that and follows misses nothing. After a `reset` they have to be read again. `data:` holds the
/// property of `Data` that has the event's name.
#[utoipa::path(
    get, path = "/events", tag = "presence",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that the reader has; stronger than the query"),
        ("last_event_id" = Option<String>, Query, description = "The same, for those who cannot set headers"),
    ),
    responses(
        (status = 200, body = Data, content_type = "text/event-stream"),
        (status = 503, body = Refusal, description = "Too many readers, or about to stop", headers(("retry-after" = u64, description = "Seconds"))),
    ),
)]
async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    headers: HeaderMap,
    Query(query): Pairs,
) -> Response {
    let from_header = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or_default());
    let from_query = query.iter().find_map(|(key, id)| (key == "last_event_id").then_some(&**id));
    let reader = match shared.feed.read(from_header.or(from_query), network, Instant::now()) {
        Ok(reader) => reader,
        Err(refused) => {
            let refusal = refuse(StatusCode::SERVICE_UNAVAILABLE, refused.to_string());
            return ([(header::RETRY_AFTER, "5")], refusal).into_response();
        }
    };
    let chunks = stream::unfold(reader, async |mut reader| {
        let chunk = reader.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), reader))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Reverse proxies collect what they pass on, unless they are told not to.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (EVERYBODY, headers, Body::from_stream(chunks)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router tells its paths in no other way.
    fn paths(router: &axum::Router) -> BTreeSet<String> {
        let debug = format!("{router:?}");
        debug.split('"').filter(|text| text.starts_with('/')).map(str::to_owned).collect()
    }

    #[test]
    fn every_path_is_described() {
        let (router, api) = router(Arc::new(Shared::of_tests())).split_for_parts();
        let paths: BTreeSet<String> = &paths(&router) - &paths(&axum::Router::new());
        assert!(paths.contains("/peers"), "{router:?}");
        assert_eq!(paths, api.paths.paths.into_keys().collect());
    }
}
