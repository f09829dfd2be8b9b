//! The HTTP endpoints of the room nodes.

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

use crate::{member, metrics, node::Node};

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

/// Opens a WebSocket to a room. The client authenticates on the socket, and rejections are sent as close
/// frames, because a browser cannot read the response of a failed upgrade.
async fn enter(
    State(node): State<Arc<Node>>,
    Extension(network): Extension<Network>,
    Path(room): Path<String>,
    Query(query): Query<EnterQuery>,
    mut request: Request,
) -> Response {
    let Ok(room) = room.parse::<RoomName>() else {
        return (StatusCode::NOT_FOUND, Close::UnknownRoom.reason()).into_response();
    };
    let permit = match node.handshakes.acquire(network) {
        Ok(permit) => permit,
        Err(error) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], error.to_string())
                .into_response();
        }
    };
    let upgrade = match ws::upgrade(&mut request, &ROOM_SUBPROTOCOLS) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
    let ws::Upgrade { response, stream } = upgrade;
    let socket = node.sockets.clone();
    tokio::spawn(async move {
        let _socket = socket;
        if let Some(stream) = stream.stream().await {
            metrics::connections().increment(1);
            member::serve(&node, &room, query.access_token, permit, stream).await;
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

/// The members of each room, summed over all room nodes of the process: while an island moves, its room
/// exists on two nodes.
#[utoipa::path(get, path = "/rooms/status", tag = "presence", responses((status = 200, body = RoomsStatus)))]
async fn rooms_status(State(nodes): State<Arc<[Arc<Node>]>>) -> impl IntoResponse {
    let mut rooms: BTreeMap<String, usize> = BTreeMap::new();
    let mut per_node = Vec::new();
    for node in nodes.iter() {
        let mut node_users = 0;
        for (id, users) in node.registry.sizes() {
            *rooms.entry(id.to_string()).or_default() += users;
            node_users += users;
        }
        per_node.push(NodeStatus { node: node.settings.node.to_string(), users: node_users });
    }
    let status = RoomsStatus {
        ok: true,
        node: per_node.first().map(|first| first.node.clone()).unwrap_or_default(),
        users: rooms.values().sum(),
        rooms: rooms.into_iter().map(|(id, users)| RoomStatus { id, users }).collect(),
        nodes: if per_node.len() > 1 { per_node } else { Vec::new() },
    };
    Json(status)
}
