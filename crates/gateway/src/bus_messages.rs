//! The bus messages that a gateway receives, and their distribution to sessions, topics, `/about` and logins.

use std::sync::Arc;

use bus::{Bus, Envelope, Headers, Subscription};
use bytes::Bytes;
use protocol::{
    IslandId, Message as _, Subject,
    atoll_bus::TransportAnnouncement,
    subject,
    v3::{JoinIslandMessage, ServiceDiscoveryMessage},
};

use crate::{
    session::message::{IslandChange, MemberChange, MeshMessage},
    shared::Shared,
    topics::Topics,
};

/// The bus subscriptions of a gateway. Messages of the engine and topic messages have separate queues, so
/// that a flood of topic messages cannot displace assignments.
#[derive(Debug)]
pub struct BusSubscriptions {
    pub(crate) engine: Subscription,
    pub(crate) topics: Subscription,
}

/// Bound of the queue of engine messages from the bus. When it is full, the newest message is dropped and
/// counted.
const BUS_QUEUE_MESSAGES: usize = 262_144;
/// Bound of the queue of topic messages, each of up to 64 KiB; same overflow rule.
const TOPICS_QUEUE_MESSAGES: usize = 4_096;

/// Subscribes to the bus. Messages from this call on are queued.
pub(crate) fn subscribe(bus: &Bus) -> BusSubscriptions {
    let patterns = [
        subject::PEER_ISLAND_CHANGES,
        subject::PEER_CONNECTS,
        subject::PEER_DISCONNECTS,
        subject::ISLAND_PEER_JOINS,
        subject::ISLAND_PEER_LEAVES,
        subject::ENGINE_DISCOVERY,
        subject::TRANSPORT_ANNOUNCEMENTS,
        subject::PEERS_WANTED,
        subject::MESH_SIGNALS,
        subject::MESH_PLANS,
        subject::MESH_ICE_SERVERS,
    ];
    let topics = [subject::TOPICS, subject::SCENE_TOPICS];
    BusSubscriptions {
        engine: bus.subscribe("gateway", &patterns, BUS_QUEUE_MESSAGES),
        topics: bus.subscribe("gateway-topics", &topics, TOPICS_QUEUE_MESSAGES),
    }
}

/// Handles a message of the engine, of another gateway or of a transport.
pub(crate) fn handle_engine_message(shared: &Shared, envelope: &Envelope) {
    match envelope.subject() {
        Some(Subject::PeerIslandChanged(peer)) => {
            let (Headers { session, node, .. }, message) = (&envelope.headers, &envelope.payload);
            // A change without a valid island id does not come from a director.
            let Some((island, is_mesh)) = decode_assignment(message) else { return };
            let change = IslandChange { island, node: node.clone(), is_mesh, message: message.clone() };
            shared.sessions.deliver_island_change(peer, *session, change);
        }
        Some(subject @ (Subject::IslandPeerJoin(_) | Subject::IslandPeerLeft(_))) => {
            handle_member_change(shared, &subject, envelope);
        }
        Some(Subject::PeerConnect(peer)) => {
            if let Some(session) = envelope.headers.session {
                shared.sessions.observe_session(peer, session, None, envelope.headers.resumption().hash);
            }
        }
        Some(Subject::PeerDisconnect(peer)) => shared.sessions.observe_end(peer, envelope.headers.session),
        Some(Subject::EngineDiscovery) => {
            if let Ok(discovery) = ServiceDiscoveryMessage::decode(&envelope.payload[..]) {
                shared.director_status.lock().record(&discovery);
            }
        }
        // Only logins to a fixed room need the announcements.
        Some(Subject::TransportAnnounce(_)) if shared.login.room.is_some() => {
            if let Ok(announcement) = TransportAnnouncement::decode(&envelope.payload[..]) {
                shared.login.observe_node(announcement);
            }
        }
        // The session in the headers of a signal is that of its sender.
        Some(Subject::MeshSignal(peer)) => {
            let message = MeshMessage::Signal(envelope.payload.clone());
            shared.sessions.deliver_mesh_message(peer, None, message);
        }
        Some(Subject::MeshPlan(peer)) => {
            let message = MeshMessage::Plan(envelope.payload.clone());
            shared.sessions.deliver_mesh_message(peer, envelope.headers.session, message);
        }
        Some(Subject::MeshIceServers(peer)) => {
            let message = MeshMessage::IceServers(envelope.payload.clone());
            shared.sessions.deliver_mesh_message(peer, envelope.headers.session, message);
        }
        Some(Subject::PeersWanted) => {
            shared.roster_requests.send_replace(());
        }
        _ => {}
    }
}

/// Delivers a topic message to its subscriptions.
pub(crate) fn handle_topic_message(topics: &Topics, envelope: &Envelope) {
    if envelope.missed > 0 {
        topics.record_missed(envelope.missed);
    }
    match envelope.subject() {
        Some(Subject::PeerTopic(sender, topic)) => topics.deliver_peer(sender, &topic, &envelope.payload),
        Some(Subject::SceneTopic(topic)) => {
            topics.deliver_scene(envelope.headers.sender, &topic, &envelope.payload);
        }
        Some(Subject::SystemTopic(topic)) => topics.deliver_system(&topic, &envelope.payload),
        _ => {}
    }
}

fn handle_member_change(shared: &Shared, subject: &Subject, envelope: &Envelope) {
    let (island, joined) = match subject {
        Subject::IslandPeerJoin(island) => (island, true),
        Subject::IslandPeerLeft(island) => (island, false),
        _ => return,
    };
    // `JoinIslandMessage` and `LeftIslandMessage` have the same fields.
    let message = JoinIslandMessage::decode(&envelope.payload[..]).ok();
    let Some(peer) = message.and_then(|message| message.peer_id.parse().ok()) else { return };
    shared.sessions.observe_member_change(island, peer, envelope.headers.session, joined);
    if shared.settings.send_member_changes
        && let Ok(topic) = subject.to_string().parse()
    {
        let change = Arc::new(MemberChange { joined, topic, message: envelope.payload.clone() });
        shared.sessions.broadcast_member_change(island, peer, envelope.headers.session, &change);
    }
}

/// The fields of an `IslandChangedMessage` that are decoded. Its bytes are forwarded unchanged.
#[derive(Clone, PartialEq, prost::Message)]
struct AssignmentFields {
    #[prost(string, tag = "1")]
    island_id: String,
    #[prost(string, tag = "2")]
    conn_str: String,
}

/// Decodes the island id of an `IslandChangedMessage`, and whether the island is a mesh.
fn decode_assignment(change: &Bytes) -> Option<(IslandId, bool)> {
    let AssignmentFields { island_id, conn_str } = AssignmentFields::decode(&change[..]).ok()?;
    Some((island_id.parse().ok()?, conn_str.starts_with("p2p:")))
}
