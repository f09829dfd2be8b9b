//! Each wallet has one session: the newest, unless configured otherwise.

use std::time::{Duration, SystemTime};

use identity::{Identity, Wallet};
use protocol::{
    Close, Position,
    bff::SignedChallenge,
    v3::{Heartbeat, JoinIslandMessage, LeftIslandMessage, server_packet},
};
use test_support::{
    Realm, eventually,
    rpc_caller::Caller,
    wallet,
    wire::{Wire, enter, room_url, sign_in},
};

#[tokio::test(flavor = "multi_thread")]
async fn chains_of_three_links_sign_in() {
    let realm = Realm::start(&[]);
    let ephemeral = Wallet::from_secret([9; 32]).unwrap();
    let wallet = wallet();
    let identity = Identity::new(&wallet, ephemeral, SystemTime::now() + Duration::from_secs(60));
    let mut wire = Wire::open(&realm.socket()).await;
    let challenge = wire.request_challenge(&wallet).await;
    wire.send_auth_chain(identity.sign_challenge(&challenge)).await;
    assert!(matches!(wire.next_packet().await, server_packet::Message::Welcome(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_session_kicks_the_older_and_keeps_the_island() {
    let realm = Realm::start(&[]);
    let wallet = wallet();
    let mut older = sign_in(&realm, &wallet).await;
    older.heartbeat(0.0).await;
    let island = older.island_changed().await.island_id;
    let mut newer = sign_in(&realm, &wallet).await;
    assert!(matches!(older.next_packet().await, server_packet::Message::Kicked(_)));
    let (close, reason) = older.closed().await;
    assert_eq!((close, reason.as_str()), (Close::NewSession, Close::NewSession.reason()));
    assert!(!close.should_reconnect());
    drop(older);
    // Only the first heartbeat causes an assignment, although the island is the same.
    newer.heartbeat(0.0).await;
    let again = newer.island_changed().await;
    assert_eq!((again.island_id, again.from_island_id), (island, None));
    newer.heartbeat(0.0).await;
    assert!(newer.is_silent_for(Duration::from_secs(1)).await);
    assert_eq!(realm.metric("explorer_bff_connected_users").await, 1.0);
    assert_eq!(realm.metric("dcl_archipelago_peers_count").await, 1.0);
    assert_eq!(realm.closed("gateway", Close::NewSession).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_gateway_still_lets_a_wallet_replace_its_session() {
    let realm = Realm::start(&[("GATEWAY__MAX_SESSIONS", "1")]);
    let wallet = wallet();
    let _first = sign_in(&realm, &wallet).await;
    let other = test_support::wallet();
    let mut refused = Wire::open(&realm.socket()).await;
    let challenge = refused.request_challenge(&other).await;
    refused.send_auth_chain(other.sign_challenge(&challenge)).await;
    let (close, _) = refused.closed().await;
    assert_eq!((close, close.should_reconnect()), (Close::Full, true));
    sign_in(&realm, &wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn challenge_reports_a_connected_wallet() {
    let realm = Realm::start(&[]);
    let wallet = wallet();
    let _first = sign_in(&realm, &wallet).await;
    let mut second = Wire::open(&realm.socket()).await;
    let (address, transports) = (wallet.address().to_string(), Vec::new());
    let request = protocol::v3::ChallengeRequestMessage { address, transports, resume_secret: None };
    second.send_packet(protocol::v3::client_packet::Message::ChallengeRequest(request)).await;
    assert!(matches!(second.next_packet().await,
        server_packet::Message::ChallengeResponse(response) if response.already_connected));
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_back_within_the_window_rejoins_its_island() {
    let realm = Realm::start(&[]);
    let (one, two) = (wallet(), wallet());
    let (_wire, _room, _) = enter(&realm, &one, 0.0).await;
    let (wire, room, _) = enter(&realm, &two, 10.0).await;
    drop((wire, room));
    eventually("the membership ends", async || realm.metric("dcl_archipelago_peers_count").await == 1.0)
        .await;
    let (_again, _room, welcome) = enter(&realm, &two, 10.0).await;
    assert!(welcome.peer_identities.values().any(|address| *address == one.address().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_do_not_answer_pings_are_closed() {
    let realm = Realm::start(&[("GATEWAY__PING_INTERVAL_S", "1"), ("ROOMS__PING_INTERVAL_S", "1")]);
    let (wire, room, _) = enter(&realm, &wallet(), 0.0).await;
    assert_eq!(realm.metric("atoll_gateway_sockets").await, 1.0);
    assert_eq!(realm.metric("atoll_rooms_sockets").await, 1.0);
    // The sockets are open, but the test does not read them, so it answers no ping.
    eventually("both are closed", async || {
        realm.metric("explorer_bff_connected_users").await == 0.0
            && realm.metric("dcl_ws_rooms_connections").await == 0.0
    })
    .await;
    assert_eq!(realm.closed("gateway", Close::Silent).await, 1.0);
    assert_eq!(realm.closed("rooms", Close::Silent).await, 1.0);
    drop((wire, room));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_silent_clients_are_pinged() {
    const STEP: Duration = Duration::from_millis(100);
    let realm = Realm::start(&[("GATEWAY__PING_INTERVAL_S", "1"), ("ROOMS__PING_INTERVAL_S", "1")]);
    let (mut wire, mut room, _) = enter(&realm, &wallet(), 0.0).await;
    let mut caller = test_support::rpc_caller::sign_in(&realm, &wallet()).await;
    let position = Some(Position::new(0.0, 0.0, 0.0).into());
    let heartbeat = Heartbeat { position, desired_room: None };
    let mut pings = [0; 3];
    for _ in 0..30 {
        wire.heartbeat(0.0).await;
        caller.call("CommsDirectorService.SendHeartbeat", &heartbeat).await;
        room.update(vec![7; 60], true).await;
        let sockets = [&mut wire, &mut caller.wire, &mut room];
        let within = futures_util::future::join_all(sockets.map(|socket| socket.pings_within(STEP))).await;
        pings.iter_mut().zip(within).for_each(|(all, more)| *all += more);
    }
    assert_eq!(pings, [0; 3], "archipelago, RPC, room");
    let sockets = [&mut wire, &mut caller.wire, &mut room];
    let silent = sockets.map(|socket| socket.pings_within(Duration::from_millis(3_500)));
    for pings in futures_util::future::join_all(silent).await {
        assert!((2..=4).contains(&pings), "{pings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn close_frame_is_answered() {
    let realm = Realm::start(&[]);
    let (wire, room, _) = enter(&realm, &wallet(), 0.0).await;
    for mut socket in [wire, room] {
        socket.0.close(None).await.unwrap();
        let mut answered = false;
        while let Some(message) = futures_util::StreamExt::next(&mut socket.0).await {
            answered |= message.expect("no broken connection").is_close();
        }
        assert!(answered);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_any_heartbeat_ends() {
    let realm = Realm::start(&[("GATEWAY__PING_INTERVAL_S", "1"), ("GATEWAY__IDLE_TIMEOUT_S", "2")]);
    let mut wire = sign_in(&realm, &wallet()).await;
    assert_eq!(wire.closed().await.0, Close::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_token_of_an_older_session_is_refused() {
    let realm = Realm::start(&[]);
    let wallet = wallet();
    let mut older = sign_in(&realm, &wallet).await;
    older.heartbeat(0.0).await;
    let stale = room_url(&older.island_changed().await);
    let (_newer, mut room, _) = enter(&realm, &wallet, 0.0).await;
    let mut back = Wire::open(&stale).await;
    back.identify(&wallet).await;
    let (close, reason) = back.closed().await;
    let revoked = "the access token is from before this address left the island, or signed in again";
    assert_eq!((close, reason.as_str()), (Close::TokenRefused, revoked));
    assert!(room.is_silent_for(Duration::from_millis(300)).await);
}

/// Whether a member joined (or left), the island, and the member.
fn member(packet: server_packet::Message) -> (bool, String, String) {
    match packet {
        server_packet::Message::JoinIsland(JoinIslandMessage { island_id, peer_id }) => {
            (true, island_id, peer_id)
        }
        server_packet::Message::LeftIsland(LeftIslandMessage { island_id, peer_id }) => {
            (false, island_id, peer_id)
        }
        other => panic!("instead of a member: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_notified_of_joins_and_leaves() {
    let realm = Realm::start(&[]);
    let two = wallet();
    // Two peers stay, so that theirs is the larger part and keeps the island.
    let mut other = sign_in(&realm, &wallet()).await;
    other.heartbeat(0.0).await;
    other.island_changed().await;
    let mut earlier = sign_in(&realm, &wallet()).await;
    earlier.heartbeat(0.0).await;
    let island = earlier.island_changed().await.island_id;
    let mut newcomer = sign_in(&realm, &two).await;
    newcomer.heartbeat(10.0).await;
    let change = newcomer.island_changed().await;
    // The new member receives all members at once, the earlier ones a join.
    assert_eq!((change.island_id.as_str(), change.peers.len()), (island.as_str(), 3));
    let member_address = two.address().to_string();
    assert_eq!(member(earlier.next_packet().await), (true, island.clone(), member_address.clone()));
    newcomer.heartbeat(2_000.0).await;
    assert_ne!(newcomer.island_changed().await.island_id, island);
    assert_eq!(member(earlier.next_packet().await), (false, island.clone(), member_address.clone()));
    newcomer.heartbeat(10.0).await;
    assert_eq!(newcomer.island_changed().await.island_id, island);
    assert_eq!(member(earlier.next_packet().await), (true, island.clone(), member_address.clone()));
    drop(newcomer);
    assert_eq!(member(earlier.next_packet().await), (false, island, member_address));
    assert!(earlier.is_silent_for(Duration::from_millis(600)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn member_notifications_can_be_turned_off() {
    let realm = Realm::start(&[("GATEWAY__TELL_MEMBERS", "false")]);
    let mut earlier = sign_in(&realm, &wallet()).await;
    earlier.heartbeat(0.0).await;
    earlier.island_changed().await;
    let mut newcomer = sign_in(&realm, &wallet()).await;
    newcomer.heartbeat(10.0).await;
    assert_eq!(newcomer.island_changed().await.peers.len(), 2);
    drop(newcomer);
    assert!(earlier.is_silent_for(Duration::from_millis(600)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_oldest_refuses_newer_sessions_in_both_dialects() {
    let realm = Realm::start(&[("GATEWAY__KEEP_SESSION", "oldest")]);
    let wallet = wallet();
    let mut oldest = sign_in(&realm, &wallet).await;
    oldest.heartbeat(0.0).await;
    oldest.island_changed().await;
    let mut newer = Wire::open(&realm.socket()).await;
    let challenge = newer.request_challenge(&wallet).await;
    newer.send_auth_chain(wallet.sign_challenge(&challenge)).await;
    let (close, _) = newer.closed().await;
    assert_eq!((close, close.should_reconnect()), (Close::AlreadySignedIn, true));
    let mut caller = Caller::open(&realm).await;
    let challenge = caller.challenge(&wallet).await;
    assert!(challenge.already_connected);
    let signed = SignedChallenge { auth_chain_json: wallet.sign_challenge(&challenge.challenge_to_sign) };
    let reason = caller.call_expecting_error("BffAuthenticationService.Authenticate", &signed).await;
    assert_eq!(reason, Close::AlreadySignedIn.reason());
    assert_eq!(caller.wire.closed().await.0, Close::AlreadySignedIn);
    oldest.heartbeat(500.0).await;
    drop(oldest);
    eventually("the session ends", async || realm.metric("explorer_bff_connected_users").await == 0.0).await;
    sign_in(&realm, &wallet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signer_link_with_a_null_signature_signs_in() {
    let realm = Realm::start(&[]);
    let me = wallet();
    for signature in [r#","signature":null"#, ""] {
        let mut wire = Wire::open(&realm.socket()).await;
        let chain = me.sign_challenge(&wire.request_challenge(&me).await);
        let changed = chain.replacen(r#","signature":"""#, signature, 1);
        assert_ne!(changed, chain);
        wire.send_auth_chain(changed).await;
        assert!(matches!(wire.next_packet().await, server_packet::Message::Welcome(_)));
    }
}
