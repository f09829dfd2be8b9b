use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use admission::{Door, Verifier};
use axum::{
    Router,
    extract::{ConnectInfo, State, WebSocketUpgrade},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bus::{Bus, Envelope, Subscription};
use bytes::{BufMut, Bytes, BytesMut};
use metrics::Counter;
use prost::encoding::{WireType, encode_key, encode_varint};
use protocol::{Message as _, Subject, subject, v3::ServiceDiscoveryMessage};

use crate::{
    Settings,
    about::{self, Directory},
    sessions::Sessions,
    socket,
};

/// A gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// What all sockets of a gateway share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) verifier: Verifier,
    pub(crate) bus: Bus,
    pub(crate) sessions: Sessions,
    pub(crate) heartbeats: Counter,
    pub(crate) door: Door,
    directory: Mutex<Directory>,
    /// One clone a socket.
    sockets: Arc<()>,
}

/// Messages from the bus that may wait for the gateway; at the bound the newest is dropped and
/// counted.
const BUS_QUEUE: usize = 262_144;
/// What a socket's reads take in memory while it is idle.
const READ_BUFFER_BYTES: usize = 512;

impl Gateway {
    /// A gateway with these settings.
    pub fn new(settings: Settings, bus: Bus, verifier: Verifier) -> Self {
        let door = Door::new(settings.door);
        let sessions = Sessions::new(bus.clone(), settings.max_sessions);
        let heartbeats = metrics::counter!("atoll_gateway_heartbeats_total");
        let (directory, sockets) = (Mutex::default(), Arc::default());
        Self(Arc::new(Shared { settings, verifier, bus, sessions, heartbeats, door, directory, sockets }))
    }

    /// The endpoints: `/archipelago/ws`, `/ws` and `/about`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/archipelago/ws", get(enter))
            .route("/ws", get(enter))
            .route("/about", get(about::about))
            .with_state(self.0.clone())
    }

    /// What the gateway has to hear from now on, for [`Gateway::run`].
    pub fn subscribe(&self) -> Subscription {
        let patterns = [subject::PEER_ISLAND_CHANGES, subject::PEER_CONNECTS, subject::ENGINE_DISCOVERY];
        self.0.bus.subscribe("gateway", &patterns, BUS_QUEUE)
    }

    /// Hands what the bus says to the sessions that it is for. Does not return.
    pub async fn run(&self, mut subscription: Subscription) {
        while let Some(envelope) = subscription.next().await {
            self.0.hear(&envelope);
        }
    }

    /// Signs nobody in any more, and tells those who are in to come back elsewhere.
    pub fn drain(&self) {
        self.0.door.close();
        self.0.sessions.drain();
    }

    /// How many sockets are open: signed in, on their way in, or on their way out.
    pub fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.0.sockets) - 1
    }

    /// Sets the gauges to what holds now.
    pub fn observe(&self) {
        metrics::gauge!("explorer_bff_connected_users").set(self.0.sessions.count() as f64);
        metrics::gauge!("atoll_gateway_sockets").set(self.sockets_count() as f64);
        metrics::gauge!("atoll_gateway_signing_in").set(self.0.door.waiting() as f64);
    }

    /// Whether a director has been heard of lately, so that who signs in gets an island.
    pub fn is_ready(&self) -> bool {
        self.0.directory().is_healthy() && !self.0.sessions.is_draining()
    }
}

impl Shared {
    pub(crate) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, envelope: &Envelope) {
        match envelope.subject() {
            Some(Subject::PeerIslandChanged(peer)) => {
                let packet = island_changed_packet(&envelope.payload);
                self.sessions.send(peer, envelope.headers.session, packet);
            }
            Some(Subject::PeerConnect(peer)) => {
                if let Some(session) = envelope.headers.session {
                    self.sessions.superseded(peer, session);
                }
            }
            Some(Subject::EngineDiscovery) => {
                if let Ok(discovery) = ServiceDiscoveryMessage::decode(&envelope.payload[..]) {
                    self.directory().heard(&discovery);
                }
            }
            _ => {}
        }
    }
}

/// Wraps the bytes of an `IslandChangedMessage` as field 3 of a `ServerPacket`, without decoding
/// them.
fn island_changed_packet(message: &Bytes) -> Bytes {
    const ISLAND_CHANGED_FIELD: u32 = 3;
    let mut packet = BytesMut::with_capacity(message.len() + 6);
    encode_key(ISLAND_CHANGED_FIELD, WireType::LengthDelimited, &mut packet);
    encode_varint(message.len() as u64, &mut packet);
    packet.put_slice(message);
    packet.freeze()
}

/// Opens an archipelago socket.
async fn enter(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let ticket = match shared.door.enter(remote.ip()) {
        Ok(ticket) => ticket,
        Err(full) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], full.to_string())
                .into_response();
        }
    };
    let socket_count = shared.sockets.clone();
    upgrade
        .protocols([protocol::ARCHIPELAGO_SUBPROTOCOL])
        .max_message_size(protocol::MAX_MESSAGE_BYTES)
        .max_frame_size(protocol::MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .on_upgrade(async move |socket| {
            let _socket = socket_count;
            socket::serve(&shared, socket, ticket).await;
        })
}

#[cfg(test)]
mod tests {
    use protocol::v3::{IslandChangedMessage, ServerPacket, server_packet};

    use super::*;

    #[test]
    fn an_island_change_is_wrapped_as_it_would_be_encoded() {
        let message = IslandChangedMessage {
            island_id: "I1".to_owned(),
            conn_str: "x".repeat(300),
            from_island_id: Some("I0".to_owned()),
            peers: Default::default(),
        };
        let packet = ServerPacket { message: Some(server_packet::Message::IslandChanged(message.clone())) };
        assert_eq!(island_changed_packet(&message.encode_to_vec().into()), packet.encode_to_vec());
    }
}
