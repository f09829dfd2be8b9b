//! The HTTP endpoints, with their OpenAPI description.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::Arc,
    time::Instant,
};

use admission::Network;
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use protocol::{Address, IslandId, Parcel};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Shared, access,
    answers::{HotScene, IslandAnswer, ParcelAnswer, PeerAnswer, count_by_parcel, hot_scenes, parcels},
    cached::{Answer, Draft, List, Version},
    event::{IslandClosed, IslandMoved, IslandOpened, Mark, PeerEvent, PeerMovedIsland},
    presence::{IslandCopy, Peer},
};

/// The header with the age of the response's data, in milliseconds.
pub const AGE: HeaderName = HeaderName::from_static("atoll-age-ms");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The limit of ids in a query.
const MAX_IDS: usize = 1_000;

pub(crate) fn router(shared: Arc<Shared>) -> OpenApiRouter {
    let restricted = OpenApiRouter::new()
        .routes(routes!(peers))
        .routes(routes!(peer))
        .routes(routes!(islands))
        .routes(routes!(island))
        .routes(routes!(all_parcels))
        .routes(routes!(events))
        .route_layer(middleware::from_fn_with_state(shared.clone(), access::authorize));
    // These endpoints count peers and name none, so they need no access token.
    let public = OpenApiRouter::new().routes(routes!(core_status)).routes(routes!(all_hot_scenes));
    restricted.merge(public).with_state(shared)
}

fn json_response(status: StatusCode, updated_at: Option<Instant>, body: impl Serialize) -> Response {
    (status, with_age(updated_at, Json(body))).into_response()
}

/// Adds the age of the data, which came from the bus at `updated_at`.
fn with_age(updated_at: Option<Instant>, answer: impl IntoResponse) -> Response {
    let age = updated_at.map(|updated_at| [(AGE, updated_at.elapsed().as_millis().to_string())]);
    (age, answer).into_response()
}

/// Responds with the whole of a shared body, if it could be encoded.
fn full_response<K>(body: Option<Arc<Answer<K>>>, headers: &HeaderMap) -> Response {
    match body {
        Some(body) => with_age(body.updated_at, body.encoded.respond(headers)),
        None => encoding_failed(),
    }
}

/// Responds with the elements of a shared body that have these keys.
fn partial_response<K: Ord>(
    body: Option<Arc<Answer<K>>>,
    headers: &HeaderMap,
    keys: &BTreeSet<K>,
    [head, tail]: [&'static str; 2],
) -> Response {
    match body {
        Some(body) => {
            let part = body.encoded.respond_part(headers, || body.select(keys, head, tail));
            with_age(body.updated_at, part)
        }
        None => encoding_failed(),
    }
}

fn encoding_failed() -> Response {
    error_response(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be encoded".to_owned())
}

/// The request cannot be answered; `error` has the reason.
#[derive(Serialize, ToSchema)]
struct Refusal {
    ok: bool,
    error: String,
}

pub(crate) fn error_response(status: StatusCode, error: String) -> Response {
    json_response(status, None, Refusal { ok: false, error })
}

type QueryPairs = Query<Vec<(String, String)>>;

/// The ids in a query `?id=…&id=…`, in upper or lower case. An empty set selects all elements.
fn parse_ids<T>(Query(query): &QueryPairs) -> Result<BTreeSet<T>, String>
where
    T: FromStr<Err: std::fmt::Display> + Ord,
{
    let ids = query.iter().filter(|(key, _)| key == "id");
    if ids.clone().count() > MAX_IDS {
        return Err(format!("at most {MAX_IDS} ids are allowed in one request"));
    }
    ids.map(|(_, id)| id.to_lowercase().parse().map_err(|error| format!("id {id:?}: {error}"))).collect()
}

/// The body of `/peers`. [`draft_peers`] encodes it element by element.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes a body that is assembled as text")]
struct Peers {
    ok: bool,
    peers: Vec<PeerAnswer>,
}

/// The present peers and their positions: all of them, or those with the given ids.
///
/// The body is encoded at most once a second and shared by all clients, so it may be a second old. It always
/// includes every event that a reader of `/events` has received; for that, the response may be delayed by up
/// to a second.
#[utoipa::path(
    get, path = "/peers", tag = "presence",
    params(("id" = Option<Vec<String>>, Query, description = "Addresses, in lower or upper case; absent peers are left out")),
    responses(
        (status = 200, body = Peers, headers(
            ("atoll-age-ms" = u64, description = "The age of the data, in milliseconds"),
            ("etag" = String, description = "Identifies this body; the gzip form has a tag of its own"),
        )),
        (status = 304, description = "`If-None-Match` has the current tag"),
        (status = 400, body = Refusal, description = "An id is no address, or there are more than 1,000"),
    ),
)]
async fn peers(State(shared): State<Arc<Shared>>, headers: HeaderMap, query: QueryPairs) -> Response {
    let ids = match parse_ids::<Address>(&query) {
        Ok(ids) => ids,
        Err(error) => return error_response(StatusCode::BAD_REQUEST, error),
    };
    let draft = {
        let shared = shared.clone();
        move || draft_peers(&shared)
    };
    let body = shared.bodies.peers.get(shared.required_version(), draft).await;
    match ids.is_empty() {
        true => full_response(body, &headers),
        false => partial_response(body, &headers, &ids, PEERS),
    }
}

/// The text before and after the elements of [`Peers`].
const PEERS: [&str; 2] = [r#"{"ok":true,"peers":["#, "]}"];

fn draft_peers(shared: &Shared) -> Draft<Address> {
    // Data is only copied under the lock; encoding happens after it is released.
    let presence = shared.presence();
    let (version, updated_at) = (shared.version(&presence), presence.peers_updated_at());
    let peers: Vec<(Address, Peer)> = presence.peers().map(|(address, peer)| (address, *peer)).collect();
    drop(presence);
    let peers = peers.iter().map(|&(address, ref peer)| (address, PeerAnswer::new(address, peer)));
    Draft { version, updated_at, list: List::new(PEERS[0], peers, PEERS[1]) }
}

#[derive(Serialize, ToSchema)]
struct OnePeer {
    ok: bool,
    /// `null` if `ok` is false.
    peer: Option<PeerAnswer>,
}

/// One peer.
#[utoipa::path(
    get, path = "/peers/{id}", tag = "presence",
    params(("id" = String, Path, description = "An address")),
    responses(
        (status = 200, body = OnePeer, headers(("atoll-age-ms" = u64, description = "The age of the data, in milliseconds"))),
        (status = 404, body = OnePeer, description = "There is no such peer"),
    ),
)]
async fn peer(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let address = id.to_lowercase().parse::<Address>().ok();
    let (peer, updated_at) = {
        let presence = shared.presence();
        let peer = address.and_then(|address| Some((address, *presence.peer(address)?)));
        (peer, presence.peers_updated_at())
    };
    let peer = peer.map(|(address, peer)| PeerAnswer::new(address, &peer));
    let status = if peer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    json_response(status, updated_at, OnePeer { ok: peer.is_some(), peer })
}

/// The body of `/islands`. [`draft_islands`] encodes it element by element.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes a body that is assembled as text")]
struct Islands {
    ok: bool,
    islands: Vec<IslandAnswer>,
}

/// The islands and their members: all islands, or those with the given ids.
///
/// The body is encoded at most once a second and shared by all clients, so it may be a second old. It always
/// includes every event that a reader of `/events` has received; for that, the response may be delayed by up
/// to a second.
#[utoipa::path(
    get, path = "/islands", tag = "presence",
    params(("id" = Option<Vec<String>>, Query, description = "Ids of islands, in lower or upper case; unknown islands are left out")),
    responses(
        (status = 200, body = Islands, headers(
            ("atoll-age-ms" = u64, description = "The age of the data, in milliseconds"),
            ("etag" = String, description = "Identifies this body; the gzip form has a tag of its own"),
        )),
        (status = 304, description = "`If-None-Match` has the current tag"),
        (status = 400, body = Refusal, description = "An id cannot be an island's, or there are more than 1,000"),
    ),
)]
async fn islands(State(shared): State<Arc<Shared>>, headers: HeaderMap, query: QueryPairs) -> Response {
    let ids = match parse_ids::<IslandId>(&query) {
        Ok(ids) => ids,
        Err(error) => return error_response(StatusCode::BAD_REQUEST, error),
    };
    let draft = {
        let shared = shared.clone();
        move || draft_islands(&shared)
    };
    let body = shared.bodies.islands.get(shared.required_version(), draft).await;
    match ids.is_empty() {
        true => full_response(body, &headers),
        false => partial_response(body, &headers, &ids.iter().map(IslandId::to_string).collect(), ISLANDS),
    }
}

/// The text before and after the elements of [`Islands`].
const ISLANDS: [&str; 2] = [r#"{"ok":true,"islands":["#, "]}"];

fn draft_islands(shared: &Shared) -> Draft<String> {
    // Data is only copied under the lock; members are looked up in the copy.
    let presence = shared.presence();
    let (version, updated_at) = (shared.version(&presence), presence.islands_updated_at());
    let peers: Vec<(Address, Peer)> = presence.peers().map(|(address, peer)| (address, *peer)).collect();
    let islands: Vec<IslandCopy> = presence.islands().collect();
    drop(presence);
    let peer = |address: Address| {
        // The copy is sorted by address, as the map is.
        let index = peers.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(peers[index].1)
    };
    let islands = islands.into_iter().map(|island| {
        let key = island.id.as_str().to_lowercase();
        (key, IslandAnswer::new(island, peer, &shared.settings))
    });
    Draft { version, updated_at, list: List::new(ISLANDS[0], islands, ISLANDS[1]) }
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
        (status = 200, body = IslandAnswer, headers(("atoll-age-ms" = u64, description = "The age of the data, in milliseconds"))),
        (status = 404, body = Absent, description = "There is no such island"),
    ),
)]
async fn island(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let id = id.parse::<IslandId>().ok();
    let (found, updated_at) = {
        let presence = shared.presence();
        let island = id.and_then(|id| presence.island(&id));
        let found = island.map(|island| {
            let members = island.members.iter();
            let peers = members.filter_map(|&address| Some((address, *presence.peer(address)?)));
            let peers: BTreeMap<Address, Peer> = peers.collect();
            (island, peers)
        });
        (found, presence.islands_updated_at())
    };
    match found {
        Some((island, peers)) => {
            let island = IslandAnswer::new(island, |address| peers.get(&address).copied(), &shared.settings);
            json_response(StatusCode::OK, updated_at, island)
        }
        None => json_response(StatusCode::NOT_FOUND, updated_at, Absent { ok: false }),
    }
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "describes a body that is assembled as text")]
struct Parcels {
    parcels: Vec<ParcelAnswer>,
}

/// The number of peers on each parcel that has any.
///
/// The body is encoded at most once a second and shared by all clients, so it may be a second old. It always
/// includes every event that a reader of `/events` has received; for that, the response may be delayed by up
/// to a second.
#[utoipa::path(
    get, path = "/parcels", tag = "presence",
    responses(
        (status = 200, body = Parcels, headers(
            ("atoll-age-ms" = u64, description = "The age of the data, in milliseconds"),
            ("etag" = String, description = "Identifies this body; the gzip form has a tag of its own"),
        )),
        (status = 304, description = "`If-None-Match` has the current tag"),
    ),
)]
async fn all_parcels(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let draft = {
        let shared = shared.clone();
        move || {
            let (version, updated_at, occupied) = copy_parcels(&shared);
            let parcels = parcels(count_by_parcel(occupied)).into_iter().map(|parcel| ((), parcel));
            Draft { version, updated_at, list: List::new(r#"{"parcels":["#, parcels, "]}") }
        }
    };
    full_response(shared.bodies.parcels.get(shared.required_version(), draft).await, &headers)
}

/// The version of the presence, the time of its last update, and the parcel of each peer. Data is only copied
/// under the lock.
fn copy_parcels(shared: &Shared) -> (Version, Option<Instant>, Vec<Parcel>) {
    let presence = shared.presence();
    (shared.version(&presence), presence.peers_updated_at(), presence.parcels())
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CoreStatus {
    /// Whether a director announced itself recently.
    healthy: bool,
    user_count: usize,
}

/// Whether a director announced itself recently, and the number of peers.
#[utoipa::path(
    get, path = "/core-status", tag = "presence",
    responses((status = 200, body = CoreStatus, headers(("atoll-age-ms" = u64, description = "The age of the data, in milliseconds")))),
)]
async fn core_status(State(shared): State<Arc<Shared>>) -> Response {
    let (status, updated_at) = {
        let presence = shared.presence();
        let status = CoreStatus { healthy: presence.has_director(), user_count: presence.peer_count() };
        (status, presence.peers_updated_at())
    };
    json_response(StatusCode::OK, updated_at, status)
}

/// The scenes with peers, the most populated first.
///
/// The body is encoded at most once a second and shared by all clients, so it may be a second old. It always
/// includes every event that a reader of `/events` has received; for that, the response may be delayed by up
/// to a second.
#[utoipa::path(
    get, path = "/hot-scenes", tag = "presence",
    responses(
        (status = 200, body = Vec<HotScene>, headers(
            ("atoll-age-ms" = u64, description = "The age of the data, in milliseconds"),
            ("etag" = String, description = "Identifies this body; the gzip form has a tag of its own"),
        )),
        (status = 304, description = "`If-None-Match` has the current tag"),
    ),
)]
async fn all_hot_scenes(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let draft = {
        let shared = shared.clone();
        move || {
            let (version, updated_at, occupied) = copy_parcels(&shared);
            let scenes = hot_scenes(count_by_parcel(occupied), &shared.scenes(), &shared.settings);
            Draft {
                version,
                updated_at,
                list: List::new("[", scenes.into_iter().map(|scene| ((), scene)), "]"),
            }
        }
    };
    full_response(shared.bodies.hot_scenes.get(shared.required_version(), draft).await, &headers)
}

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
async fn events(
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
        Some((Ok::<_, std::convert::Infallible>(chunk), reader))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // Reverse proxies such as nginx buffer responses unless this header disables it.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of a router. Its debug output is the only place that lists them.
    fn paths(router: &axum::Router) -> BTreeSet<String> {
        let debug = format!("{router:?}");
        debug.split('"').filter(|text| text.starts_with('/')).map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_in_the_openapi_description() {
        let (router, api) = router(Arc::new(Shared::for_tests())).split_for_parts();
        let paths: BTreeSet<String> = &paths(&router) - &paths(&axum::Router::new());
        assert!(paths.contains("/peers"), "{router:?}");
        assert_eq!(paths, api.paths.paths.into_keys().collect());
    }
}
