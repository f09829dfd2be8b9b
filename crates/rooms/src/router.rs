use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use protocol::{Close, IslandId, ROOM_SUBPROTOCOLS};
use serde::{Deserialize, Serialize};

use crate::{member, service::Shared, ws};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/rooms/status", get(status))
        .route("/comms/rooms/status", get(status))
        .route("/rooms/{room}", get(enter))
        .with_state(shared)
}

#[derive(Deserialize)]
struct EnterQuery {
    access_token: Option<String>,
}

/// Opens a socket into a room. Who it is comes after; refusals come as close frames, because that
/// is what a browser can see.
async fn enter(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    Path(room): Path<String>,
    Query(query): Query<EnterQuery>,
    mut request: Request,
) -> Response {
    let Ok(room) = room.parse::<IslandId>() else {
        return (StatusCode::NOT_FOUND, Close::UnknownRoom.reason()).into_response();
    };
    let ticket = match shared.door.enter(remote.ip()) {
        Ok(ticket) => ticket,
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
        if let Ok(stream) = stream.await {
            metrics::counter!("dcl_ws_rooms_connections_total").increment(1);
            member::serve(&shared, &room, query.access_token, ticket, stream).await;
        }
    });
    response
}

#[derive(Serialize)]
struct Status {
    ok: bool,
    node: String,
    users: usize,
    rooms: Vec<RoomStatus>,
}

#[derive(Serialize)]
struct RoomStatus {
    id: String,
    users: usize,
}

async fn status(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut rooms: Vec<RoomStatus> = shared
        .registry
        .sizes()
        .into_iter()
        .map(|(id, users)| RoomStatus { id: id.to_string(), users })
        .collect();
    rooms.sort_by(|a, b| a.id.cmp(&b.id));
    let users = rooms.iter().map(|room| room.users).sum();
    let node = shared.settings.node.to_string();
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(Status { ok: true, node, users, rooms }))
}
