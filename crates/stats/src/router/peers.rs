//! `/peers`: all peers, and one of them.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use protocol::Address;
use serde::Serialize;
use utoipa::ToSchema;

use super::query::{QueryPairs, parse_ids};
use crate::{
    answers::PeerAnswer,
    cached::{Draft, List},
    response::{Refusal, error_response, full_response, json_response, partial_response},
    shared::Shared,
};

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
pub(crate) async fn peers(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: QueryPairs,
) -> Response {
    let ids = match parse_ids::<Address>(&query) {
        Ok(ids) => ids,
        Err(error) => return error_response(StatusCode::BAD_REQUEST, error),
    };
    let body = shared.body(&shared.bodies.peers, draft_peers).await;
    match ids.is_empty() {
        true => full_response(body, &headers),
        false => partial_response(body, &headers, &ids, PEERS),
    }
}

/// The text before and after the elements of [`Peers`].
const PEERS: [&str; 2] = [r#"{"ok":true,"peers":["#, "]}"];

fn draft_peers(shared: &Shared) -> Draft<Address> {
    // Data is only copied under the lock; encoding happens after it is released.
    let presence = shared.presence.lock();
    let (version, updated_at) = (shared.version(&presence), presence.peers_updated_at());
    let peers = presence.copy_peers();
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
pub(crate) async fn peer(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let address = id.to_lowercase().parse::<Address>().ok();
    let (peer, updated_at) = {
        let presence = shared.presence.lock();
        let peer = address.and_then(|address| Some((address, *presence.peer(address)?)));
        (peer, presence.peers_updated_at())
    };
    let peer = peer.map(|(address, peer)| PeerAnswer::new(address, &peer));
    let status = if peer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    json_response(status, updated_at, OnePeer { ok: peer.is_some(), peer })
}
