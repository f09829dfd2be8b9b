//! Tests of the mesh of an RPC session.

use protocol::mesh::{Link, Route};
use serde_json::Value;

use super::*;

const ME: Address = Address::new([1; 20]);
const NEAR: Address = Address::new([2; 20]);
const FAR: Address = Address::new([3; 20]);

fn assignment(island: &str, is_mesh: bool) -> IslandChange {
    IslandChange { island: island.parse().unwrap(), node: None, is_mesh, message: Bytes::new() }
}

/// A plan in which this client, alias 1, offers to alias 2, which forwards its messages to alias 3.
fn plan(island: &str, version: u32) -> Plan {
    let member = |(alias, address): (u32, Address)| Member { alias, address: address.to_string() };
    Plan {
        island_id: island.to_owned(),
        version,
        alias: 1,
        members: [(1, ME), (2, NEAR), (3, FAR)].map(member).to_vec(),
        links: vec![Link { alias: 2, initiate: true }],
        routes: vec![
            Route { source: 2, from: 2, to: vec![], fallback: vec![] },
            Route { source: 1, from: 0, to: vec![2], fallback: vec![] },
        ],
    }
}

/// A member of the mesh `I1`, without a plan.
fn member() -> MeshSession {
    let mut mesh = MeshSession::default();
    mesh.change_island(&assignment("I1", true));
    mesh
}

fn next_table(mesh: &mut MeshSession, number: u32) -> Option<PeerRoutingTable> {
    Some(PeerRoutingTable::decode(mesh.pop(number)?).unwrap())
}

fn signal(island: &str, sender: Address, content: Content) -> Bytes {
    let (island_id, peer) = (island.to_owned(), sender.to_string());
    Signal { island_id, peer, negotiation: 0, content: Some(content) }.encode_to_vec().into()
}

#[test]
fn table_has_the_newest_plan_and_ice_servers() {
    let mut mesh = member();
    mesh.receive_plan(plan("I1", 1).encode_to_vec().into());
    mesh.open_tables(7).unwrap();
    assert_eq!(mesh.open_tables(8), Err(MeshCallError::StreamOpen));
    let first = next_table(&mut mesh, 7).unwrap();
    assert_eq!(first.paths, [Path { peers: vec![NEAR.to_string()] }]);
    assert_eq!((first.plan, &*first.ice_servers), (Some(plan("I1", 1)), ""));
    assert_eq!(next_table(&mut mesh, 7), None, "it did not change");
    for version in 2..5 {
        mesh.receive_plan(plan("I1", version).encode_to_vec().into());
    }
    mesh.receive_plan(plan("I0", 9).encode_to_vec().into());
    mesh.receive_ice_servers(b"W10");
    let newest = next_table(&mut mesh, 7).unwrap();
    assert_eq!((newest.plan, &*newest.ice_servers), (Some(plan("I1", 4)), "W10"));
    assert_eq!(next_table(&mut mesh, 7), None, "the newest replaced the others");
    mesh.stream_ended(7);
    mesh.open_tables(8).unwrap();
    assert!(next_table(&mut mesh, 8).is_some(), "the newest at once");
    mesh.change_island(&assignment("I1", true));
    assert!(mesh.plan.is_some() && mesh.ice_servers.is_empty());
    mesh.receive_plan(plan("I1", 5).encode_to_vec().into());
    mesh.change_island(&assignment("I2", true));
    assert_eq!(next_table(&mut mesh, 8), None, "a plan of another island is not sent");
}

#[test]
fn status_becomes_a_report_by_the_newest_plan() {
    let mut mesh = member();
    let status = |room: &str, connected_to: &[String]| PeerStatus {
        room: room.to_owned(),
        connected_to: connected_to.to_vec(),
        ..PeerStatus::default()
    };
    assert_eq!(mesh.report(status("I1", &[])), Err(MeshCallError::NoPlan));
    mesh.receive_plan(plan("I1", 3).encode_to_vec().into());
    assert_eq!(mesh.report(status("I0", &[])), Err(MeshCallError::OtherRoom));
    let upper = NEAR.to_string().to_uppercase();
    let former = Address::new([9; 20]).to_string();
    let report = mesh.report(status("I1", &[upper.clone(), upper, former, ME.to_string()])).unwrap();
    let expected = LinkReport {
        island_id: "I1".to_owned(),
        version: 3,
        connected_to: vec![2],
        alias: 1,
        highest_alias: 3,
        neighbours: vec![Member { alias: 2, address: NEAR.to_string() }],
        ..LinkReport::default()
    };
    assert_eq!(report, expected);
    let flood = vec![String::new(); MAX_NEIGHBOURS + 1];
    assert_eq!(mesh.report(status("I1", &flood)), Err(MeshCallError::Neighbours));
    let own = LinkReport { island_id: "I7".to_owned(), failed: vec![3], ..LinkReport::default() };
    let status = PeerStatus { report: Some(own.clone()), ..PeerStatus::default() };
    assert_eq!(mesh.report(status), Ok(own), "the registry checks its island");
}

#[test]
fn fallback_queue_is_bounded() {
    let mut mesh = member();
    let fallback = |length: usize| signal("I1", NEAR, Content::Fallback(vec![0; length].into()));
    assert!(mesh.receive_signal(fallback(1)).is_some());
    mesh.open_fallbacks(7).unwrap();
    assert_eq!(mesh.open_fallbacks(8), Err(MeshCallError::StreamOpen));
    assert_eq!(mesh.pop(7), None, "it arrived before the stream");
    for _ in 0..2 * FALLBACK_MESSAGES {
        assert!(mesh.receive_signal(fallback(1)).is_some(), "the mailbox receives it, too");
    }
    let kept: Vec<Bytes> = std::iter::from_fn(|| mesh.pop(7)).collect();
    let expected = bff::Packet { source: NEAR.to_string(), payload: vec![0].into() };
    assert_eq!((kept.len(), bff::Packet::decode(kept[0].clone()).unwrap()), (FALLBACK_MESSAGES, expected));
    (0..FALLBACK_MESSAGES).for_each(|_| drop(mesh.receive_signal(fallback(16_000))));
    assert_eq!(std::iter::from_fn(|| mesh.pop(7)).count(), FALLBACK_BYTES / (16_000 + 50));
    mesh.stream_ended(7);
    assert!(mesh.fallbacks.is_none());
}

#[test]
fn messages_have_a_bounded_number_of_recipients() {
    let mesh = member();
    let publish = |peers: usize, packet: Option<bff::Packet>| {
        let peers = vec![NEAR.to_string(); peers];
        mesh.fallbacks(bff::Request { peers, packet, reason: 0 }).map(|signals| signals.len())
    };
    let packet = Some(bff::Packet { source: FAR.to_string(), payload: vec![7].into() });
    assert_eq!(publish(1, None), Err(MeshCallError::NoPacket));
    assert_eq!(publish(MAX_RECIPIENTS, packet.clone()), Ok(MAX_RECIPIENTS));
    for count in [0, MAX_RECIPIENTS + 1] {
        assert_eq!(publish(count, packet.clone()), Err(MeshCallError::Recipients));
    }
    let outsider = MeshSession::default();
    let request = bff::Request { peers: vec![NEAR.to_string()], packet, reason: 0 };
    assert_eq!(outsider.fallbacks(request), Err(MeshRefusal::NoMember.into()));
}

#[test]
fn signals_of_the_current_island_name_the_initiator() {
    let mut mesh = member();
    let candidate = || Content::Candidate(r#"{"candidate":""}"#.to_owned());
    let initiator = |mesh: &mut MeshSession, sender| {
        let message = mesh.receive_signal(signal("I1", sender, candidate())).unwrap();
        assert_eq!((message.sender, message.kind), (sender, SignalKind::Candidate));
        serde_json::from_slice::<Value>(&message.payload).unwrap()["initiator"].as_bool()
    };
    assert_eq!(initiator(&mut mesh, NEAR), Some(true), "there is no plan yet");
    mesh.receive_plan(plan("I1", 1).encode_to_vec().into());
    assert_eq!(initiator(&mut mesh, NEAR), Some(false), "this client offers");
    assert_eq!(initiator(&mut mesh, FAR), Some(true), "there is no link");
    assert_eq!(mesh.receive_signal(signal("I0", NEAR, candidate())), None);
    mesh.change_island(&assignment("I1", false));
    assert_eq!(mesh.receive_signal(signal("I1", NEAR, candidate())), None);
}

#[test]
fn fallback_is_exchanged_while_the_island_moves_to_rooms() {
    let mut mesh = member();
    let fallback = || Content::Fallback("late".into());
    mesh.change_island(&assignment("I1", false));
    assert_eq!(mesh.signal("", 0, fallback()).unwrap().island_id, "I1");
    let received = mesh.receive_signal(signal("I1", NEAR, fallback()));
    assert_eq!(received.unwrap().kind, SignalKind::Fallback);
    let offer = Content::Offer(String::new());
    assert_eq!(mesh.signal("", 0, offer), Err(MeshRefusal::NoMember));
    mesh.change_island(&assignment("I2", false));
    assert_eq!(mesh.receive_signal(signal("I1", NEAR, fallback())), None);
    assert_eq!(mesh.signal("", 0, fallback()), Err(MeshRefusal::NoMember));
}
