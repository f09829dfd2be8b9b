//! `/parcels`, `/hot-scenes` and `/core-status`: how many peers are where.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use protocol::Parcel;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    answers::{HotScene, ParcelAnswer, count_by_parcel, hot_scenes, parcels},
    cached::{Draft, List, Version},
    response::{full_response, json_response},
    shared::Shared,
};

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
pub(crate) async fn all_parcels(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    full_response(shared.body(&shared.bodies.parcels, draft_parcels).await, &headers)
}

fn draft_parcels(shared: &Shared) -> Draft<()> {
    let (version, updated_at, occupied) = copy_parcels(shared);
    let parcels = parcels(count_by_parcel(occupied)).into_iter().map(|parcel| ((), parcel));
    Draft { version, updated_at, list: List::new(r#"{"parcels":["#, parcels, "]}") }
}

/// The version of the presence, the time of its last update, and the parcel of each peer. Data is only copied
/// under the lock.
fn copy_parcels(shared: &Shared) -> (Version, Option<Instant>, Vec<Parcel>) {
    let presence = shared.presence.lock();
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
pub(crate) async fn core_status(State(shared): State<Arc<Shared>>) -> Response {
    let (status, updated_at) = {
        let presence = shared.presence.lock();
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
pub(crate) async fn all_hot_scenes(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    full_response(shared.body(&shared.bodies.hot_scenes, draft_hot_scenes).await, &headers)
}

fn draft_hot_scenes(shared: &Shared) -> Draft<()> {
    let (version, updated_at, occupied) = copy_parcels(shared);
    let scenes = hot_scenes(count_by_parcel(occupied), &shared.scenes.lock(), &shared.settings);
    Draft { version, updated_at, list: List::new("[", scenes.into_iter().map(|scene| ((), scene)), "]") }
}
