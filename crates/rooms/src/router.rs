use std::{collections::BTreeMap, sync::Arc};

use admission::Network;
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use protocol::{Close, ROOM_SUBPROTOCOLS, RoomName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{member, node::Node};

pub(crate) fn router(nodes: &Arc<[Arc<Node>]>) -> Router {
    nodes.iter().fold(Router::new(), |router, node| {
        let path = format!("{}/rooms/{{room}}", node.settings.path);
        router.merge(Router::new().route(&path, get(enter)).with_state(node.clone()))
    })
}

pub(crate) fn status_router(nodes: &Arc<[Arc<Node>]>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(rooms_status)).with_state(nodes.clone())
}

#[derive(Deserialize)]
struct EnterQuery {
    access_token: Option<String>,
}

/// Opens a socket into a room. Who it is comes after; refusals come as close frames, because that
/// is what a browser can see.
async fn enter(
    State(shared): State<Arc<Node>>,
    Extension(network): Extension<Network>,
    Path(room): Path<String>,
    Query(query): Query<EnterQuery>,
    mut request: Request,
) -> Response {
    let Ok(room) = room.parse::<RoomName>() else {
        return (StatusCode::NOT_FOUND, Close::UnknownRoom.reason()).into_response();
    };
    let permit = match shared.handshakes.acquire(network) {
        Ok(permit) => permit,
        Err(full) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], full.to_string())
                .into_response();
        }
    };
    let upgrade = match ws::upgrade(&mut request, &ROOM_SUBPROTOCOLS) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
    let ws::Upgrade { response, stream } = upgrade;
    let socket = shared.sockets.clone();
    tokio::spawn(async move {
        let _socket = socket;
        if let Some(stream) = stream.stream().await {
            metrics::counter!("dcl_ws_rooms_connections_total").increment(1);
            member::serve(&shared, &room, query.access_token, permit, stream).await;
        }
    });
    response.map(|()| Body::empty())
}

#[derive(Serialize, ToSchema)]
struct RoomsStatus {
    ok: bool,
    /// The first node.
    node: String,
    users: usize,
    rooms: Vec<RoomStatus>,
    /// Each node, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeStatus>,
}

#[derive(Serialize, ToSchema)]
struct RoomStatus {
    id: String,
    users: usize,
}

#[derive(Serialize, ToSchema)]
struct NodeStatus {
    node: String,
    users: usize,
}

/// What the room nodes hold: all of them as if they were one, since while an island moves its room is on
/// two.
#[utoipa::path(get, path = "/rooms/status", tag = "presence", responses((status = 200, body = RoomsStatus)))]
async fn rooms_status(State(nodes): State<Arc<[Arc<Node>]>>) -> impl IntoResponse {
    let mut rooms: BTreeMap<String, usize> = BTreeMap::new();
    let mut each = Vec::new();
    for shared in nodes.iter() {
        let mut on_it = 0;
        for (id, users) in shared.registry.sizes() {
            *rooms.entry(id.to_string()).or_default() += users;
            on_it += users;
        }
        each.push(NodeStatus { node: shared.settings.node.to_string(), users: on_it });
    }
    let status = RoomsStatus {
        ok: true,
        node: each.first().map(|first| first.node.clone()).unwrap_or_default(),
        users: rooms.values().sum(),
        rooms: rooms.into_iter().map(|(id, users)| RoomStatus { id, users }).collect(),
        nodes: if each.len() > 1 { each } else { Vec::new() },
    };
    Json(status)
}
