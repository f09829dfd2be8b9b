//! A peer of a mesh that exchanges its signals over RPC links with one that uses the archipelago socket.

use std::time::{Duration, Instant};

use protocol::{
    Address, Message,
    bff::{PeerRoutingTable, PeerStatus, PeerTopicSubscriptionResultElem},
    mesh::{Plan, Signal, signal::Content},
    v3::{client_packet, server_packet},
};
use rtc::mesh::{Event, MeshPeer, Options};
use serde_json::{Value, json};
use test_support::network_namespace;
use tokio::time::timeout;

use super::{
    Member, mesh_realm,
    rpc::{PUBLISH, RpcMember, TABLES, UPDATE},
};

/// The time that one side waits for events, so that both make progress in turns.
const TURN: Duration = Duration::from_millis(5);

/// A peer with links over the loopback, and the messages that it received.
struct Peer {
    mesh: MeshPeer,
    /// Whether the newest plan has a route for its own messages.
    is_routed: bool,
    received: Vec<(Address, Vec<u8>)>,
}

impl Peer {
    fn start(address: Address, island: &str) -> Self {
        let udp_addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let mesh = MeshPeer::start(Options { udp_addresses, ..Options::new(address, island) });
        Self { mesh, is_routed: false, received: Vec::new() }
    }

    fn plan(&mut self, plan: Plan) {
        let mut own = plan.routes.iter().filter(|route| route.source == plan.alias);
        self.is_routed = own.any(|route| !route.to.is_empty());
        self.mesh.inputs().plan(plan).unwrap();
    }

    /// The next event for the gateway, if there is one.
    async fn output(&mut self) -> Option<Event> {
        loop {
            match timeout(TURN, self.mesh.next()).await.ok()?? {
                Event::Data(data) => self.received.push((data.sender, data.payload.to_vec())),
                Event::Members { .. } => {}
                event => return Some(event),
            }
        }
    }
}

async fn serve_socket(member: &mut Member, peer: &mut Peer) {
    while let Some(event) = peer.output().await {
        let packet = match event {
            Event::Signal(signal) => client_packet::Message::MeshSignal(signal),
            Event::Report(report) => client_packet::Message::MeshLinks(report),
            other => panic!("{other:?}"),
        };
        member.wire.send_packet(packet).await;
    }
    while !member.wire.is_quiet_for(TURN).await {
        match member.wire.next_packet().await {
            server_packet::Message::MeshSignal(signal) => peer.mesh.inputs().signal(signal).unwrap(),
            server_packet::Message::MeshPlan(plan) => peer.plan(plan),
            _ => {}
        }
    }
}

/// The kind and the payload of a signal for the mailbox of its recipient.
fn publication(signal: &Signal) -> (&'static str, String) {
    let negotiation = signal.negotiation;
    let description =
        |kind, sdp: &str| (kind, json!({ "type": kind, "sdp": sdp, "negotiation": negotiation }).to_string());
    match signal.content.as_ref().unwrap() {
        Content::Offer(sdp) => description("offer", sdp),
        Content::Answer(sdp) => description("answer", sdp),
        Content::Candidate(init) => {
            let init: Value = serde_json::from_str(init).unwrap();
            let message = json!({ "candidate": init, "initiator": true, "negotiation": negotiation });
            ("candidate", message.to_string())
        }
        Content::Fallback(_) => panic!("every member has a path"),
    }
}

/// The signal of a message in the mailbox of `owner`.
fn signal(island: &str, owner: Address, message: PeerTopicSubscriptionResultElem) -> Signal {
    let json: Value = serde_json::from_slice(&message.payload).unwrap();
    let sdp = || json["sdp"].as_str().unwrap().to_owned();
    let content = match message.topic.strip_prefix(&format!("{owner}.")).unwrap() {
        "offer" => Content::Offer(sdp()),
        "answer" => Content::Answer(sdp()),
        "candidate" => Content::Candidate(json["candidate"].to_string()),
        other => panic!("{other}"),
    };
    let negotiation = json["negotiation"].as_u64().unwrap_or_default().try_into().unwrap();
    Signal { island_id: island.to_owned(), peer: message.sender, negotiation, content: Some(content) }
}

async fn serve_rpc(member: &mut RpcMember, tables: u32, peer: &mut Peer) {
    while let Some(event) = peer.output().await {
        match event {
            Event::Signal(signal) => {
                let (kind, payload) = publication(&signal);
                let to = signal.peer.parse().unwrap();
                member.caller.call(PUBLISH, &RpcMember::publication(to, kind, payload.as_bytes())).await;
            }
            Event::Report(report) => {
                let status = PeerStatus { report: Some(report), ..PeerStatus::default() };
                member.caller.call(UPDATE, &status).await;
            }
            other => panic!("{other:?}"),
        }
    }
    let mailbox = member.mailbox.0;
    while let Ok(message) = timeout(TURN, member.caller.stream_message(mailbox)).await {
        member.caller.acknowledge(mailbox, message.sequence_id, false).await;
        let message = PeerTopicSubscriptionResultElem::decode(message.payload).unwrap();
        peer.mesh.inputs().signal(signal(&member.island, member.address, message)).unwrap();
    }
    while let Ok(message) = timeout(TURN, member.caller.stream_message(tables)).await {
        member.caller.acknowledge(tables, message.sequence_id, false).await;
        peer.plan(PeerRoutingTable::decode(message.payload).unwrap().plan.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_and_socket_peers_link_and_exchange_data() {
    if !network_namespace::enter("mesh::rpc_peer::rpc_and_socket_peers_link_and_exchange_data") {
        return;
    }
    let (realm, _folder) = mesh_realm(&[]);
    let mut rpc = RpcMember::join(&realm, 0.0).await;
    let tables = rpc.caller.stream(TABLES, &()).await;
    for stream in [rpc.mailbox.0, tables] {
        rpc.caller.acknowledge(stream, 0, false).await;
    }
    let mut socket = Member::join(&realm, 5.0).await;
    let mut over_rpc = Peer::start(rpc.address, &rpc.island);
    let mut over_socket = Peer::start(socket.address, &socket.island);
    let (began, mut sent) = (Instant::now(), false);
    while over_rpc.received.is_empty() || over_socket.received.is_empty() {
        serve_rpc(&mut rpc, tables, &mut over_rpc).await;
        serve_socket(&mut socket, &mut over_socket).await;
        if !sent && over_rpc.is_routed && over_socket.is_routed {
            over_rpc.mesh.sender().send_reliable("over rpc".into()).unwrap();
            over_socket.mesh.sender().send_reliable("over the socket".into()).unwrap();
            sent = true;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no link, or no message: sent {sent}");
    }
    println!("linked and exchanged after {:?}", began.elapsed());
    assert_eq!(over_socket.received, [(rpc.address, b"over rpc".to_vec())]);
    assert_eq!(over_rpc.received, [(socket.address, b"over the socket".to_vec())]);
    assert_eq!(realm.count("atoll_gateway_mesh_signals_total{kind=\"fallback\"}").await, 0.0);
}
