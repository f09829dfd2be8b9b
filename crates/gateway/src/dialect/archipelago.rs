//! The dialect of the archipelago socket: each message is one packet.

use std::future;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use protocol::{
    Address, Close, Message as _,
    mesh::Signal,
    v3::{
        ChallengeResponseMessage, ClientPacket, KickedMessage, ServerPacket, WelcomeMessage, client_packet,
        server_packet,
    },
};
use tokio::time::Instant;

use crate::{
    dialect::{ClientRequest, Dialect, FrameCost},
    mesh::{refusal::MeshRefusal, throttle::SignalThrottle},
    session::{
        message::{MeshMessage, SessionMessage},
        resumption::Resumption,
    },
};

/// The packets of one client that are not yet processed or written: at most one in each direction, because the
/// driver processes and writes each before the next.
#[derive(Debug, Default)]
pub(crate) struct ArchipelagoDialect {
    received: Option<ClientRequest>,
    output: Option<Bytes>,
    signal_throttle: SignalThrottle,
}

impl ArchipelagoDialect {
    fn signal(&mut self, signal: Signal, length: usize) -> Option<ClientRequest> {
        let signals = vec![signal];
        match self.signal_throttle.charge(&signals, length, Instant::now()) {
            Ok(read_at) => Some(ClientRequest::MeshSignals { signals, read_at }),
            Err(refusal) => {
                refusal.count_signal();
                None
            }
        }
    }

    fn send(&mut self, message: server_packet::Message) {
        self.output = Some(encode(message));
    }
}

impl Dialect for ArchipelagoDialect {
    fn receive(&mut self, message: Bytes) -> Result<FrameCost, Close> {
        let length = message.len();
        let packet = ClientPacket::decode(message).map_err(|_| Close::Undecodable)?;
        self.received = packet.message.and_then(|message| match message {
            client_packet::Message::ChallengeRequest(request) => Some(ClientRequest::Challenge(request)),
            client_packet::Message::SignedChallenge(signed) => {
                Some(ClientRequest::Authenticate { auth_chain_json: signed.auth_chain_json })
            }
            client_packet::Message::Heartbeat(heartbeat) => Some(ClientRequest::Heartbeat(heartbeat)),
            client_packet::Message::MeshSignal(signal) => self.signal(signal, length),
            client_packet::Message::MeshLinks(report) => Some(ClientRequest::MeshLinks(report)),
        });
        Ok(FrameCost::Charged)
    }

    /// A packet of an unknown type, perhaps of a later protocol version, is no request.
    fn poll_request(&mut self, _now: Instant) -> Option<ClientRequest> {
        self.received.take()
    }

    fn challenge(&mut self, challenge_to_sign: &str, already_connected: bool) {
        let challenge_to_sign = challenge_to_sign.to_owned();
        let response = ChallengeResponseMessage { challenge_to_sign, already_connected };
        self.send(server_packet::Message::ChallengeResponse(response));
    }

    /// The close frame carries the reason.
    fn reject(&mut self, _reason: &str) {}

    fn welcome(&mut self, peer: Address, resumption: Option<Resumption>) {
        let (resume_secret, resumed) = Resumption::welcome(resumption);
        let welcome = WelcomeMessage { peer_id: peer.to_string(), resume_secret, resumed };
        self.send(server_packet::Message::Welcome(welcome));
    }

    fn deliver(&mut self, message: &SessionMessage) {
        self.output = Some(encode_session_message(message));
    }

    /// This dialect has no responses: a member learns of a lost signal when its link is not formed in time.
    fn mesh_request_handled(&mut self, _result: Result<(), MeshRefusal>) {}

    fn kick(&mut self) {
        self.send(server_packet::Message::Kicked(KickedMessage { reason: 0 }));
    }

    fn poll_output(&mut self) -> Option<Bytes> {
        self.output.take()
    }

    fn wait_for_output(&self) -> impl Future<Output = ()> + Send {
        future::pending()
    }
}

fn encode(message: server_packet::Message) -> Bytes {
    ServerPacket { message: Some(message) }.encode_to_vec().into()
}

/// Encodes a session message as a `ServerPacket` around the encoded bytes that it carries, without decoding
/// them.
fn encode_session_message(message: &SessionMessage) -> Bytes {
    const ISLAND_CHANGED_FIELD: u32 = 3;
    const LEFT_ISLAND_FIELD: u32 = 4;
    const JOIN_ISLAND_FIELD: u32 = 5;
    const MESH_SIGNAL_FIELD: u32 = 100;
    const MESH_PLAN_FIELD: u32 = 101;
    const ICE_SERVERS_FIELD: u32 = 102;
    let (field, message) = match message {
        SessionMessage::IslandChanged(change) => (ISLAND_CHANGED_FIELD, &change.message),
        SessionMessage::MemberChanged(change) if change.joined => (JOIN_ISLAND_FIELD, &change.message),
        SessionMessage::MemberChanged(change) => (LEFT_ISLAND_FIELD, &change.message),
        SessionMessage::Mesh(MeshMessage::Signal(signal)) => (MESH_SIGNAL_FIELD, signal),
        SessionMessage::Mesh(MeshMessage::Plan(plan)) => (MESH_PLAN_FIELD, plan),
        // A string is encoded like a message.
        SessionMessage::Mesh(MeshMessage::IceServers(servers)) => (ICE_SERVERS_FIELD, servers),
    };
    let mut packet = BytesMut::with_capacity(message.len() + 6);
    encode_key(field, WireType::LengthDelimited, &mut packet);
    encode_varint(message.len() as u64, &mut packet);
    packet.put_slice(message);
    packet.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::v3::{Heartbeat, IslandChangedMessage, JoinIslandMessage, LeftIslandMessage};
    use server_packet::Message::{IslandChanged, JoinIsland, LeftIsland};

    use super::*;
    use crate::session::message::{IslandChange, MemberChange};

    #[test]
    fn wrapped_session_message_equals_its_encoding() {
        let change = IslandChangedMessage {
            island_id: "I1".to_owned(),
            conn_str: "x".repeat(300),
            from_island_id: Some("I0".to_owned()),
            peers: Default::default(),
        };
        let (island, message) = ("I1".parse().unwrap(), change.encode_to_vec().into());
        let message =
            SessionMessage::IslandChanged(IslandChange { island, node: None, is_mesh: false, message });
        assert_eq!(encode_session_message(&message), encode(IslandChanged(change)));
        let member = |joined, message: Vec<u8>| {
            let topic = "island.I1.peer_join".parse().unwrap();
            SessionMessage::MemberChanged(Arc::new(MemberChange { joined, topic, message: message.into() }))
        };
        let join = JoinIslandMessage { island_id: "I1".to_owned(), peer_id: "0x1".to_owned() };
        assert_eq!(encode_session_message(&member(true, join.encode_to_vec())), encode(JoinIsland(join)));
        let left = LeftIslandMessage { island_id: "I1".to_owned(), peer_id: "0x1".to_owned() };
        assert_eq!(encode_session_message(&member(false, left.encode_to_vec())), encode(LeftIsland(left)));
    }

    #[test]
    fn packet_is_one_request_and_unknown_packet_is_none() {
        let (mut dialect, now) = (ArchipelagoDialect::default(), Instant::now());
        let heartbeat = client_packet::Message::Heartbeat(Heartbeat::default());
        let packet = ClientPacket { message: Some(heartbeat) }.encode_to_vec();
        assert_eq!(dialect.receive(packet.into()), Ok(FrameCost::Charged));
        assert_eq!(dialect.poll_request(now), Some(ClientRequest::Heartbeat(Heartbeat::default())));
        assert_eq!(dialect.poll_request(now), None);
        assert_eq!(dialect.receive(Bytes::new()), Ok(FrameCost::Charged));
        assert_eq!(dialect.poll_request(now), None, "a packet of an unknown type");
        assert_eq!(dialect.receive(Bytes::from_static(&[0xff; 3])), Err(Close::Undecodable));
    }
}
