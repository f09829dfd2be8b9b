//! The baseline: a room as it is usually written, without limits or tokens.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    routing::get,
};
use bytes::Bytes;
use protocol::{
    Message as _,
    rfc5::{WsPacket, WsPeerUpdate, ws_packet},
};
use tokio::sync::mpsc;

#[derive(Default)]
struct Room {
    next_alias: AtomicU32,
    members: Mutex<HashMap<u32, mpsc::UnboundedSender<Bytes>>>,
}

pub(crate) fn router() -> Router {
    let room = Arc::new(Room::default());
    let enter = async |State(room): State<Arc<Room>>, upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async move |socket| serve(&room, socket).await)
    };
    Router::new().route("/rooms/{room}", get(enter)).with_state(room)
}

async fn serve(room: &Room, mut socket: WebSocket) {
    let alias = room.next_alias.fetch_add(1, Relaxed);
    let (queue, mut queued) = mpsc::unbounded_channel();
    room.members.lock().unwrap_or_else(PoisonError::into_inner).insert(alias, queue);
    loop {
        tokio::select! {
            Some(frame) = queued.recv() => {
                if socket.send(Message::Binary(frame)).await.is_err() {
                    break;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(bytes))) => room.broadcast(alias, bytes),
                Some(Ok(_)) => {}
                _ => break,
            }
        }
    }
    room.members.lock().unwrap_or_else(PoisonError::into_inner).remove(&alias);
}

impl Room {
    fn broadcast(&self, alias: u32, bytes: Bytes) {
        let Ok(WsPacket { message: Some(ws_packet::Message::PeerUpdateMessage(update)) }) =
            WsPacket::decode(bytes)
        else {
            return;
        };
        let update = WsPeerUpdate { from_alias: alias, ..update };
        let message = Some(ws_packet::Message::PeerUpdateMessage(update));
        let frame = Bytes::from(WsPacket { message }.encode_to_vec());
        for (member, queue) in self.members.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if *member != alias {
                let _ = queue.send(frame.clone());
            }
        }
    }
}
