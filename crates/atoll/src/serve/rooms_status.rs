//! The endpoint `/rooms/status`: the members of all rooms that this process knows.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::IntoResponse};
use director::LiveKitServers;
use rooms::Rooms;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The sources of the endpoint: the room nodes of the process, and the LiveKit servers of its director.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) rooms: Option<Rooms>,
    pub(super) livekit: LiveKitServers,
}

pub(super) fn router(sources: Sources) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(rooms_status)).with_state(sources)
}

#[derive(Serialize, ToSchema)]
struct RoomsStatus {
    ok: bool,
    /// The first node.
    node: String,
    users: usize,
    rooms: Vec<RoomStatus>,
    /// Each node, where there are several or one is a LiveKit server.
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
    /// Only for a LiveKit server.
    #[serde(skip_serializing_if = "Option::is_none")]
    livekit: Option<LiveKitNodeStatus>,
}

#[derive(Serialize, ToSchema)]
struct LiveKitNodeStatus {
    /// Whether islands are assigned to it.
    healthy: bool,
    /// Whether it sends webhooks to this process. If not, its participants are listed every two seconds, by the
    /// leading director alone.
    webhooks: bool,
}

/// The members of each room, summed over all nodes that this process knows: while an island moves, its room
/// exists on two nodes. A process with a director knows the participants in rooms of LiveKit servers.
#[utoipa::path(get, path = "/rooms/status", tag = "presence", responses((status = 200, body = RoomsStatus)))]
async fn rooms_status(State(Sources { rooms, livekit }): State<Sources>) -> impl IntoResponse {
    let mut users_by_room: BTreeMap<String, usize> = BTreeMap::new();
    let mut add_node = |node: String, rooms: Vec<(String, usize)>, livekit| {
        let users = rooms.iter().map(|(_, users)| users).sum();
        rooms.into_iter().for_each(|(room, users)| *users_by_room.entry(room).or_default() += users);
        NodeStatus { node, users, livekit }
    };
    let mut nodes = Vec::new();
    for (node, rooms) in rooms.iter().flat_map(Rooms::sizes) {
        let rooms = rooms.into_iter().map(|(room, users)| (room.to_string(), users)).collect();
        nodes.push(add_node(node.to_string(), rooms, None));
    }
    for status in livekit.status() {
        let facts = LiveKitNodeStatus { healthy: status.healthy, webhooks: status.webhooks };
        nodes.push(add_node(status.node.to_string(), status.rooms.into_iter().collect(), Some(facts)));
    }
    Json(RoomsStatus {
        ok: true,
        node: nodes.first().map(|first| first.node.clone()).unwrap_or_default(),
        users: users_by_room.values().sum(),
        rooms: users_by_room.into_iter().map(|(id, users)| RoomStatus { id, users }).collect(),
        nodes: if nodes.len() > 1 || !livekit.is_empty() { nodes } else { Vec::new() },
    })
}
