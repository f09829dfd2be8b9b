//! Peers are grouped into islands, and receive nothing while nothing changes for them.

use std::time::Duration;

use protocol::{
    Position,
    rfc5::ws_packet,
    v3::{ChallengeRequestMessage, Heartbeat, client_packet, server_packet},
};
use test_support::{
    Realm, eventually, wallet,
    wire::{Wire, enter, enter_room, room_url, sign_in, sign_in_with_resume_secret},
};

#[tokio::test(flavor = "multi_thread")]
async fn resumed_session_keeps_its_room_membership() {
    let realm = Realm::start(&[("ROOMS__GRACE_S", "3")]);
    let (lost, other) = (wallet(), wallet());
    let (_first, mut listening, _) = enter(&realm, &other, 0.0).await;
    let (mut session, welcome) = sign_in_with_resume_secret(&realm, &lost, &[]).await;
    session.heartbeat(10.0).await;
    let change = session.island_changed().await;
    let (mut room, _) = enter_room(&lost, &change).await;
    assert!(matches!(listening.next_in_room().await, ws_packet::Message::PeerJoinMessage(_)));
    drop(session);
    eventually("its membership ended", async || realm.metric("dcl_archipelago_peers_count").await == 1.0)
        .await;
    let (mut session, welcome) = sign_in_with_resume_secret(&realm, &lost, &welcome.resume_secret).await;
    assert!(welcome.resumed, "otherwise the older session would lose its seat");
    session.heartbeat(10.0).await;
    assert_eq!(session.island_changed().await.peers.len(), 2);
    // Longer than the grace.
    assert!(
        listening.is_silent_for(Duration::from_secs(5)).await,
        "the other member receives neither a leave nor a join"
    );
    room.update(b"still here".to_vec(), false).await;
    assert!(matches!(listening.next_in_room().await, ws_packet::Message::PeerUpdateMessage(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_share_a_room_until_they_part() {
    let realm = Realm::start(&[("ROOMS__GRACE_S", "1"), ("ISLANDS__RETURN_WINDOW_S", "0")]);
    let (alice, bob, carol) = (wallet(), wallet(), wallet());
    let (_carol_wire, _carol_room, welcome) = enter(&realm, &carol, 0.0).await;
    assert!(welcome.peer_identities.is_empty());
    let (mut alice_wire, mut alice_room, _) = enter(&realm, &alice, 0.0).await;
    let mut bob_wire = sign_in(&realm, &bob).await;
    bob_wire.heartbeat(1_000.0).await;
    let alone = bob_wire.island_changed().await;
    assert_eq!((alone.peers.len(), &alone.from_island_id), (1, &None));
    // Bob walks up to Alice and Carol. Their island is the larger one, and so survives.
    bob_wire.heartbeat(30.0).await;
    let met = bob_wire.island_changed().await;
    assert_eq!(met.from_island_id.as_ref(), Some(&alone.island_id));
    assert_ne!(met.island_id, alone.island_id);
    assert_eq!(met.peers.len(), 3, "all members, including the addressee");
    assert!(met.peers.contains_key(&bob.address().to_string()));
    let mut bob_room = Wire::open(&room_url(&met)).await;
    bob_room.identify(&bob).await;
    let welcome = bob_room.welcome().await;
    let mut there: Vec<String> = welcome.peer_identities.into_values().collect();
    there.sort();
    let mut expected = [&alice, &carol].map(|wallet| wallet.address().to_string());
    expected.sort();
    assert_eq!(there, expected, "the members without the newcomer");
    assert!(
        matches!(alice_room.next_in_room().await, protocol::rfc5::ws_packet::Message::PeerJoinMessage(join)
        if join.address == bob.address().to_string() && join.alias == welcome.alias)
    );
    let joined = alice_wire.next_packet().await;
    assert!(matches!(joined, server_packet::Message::JoinIsland(join) if join.island_id == met.island_id));
    assert!(alice_wire.is_silent_for(Duration::from_secs(1)).await, "her island did not change");
    // Bob walks away again.
    bob_wire.heartbeat(500.0).await;
    let parted = bob_wire.island_changed().await;
    assert_eq!(parted.from_island_id.as_ref(), Some(&met.island_id));
    assert!(parted.island_id != alone.island_id, "ids are never reused");
    let (close, _) = bob_room.closed().await;
    assert_eq!(close, protocol::Close::Moved);
    assert_eq!(realm.closed("rooms", protocol::Close::Moved).await, 1.0);
    let left = alice_wire.next_packet().await;
    assert!(matches!(left, server_packet::Message::LeftIsland(left) if left.island_id == met.island_id));
    assert!(alice_wire.is_silent_for(Duration::from_millis(600)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_stand_still_receive_nothing() {
    let realm = Realm::start(&[("ISLANDS__FLUSH_INTERVAL_MS", "50")]);
    let wallets: Vec<_> = (0..12).map(|_| wallet()).collect();
    let mut wires = Vec::new();
    for (index, wallet) in wallets.iter().enumerate() {
        let mut wire = sign_in(&realm, wallet).await;
        wire.heartbeat(index as f32 * 70.0).await;
        wire.island_changed().await;
        wires.push(wire);
    }
    // A merge may still be in progress.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for wire in &mut wires {
        while !wire.is_silent_for(Duration::from_millis(50)).await {}
    }
    for _ in 0..4 {
        for (index, wire) in wires.iter_mut().enumerate() {
            wire.heartbeat(index as f32 * 70.0).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for wire in &mut wires {
        assert!(wire.is_silent_for(Duration::from_millis(50)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn desired_island_is_preferred() {
    let realm = Realm::start(&[]);
    let (left, right, guest) = (wallet(), wallet(), wallet());
    let mut left = sign_in(&realm, &left).await;
    left.heartbeat(0.0).await;
    let first = left.island_changed().await;
    let mut right = sign_in(&realm, &right).await;
    right.heartbeat(110.0).await;
    let second = right.island_changed().await;
    assert_ne!(first.island_id, second.island_id);
    // Fifty metres from one island and sixty from the other, and all fit into one island: the preferred
    // island is tried first, and the other then merges with it.
    let mut guest = sign_in(&realm, &guest).await;
    let position = Some(Position::new(50.0, 0.0, 0.0).into());
    let desired_room = Some(second.island_id.clone());
    guest.send_packet(client_packet::Message::Heartbeat(Heartbeat { position, desired_room })).await;
    assert_eq!(guest.island_changed().await.peers.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn archipelago_subprotocol_and_transports_are_accepted() {
    let realm = Realm::start(&[]);
    let url = format!("{}/ws", realm.ws);
    let (mut wire, chosen) = Wire::open_with_subprotocols(&url, "archipelago").await;
    assert_eq!(chosen.as_deref(), Some("archipelago"));
    let (address, transports) = (wallet().address().to_string(), vec!["ws-room".to_owned()]);
    let request = ChallengeRequestMessage { address, transports, resume_secret: None };
    wire.send_packet(client_packet::Message::ChallengeRequest(request)).await;
    let server_packet::Message::ChallengeResponse(response) = wire.next_packet().await else {
        panic!("no challenge")
    };
    assert!(response.challenge_to_sign.starts_with("dcl-") && !response.challenge_to_sign.contains(':'));
    assert!(!response.already_connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_client_is_kept_alive_for_a_limited_time() {
    let settings =
        [("ISLANDS__SILENCE_S", "2"), ("GATEWAY__VOUCH_INTERVAL_S", "1"), ("GATEWAY__VOUCH_FOR_S", "6")];
    let realm = Realm::start(&settings);
    let mut wire = sign_in(&realm, &wallet()).await;
    wire.heartbeat(0.0).await;
    wire.island_changed().await;
    assert!(wire.is_silent_for(Duration::from_secs(5)).await);
    assert_eq!(realm.metric("dcl_archipelago_peers_count").await, 1.0, "the gateway keeps it alive");
    eventually("the peer is removed after that", async || {
        // Its socket stays open.
        wire.is_silent_for(Duration::from_millis(10)).await
            && realm.metric("dcl_archipelago_peers_count").await == 0.0
    })
    .await;
}
