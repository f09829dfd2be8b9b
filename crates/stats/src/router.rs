use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use protocol::Address;
use serde::Serialize;

use crate::{
    Shared,
    answers::{HotScene, IslandAnswer, ParcelAnswer, PeerAnswer, hot_scenes, parcels},
};

/// How old the answer is, in milliseconds.
const AGE: HeaderName = HeaderName::from_static("atoll-age-ms");

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let routes = Router::new()
        .route("/peers", get(peers))
        .route("/peers/{id}", get(peer))
        .route("/islands", get(islands))
        .route("/islands/{id}", get(island))
        .route("/parcels", get(all_parcels))
        .route("/core-status", get(core_status))
        .route("/hot-scenes", get(all_hot_scenes));
    Router::new().nest("/comms", routes.clone()).merge(routes).with_state(shared)
}

fn answer(status: StatusCode, age: Option<Duration>, body: impl Serialize) -> Response {
    let age = age.map(|age| [(AGE, age.as_millis().to_string())]);
    (status, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], age, Json(body)).into_response()
}

#[derive(Serialize)]
struct Peers {
    ok: bool,
    peers: Vec<PeerAnswer>,
}

/// All peers, or those whose ids stand in the query: `?id=0x..&id=0x..`.
async fn peers(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let presence = shared.presence();
    let query = query.unwrap_or_default();
    let ids: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("id=")).collect();
    let peers = if ids.is_empty() {
        presence.peers().map(|(address, peer)| PeerAnswer::new(address, peer)).collect()
    } else {
        let addresses = ids.iter().filter_map(|id| id.parse().ok());
        addresses.filter_map(|address| Some(PeerAnswer::new(address, presence.peer(address)?))).collect()
    };
    answer(StatusCode::OK, presence.peers_age(Instant::now()), Peers { ok: true, peers })
}

#[derive(Serialize)]
struct OnePeer {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<PeerAnswer>,
}

async fn peer(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let presence = shared.presence();
    let address = id.parse::<Address>().ok();
    let peer = address.and_then(|address| Some(PeerAnswer::new(address, presence.peer(address)?)));
    let status = if peer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    answer(status, presence.peers_age(Instant::now()), OnePeer { ok: peer.is_some(), peer })
}

#[derive(Serialize)]
struct Islands {
    ok: bool,
    islands: Vec<IslandAnswer>,
}

async fn islands(State(shared): State<Arc<Shared>>) -> Response {
    let presence = shared.presence();
    let islands = presence.islands().iter().map(|island| IslandAnswer::new(island, &presence)).collect();
    answer(StatusCode::OK, presence.islands_age(Instant::now()), Islands { ok: true, islands })
}

#[derive(Serialize)]
struct Absent {
    ok: bool,
}

async fn island(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let presence = shared.presence();
    let age = presence.islands_age(Instant::now());
    match presence.islands().iter().find(|island| island.id == id) {
        Some(island) => answer(StatusCode::OK, age, IslandAnswer::new(island, &presence)),
        None => answer(StatusCode::NOT_FOUND, age, Absent { ok: false }),
    }
}

#[derive(Serialize)]
struct Parcels {
    parcels: Vec<ParcelAnswer>,
}

async fn all_parcels(State(shared): State<Arc<Shared>>) -> Response {
    let presence = shared.presence();
    let parcels = parcels(&presence);
    answer(StatusCode::OK, presence.peers_age(Instant::now()), Parcels { parcels })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CoreStatus {
    healthy: bool,
    user_count: usize,
}

async fn core_status(State(shared): State<Arc<Shared>>) -> Response {
    let presence = shared.presence();
    let status = CoreStatus { healthy: presence.has_director(), user_count: presence.peers().count() };
    answer(StatusCode::OK, presence.peers_age(Instant::now()), status)
}

async fn all_hot_scenes(State(shared): State<Arc<Shared>>) -> Response {
    let presence = shared.presence();
    let scenes: Vec<HotScene> = hot_scenes(&presence, &shared.settings);
    answer(StatusCode::OK, presence.peers_age(Instant::now()), scenes)
}
