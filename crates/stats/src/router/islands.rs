//! `/islands`: all islands, and one of them.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use protocol::{Address, IslandId};
use serde::Serialize;
use utoipa::ToSchema;

use super::query::{QueryPairs, parse_ids};
use crate::{
    answers::IslandAnswer,
    cached::{Draft, List},
    peer::Peer,
    presence::IslandCopy,
    response::{Refusal, error_response, full_response, json_response, partial_response},
    shared::Shared,
};

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
pub(crate) async fn islands(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: QueryPairs,
) -> Response {
    let ids = match parse_ids::<IslandId>(&query) {
        Ok(ids) => ids,
        Err(error) => return error_response(StatusCode::BAD_REQUEST, error),
    };
    let body = shared.body(&shared.bodies.islands, draft_islands).await;
    match ids.is_empty() {
        true => full_response(body, &headers),
        false => partial_response(body, &headers, &ids.iter().map(IslandId::to_string).collect(), ISLANDS),
    }
}

/// The text before and after the elements of [`Islands`].
const ISLANDS: [&str; 2] = [r#"{"ok":true,"islands":["#, "]}"];

fn draft_islands(shared: &Shared) -> Draft<String> {
    // Data is only copied under the lock; members are looked up in the copy.
    let presence = shared.presence.lock();
    let (version, updated_at) = (shared.version(&presence), presence.islands_updated_at());
    let peers = presence.copy_peers();
    let islands: Vec<IslandCopy> = presence.islands().collect();
    drop(presence);
    let peer = |address: Address| {
        // The copy is sorted by address.
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
pub(crate) async fn island(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let id = id.parse::<IslandId>().ok();
    let (found, updated_at) = {
        let presence = shared.presence.lock();
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
