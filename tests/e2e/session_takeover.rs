//! A newer session of a wallet ends the room sockets of the older one, unless it resumes it.

use std::time::Duration;

use client::{Address, Dialect, Event, Explorer, Gateway, Handle, Settings};
use identity::Wallet;
use protocol::{
    Close, Message as _, Position,
    bff::{SignedChallenge, WelcomePeerInformation},
    rfc5::ws_packet,
    v3::{IslandChangedMessage, ServerPacket, server_packet},
};
use test_support::{
    Cluster, Realm, TEST_TIMEOUT,
    rpc_caller::Caller,
    wallet,
    wire::{Wire, enter, enter_room, next_update, room_url, sign_in, sign_in_with_resume_secret},
};
use tokio::time::{Instant, sleep, timeout};

const GRACE: Duration = Duration::from_secs(1);
/// Longer than the grace, on a busy machine.
const AFTER_GRACE: Duration = Duration::from_secs(3);

/// A realm with these gateways. Its rooms close sockets one second after the membership ended.
async fn realm_with(gateways: &[&str]) -> Cluster {
    let settings = [("ROOMS__GRACE_S", "1"), ("ISLANDS__FLUSH_INTERVAL_MS", "100")];
    Cluster::with_gateways(gateways, &settings).await
}

/// Sends a position, and returns the assignment.
async fn island(wire: &mut Wire, x: f32) -> IslandChangedMessage {
    wire.heartbeat(x).await;
    wire.island_changed().await
}

/// Asserts that a room refuses the token of an older session.
async fn assert_refused(wallet: &Wallet, change: &IslandChangedMessage) {
    let mut room = Wire::open(&room_url(change)).await;
    room.identify(wallet).await;
    assert_eq!(room.closed().await.0, Close::TokenRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_room_socket_is_closed_after_a_stock_takeover() {
    let cluster = realm_with(&["one", "two"]).await;
    let (member, other) = (wallet(), wallet());
    let (mut other_wire, mut other_room, _) = enter(&cluster["one"], &other, 0.0).await;
    let mut older = sign_in(&cluster["one"], &member).await;
    let before = island(&mut older, 1.0).await;
    let (mut room, welcome) = enter_room(&member, &before).await;
    assert!(matches!(other_room.next_in_room().await, ws_packet::Message::PeerJoinMessage(_)));
    assert!(matches!(other_wire.next_packet().await, server_packet::Message::JoinIsland(_)));
    let mut newer = sign_in(&cluster["two"], &member).await;
    let began = Instant::now();
    let after = island(&mut newer, 1.0).await;
    assert_eq!(after.island_id, before.island_id, "the peer keeps its island");
    assert_refused(&member, &before).await;
    let (close, _) = room.closed().await;
    assert_eq!(close, Close::Moved);
    assert!(began.elapsed() > GRACE / 2, "the grace allows to enter anew");
    assert_refused(&member, &before).await;
    let left = other_room.next_in_room().await;
    assert!(matches!(&left, ws_packet::Message::PeerLeaveMessage(left) if left.alias == welcome.alias));
    let _entered = enter_room(&member, &after).await;
    assert!(matches!(other_room.next_in_room().await, ws_packet::Message::PeerJoinMessage(_)));
    assert!(other_wire.is_silent_for(GRACE).await, "the director announces neither a leave nor a join");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_socket_of_the_newer_session_outlives_the_grace() {
    let cluster = realm_with(&["one", "two"]).await;
    let member = wallet();
    let mut older = sign_in(&cluster["one"], &member).await;
    let before = island(&mut older, 0.0).await;
    let (mut room, _) = enter_room(&member, &before).await;
    let mut newer = sign_in(&cluster["two"], &member).await;
    let after = island(&mut newer, 0.0).await;
    let (mut entered, _) = enter_room(&member, &after).await;
    assert_eq!(room.closed().await.0, Close::NewSession, "the room kicks it at once");
    assert!(entered.is_silent_for(AFTER_GRACE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_room_socket_is_closed_wherever_the_newer_session_is() {
    let cluster = realm_with(&["one", "two"]).await;
    let _others =
        [enter(&cluster["one"], &wallet(), 0.0).await, enter(&cluster["one"], &wallet(), 1.0).await];
    // The newer session has no position, and so no room; or it is in another island.
    for elsewhere in [None, Some(5_000.0)] {
        let member = wallet();
        let mut older = sign_in(&cluster["one"], &member).await;
        let before = island(&mut older, 0.0).await;
        let (mut room, _) = enter_room(&member, &before).await;
        let mut newer = sign_in(&cluster["two"], &member).await;
        if let Some(x) = elsewhere {
            assert_ne!(island(&mut newer, x).await.island_id, before.island_id);
        }
        assert_eq!(room.closed().await.0, Close::Moved);
        assert_refused(&member, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_room_socket_is_closed_although_the_peer_rejoins() {
    let cluster = realm_with(&["one", "two"]).await;
    let (member, other) = (wallet(), wallet());
    let (mut other_wire, _other_room, _) = enter(&cluster["one"], &other, 0.0).await;
    let mut older = sign_in(&cluster["one"], &member).await;
    let before = island(&mut older, 1.0).await;
    let (mut room, _) = enter_room(&member, &before).await;
    older.0.close(None).await.unwrap();
    loop {
        if let server_packet::Message::LeftIsland(_) = other_wire.next_packet().await {
            break;
        }
    }
    let mut newer = sign_in(&cluster["two"], &member).await;
    assert_eq!(island(&mut newer, 1.0).await.island_id, before.island_id);
    assert_eq!(room.closed().await.0, Close::Moved);
    assert_refused(&member, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_secret_keeps_the_room_socket_once() {
    let cluster = realm_with(&["one", "two"]).await;
    let member = wallet();
    let (mut wire, first) = sign_in_with_resume_secret(&cluster["one"], &member, &[]).await;
    assert!(!first.resumed);
    let before = island(&mut wire, 0.0).await;
    let (mut room, _) = enter_room(&member, &before).await;
    // The other gateway receives the session over the bus a moment later.
    sleep(Duration::from_millis(300)).await;
    let (mut wire, second) = sign_in_with_resume_secret(&cluster["two"], &member, &first.resume_secret).await;
    assert!(second.resumed);
    assert_ne!(second.resume_secret, first.resume_secret);
    assert_eq!(island(&mut wire, 0.0).await.island_id, before.island_id);
    assert!(room.is_silent_for(AFTER_GRACE).await, "the membership is kept");
    let (_wire, third) = sign_in_with_resume_secret(&cluster["one"], &member, &first.resume_secret).await;
    assert!(!third.resumed, "the secret was used");
    assert_eq!(room.closed().await.0, Close::Moved);
    assert_refused(&member, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_resume_secret_does_not_resume() {
    let cluster = realm_with(&["one", "two"]).await;
    let (member, other) = (wallet(), wallet());
    let (_other, others) = sign_in_with_resume_secret(&cluster["one"], &other, &[]).await;
    for secret in [vec![7; 16], others.resume_secret, vec![7; 1_000], Vec::new()] {
        let (mut wire, _) = sign_in_with_resume_secret(&cluster["one"], &member, &[]).await;
        let before = island(&mut wire, 0.0).await;
        let (mut room, _) = enter_room(&member, &before).await;
        sleep(Duration::from_millis(300)).await;
        let (_wire, welcome) = sign_in_with_resume_secret(&cluster["two"], &member, &secret).await;
        assert!(!welcome.resumed);
        assert_eq!(room.closed().await.0, Close::Moved);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_started_later_resumes_a_session() {
    let mut cluster = realm_with(&["first"]).await;
    let member = wallet();
    let (mut wire, first) = sign_in_with_resume_secret(&cluster["first"], &member, &[]).await;
    let before = island(&mut wire, 0.0).await;
    let (mut room, _) = enter_room(&member, &before).await;
    cluster.run("later", "gateway", &[]);
    // The sign-in waits until the other gateway has reported the session.
    let (mut wire, second) =
        sign_in_with_resume_secret(&cluster["later"], &member, &first.resume_secret).await;
    assert!(second.resumed);
    assert_eq!(island(&mut wire, 0.0).await.island_id, before.island_id);
    assert!(room.is_silent_for(AFTER_GRACE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_receive_no_extension_fields() {
    let realm = Realm::start(&[]);
    let member = wallet();
    for _ in 0..2 {
        let mut wire = Wire::open(&realm.socket()).await;
        let challenge = wire.request_challenge(&member).await;
        wire.send_auth_chain(member.sign_challenge(&challenge)).await;
        let peer_id = member.address().to_string();
        // `welcome {string peer_id = 1}` in field 2 of the packet, and nothing else.
        let expected = [&[0x12, 44, 0x0a, 42][..], peer_id.as_bytes()].concat();
        assert_eq!(wire.next().await, expected);
        wire.heartbeat(0.0).await;
        let packet = ServerPacket::decode(&wire.next().await[..]).unwrap();
        assert!(matches!(packet.message, Some(server_packet::Message::IslandChanged(_))));
    }
    let mut caller = Caller::open(&realm).await;
    let challenge = caller.challenge(&member).await.challenge_to_sign;
    let signed = SignedChallenge { auth_chain_json: member.sign_challenge(&challenge) };
    let welcome: WelcomePeerInformation =
        caller.request("BffAuthenticationService.Authenticate", &signed).await;
    let WelcomePeerInformation { resume_secret, resumed, .. } = welcome;
    assert_eq!((resume_secret.len(), resumed), (0, false));
}

/// A client that does not move.
struct SdkClient {
    explorer: Explorer,
    handle: Handle,
    address: Address,
}

impl SdkClient {
    async fn start(cluster: &Cluster, gateways: &[&str], dialect: Dialect, x: f32) -> Self {
        let path = match dialect {
            Dialect::Archipelago => "archipelago/ws",
            Dialect::Rpc => "bff/rpc",
        };
        let mut urls = gateways.iter().map(|name| format!("{}/{path}", cluster[name].ws));
        let first = urls.next().unwrap();
        let gateway = Gateway { other_urls: urls.collect(), ..Gateway::new(dialect, first) };
        let identity = client::guest().unwrap();
        let address = identity.address();
        let explorer = Explorer::start(Settings::new(gateway), identity);
        let handle = explorer.handle();
        handle.heartbeat(Position::new(x, 0.0, 0.0), None).await;
        Self { explorer, handle, address }
    }

    /// All events until the first one that `is_last` accepts, including it.
    async fn events_until(&mut self, what: &str, is_last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        let until = async {
            loop {
                let event =
                    self.explorer.next().await.unwrap_or_else(|| panic!("the client ended before {what}"));
                let last = is_last(&event);
                events.push(event);
                if last {
                    return;
                }
            }
        };
        timeout(TEST_TIMEOUT, until).await.unwrap_or_else(|_| panic!("not in time: {what}"));
        events
    }

    /// All events for this long.
    async fn events_for(&mut self, time: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let deadline = Instant::now() + time;
        while let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.explorer.next()).await {
            events.push(event);
        }
        events
    }
}

fn is_entered(event: &Event) -> bool {
    matches!(event, Event::RoomEntered { .. })
}

fn is_assignment(event: &Event) -> bool {
    matches!(event, Event::IslandChanged { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn client_of_a_killed_gateway_resumes_and_keeps_its_room() {
    for dialect in [Dialect::Archipelago, Dialect::Rpc] {
        let mut cluster = realm_with(&["one", "two"]).await;
        let observer = wallet();
        let (mut wire, mut room, _) = enter(&cluster["two"], &observer, 0.0).await;
        let mut client = SdkClient::start(&cluster, &["one", "two"], dialect, 1.0).await;
        let entered = client.events_until("its room", is_entered).await;
        let Some(Event::RoomEntered { room: room_id, alias, .. }) = entered.last() else { panic!() };
        assert!(matches!(room.next_in_room().await, ws_packet::Message::PeerJoinMessage(_)));
        assert!(matches!(wire.next_packet().await, server_packet::Message::JoinIsland(_)));
        sleep(Duration::from_millis(300)).await;
        cluster.kill("one");
        let back = client.events_until("its island", is_assignment).await;
        assert!(back.contains(&Event::SignedIn), "{back:?}");
        let after = client.events_for(AFTER_GRACE).await;
        let is_of_a_room = |event: &&Event| is_entered(event) || matches!(event, Event::RoomLeft { .. });
        assert_eq!(back.iter().chain(&after).find(is_of_a_room), None, "the same socket");
        assert_eq!(client.handle.send(vec![7; 4].into(), false).await, [*room_id]);
        let update = room.next_in_room().await;
        assert!(
            matches!(&update, ws_packet::Message::PeerUpdateMessage(message) if message.from_alias == *alias),
            "{update:?}: neither a leave nor a join before it"
        );
        assert!(wire.is_silent_for(Duration::from_millis(200)).await, "nor of the island");
        client.handle.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_is_not_resumed_reenters_without_loss() {
    let mut cluster = realm_with(&["one"]).await;
    let other = wallet();
    let (_wire, mut room, _) = enter(&cluster["one"], &other, 0.0).await;
    let mut client = SdkClient::start(&cluster, &["one"], Dialect::Archipelago, 1.0).await;
    let address = client.address;
    client.events_until("its room", is_entered).await;
    assert!(matches!(room.next_in_room().await, ws_packet::Message::PeerJoinMessage(_)));
    // The gateway loses all secrets, and no other one knows them.
    cluster.kill("one");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let handle = client.handle.clone();
    let talking = tokio::spawn(async move {
        let mut sent = 0_u32;
        while !*stopped.borrow() {
            handle.send(sent.to_be_bytes().to_vec().into(), false).await;
            room.update(sent.to_be_bytes().to_vec(), false).await;
            sent += 1;
            sleep(Duration::from_millis(20)).await;
        }
        (sent, room)
    });
    cluster.restart("one");
    let mut events = client.events_until("its room again", is_entered).await;
    events.extend(client.events_for(AFTER_GRACE).await);
    stop.send_replace(true);
    let (sent, mut room) = talking.await.unwrap();
    events.extend(client.events_for(Duration::from_millis(300)).await);
    let delivered = events.iter().filter_map(|event| match event {
        Event::Message { body, .. } => Some(u32::from_be_bytes(body[..].try_into().unwrap())),
        _ => None,
    });
    let delivered: Vec<u32> = delivered.collect();
    let missing: Vec<u32> = (0..sent).filter(|number| !delivered.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?} of {sent}");
    assert_eq!(delivered, (0..sent).collect::<Vec<_>>(), "each once, in order");
    let entries = events.iter().filter(|event| is_entered(event)).count();
    assert_eq!(entries, 1, "it entered the room once more, as {address}");
    for number in 0..sent {
        assert_eq!(next_update(&mut room).await, number.to_be_bytes(), "of {sent}");
    }
    client.handle.leave().await;
}
