//! The HTTP endpoints of the room nodes.

use std::sync::Arc;

use admission::Network;
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use protocol::{Close, ROOM_SUBPROTOCOLS, RoomName};
use serde::Deserialize;

use crate::{member, metrics, node::Node};

pub(crate) fn router(nodes: &Arc<[Arc<Node>]>) -> Router {
    nodes.iter().fold(Router::new(), |router, node| {
        let path = format!("{}/rooms/{{room}}", node.settings.path);
        router.merge(Router::new().route(&path, get(enter)).with_state(node.clone()))
    })
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
