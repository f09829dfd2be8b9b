//! Tests of configured nodes: health, announcements, minting.

use std::{sync::Arc, time::Duration};

use archipelago::AssignedIsland;
use bus::{Bus, Headers, Term};
use protocol::{
    Address, ConnectionString, MediaGrants, Message as _, Subject, Ulid, atoll_bus::TransportAnnouncement,
    subject, v3::IslandChangedMessage,
};
use tokio::{runtime::Handle, sync::mpsc, time};

use super::*;
use crate::{
    Director,
    flush_batch::{FlushBatch, PeerAssignment},
    publisher::{PublishJob, PublishTerm, Publisher},
    room_gate::RoomGate,
    tests::{announce, heartbeat, settings},
};

fn configured(node: &str, offer: TransportOffer) -> ConfiguredNode {
    let node = node.parse().unwrap();
    ConfiguredNode { node, offer, max_island_size: 12, max_users: Some(50), draining: false }
}

fn livekit() -> ConfiguredNode {
    let settings = LiveKitSettings {
        url: "wss://lk.example".to_owned(),
        api_url: "http://127.0.0.1:9".to_owned(),
        keys: livekit::Keys::new("key", "secret"),
        token_ttl: Duration::from_secs(300),
        probed: false,
        hang_timeout: Duration::from_secs(3),
        auto_create: true,
        grace: Duration::from_secs(10),
    };
    configured("lk", TransportOffer::LiveKit(Arc::new(settings)))
}

fn p2p() -> ConfiguredNode {
    configured("mesh", TransportOffer::P2p(p2p::Minter::default()))
}

fn external() -> ConfiguredNode {
    configured("pulse", TransportOffer::External("pulse:wss://host/{island}".parse().unwrap()))
}

#[test]
fn announcement_matches_the_configuration() {
    let transport = external().transport(0);
    assert_eq!((transport.kind, transport.seats), (TransportKind::External, Some(50)));
    assert_eq!(&*transport.public_url, "pulse:wss://host/{island}");
    let unlimited = ConfiguredNode { max_users: None, draining: true, ..p2p() }.transport(0);
    assert_eq!((unlimited.kind, unlimited.seats, unlimited.draining), (TransportKind::P2p, None, true));
    assert_eq!(livekit().transport(60).seats, Some(0));
}

#[tokio::test]
async fn each_node_gets_strings_of_its_own_minter() {
    let bus = Bus::in_process();
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    let rooms = ws_room::Minter::new(b"secret", Duration::from_secs(300));
    let minters = Minters::new(rooms, &[livekit(), p2p(), external()]);
    let assigned = ["lk", "mesh", "pulse", "rooms-7"].map(|node| {
        let (id, members) = (format!("I{node}").parse().unwrap(), Vec::new());
        let (node, node_url) = (node.parse().unwrap(), "wss://there".into());
        let island =
            AssignedIsland { id, node, node_url, rule: None, media: MediaGrants::default(), members };
        PeerAssignment { peer: Address::new([1; 20]), session: None, from: None, island: island.into() }
    });
    let (jobs, receiver) = mpsc::channel(1);
    tokio::spawn(Publisher::new(bus, minters, RoomGate::new(Vec::new(), mpsc::channel(1).0)).run(receiver));
    let batch = FlushBatch { assigned: assigned.into(), ..FlushBatch::default() };
    let publish_term = PublishTerm { term: Term { epoch: None }, minted_after: Ulid::nil(), leader: 0 };
    jobs.send(PublishJob::Batch(publish_term, batch, Arc::default())).await.unwrap();
    let mut strings = Vec::new();
    for _ in 0..4 {
        let change = IslandChangedMessage::decode(changes.next().await.unwrap().payload).unwrap();
        strings.push(change.conn_str.parse::<ConnectionString>().unwrap());
    }
    let [livekit, mesh, pulse, room] = &strings[..] else { panic!("{strings:?}") };
    assert!(matches!(livekit, ConnectionString::LiveKit { url, .. } if url == "wss://there"), "{livekit}");
    assert_eq!(mesh.to_string(), "p2p:Imesh");
    assert_eq!(pulse.to_string(), "pulse:wss://host/Ipulse");
    assert!(
        matches!(room, ConnectionString::WsRoom { url, .. } if url == "wss://there/rooms/Irooms-7"),
        "{room}"
    );
}

#[tokio::test]
async fn announcement_of_a_taken_name_or_unknown_kind_is_refused() {
    let bus = Bus::in_process();
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
    let settings = crate::Settings { transports: vec![p2p()], ..settings() };
    let director = Director::new(settings, bus.clone(), minter).unwrap();
    let announce = |node: &str, kind: &str| {
        let announcement = TransportAnnouncement {
            node: node.to_owned(),
            kind: kind.to_owned(),
            public_url: "ws://there.example".to_owned(),
            max_island_size: 100,
            available_seats: 1_000,
            ..TransportAnnouncement::default()
        };
        let subject = Subject::TransportAnnounce(node.parse().unwrap());
        bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
    };
    announce("mesh", "ws-room");
    announce("rooms-1", "livekit");
    tokio::spawn(director.run(Handle::current()));
    heartbeat(&bus, 1, None, 0.0);
    time::sleep(Duration::from_millis(200)).await;
    assert!(changes.try_next().is_none(), "neither was accepted");
    announce("rooms-1", "ws-room");
    let change = time::timeout(Duration::from_secs(5), changes.next()).await.expect("a room").unwrap();
    let change = IslandChangedMessage::decode(change.payload).unwrap();
    assert!(change.conn_str.starts_with("ws-room:ws://there.example/rooms/I"), "{}", change.conn_str);
}

#[tokio::test]
async fn early_peer_is_assigned_to_the_preferred_node_at_once() {
    let bus = Bus::in_process();
    let mut changes = bus.subscribe("test", &[subject::PEER_ISLAND_CHANGES], 16);
    let minter = ws_room::Minter::new(b"secret", Duration::from_secs(300));
    let engine = archipelago::Settings {
        assumed_transports: ["pulse", "ws-room"].map(str::to_owned).into(),
        ..settings().engine
    };
    let rules = r#"default = { transports = ["external", "ws-room"] }"#;
    let rules = Arc::new(archipelago::rules::Rules::parse(rules).unwrap());
    let settings = crate::Settings { engine, rules, transports: vec![external()], ..settings() };
    let director = Director::new(settings, bus.clone(), minter).unwrap();
    announce(&bus);
    heartbeat(&bus, 1, None, 0.0);
    tokio::spawn(director.run(Handle::current()));
    let change = time::timeout(Duration::from_secs(5), changes.next()).await.expect("a room").unwrap();
    let change = IslandChangedMessage::decode(change.payload).unwrap();
    assert_eq!(change.conn_str, format!("pulse:wss://host/{}", change.island_id));
}
