//! The room protocol (RFC 5 of comms v3): aliases, joins, leaves, kicks, tokens.

use std::time::{Duration, Instant};

use identity::Wallet;
use protocol::{
    Close,
    rfc5::{WsSignedChallenge, ws_packet::Message},
};
use test_support::{
    Realm, wallet,
    wire::{Wire, enter, enter_room, next_update, room_url, sign_in},
};

#[tokio::test(flavor = "multi_thread")]
async fn update_reaches_every_other_member_once() {
    let realm = Realm::start(&[]);
    let (one, two, three) = (wallet(), wallet(), wallet());
    let (_w1, mut first, welcome1) = enter(&realm, &one, 0.0).await;
    let (_w2, mut second, _) = enter(&realm, &two, 1.0).await;
    let (_w3, mut third, _) = enter(&realm, &three, 2.0).await;
    for number in 0..100u8 {
        first.update(vec![number; 60], number % 2 == 0).await;
    }
    for listener in [&mut second, &mut third] {
        let mut expected = 0;
        while expected < 100 {
            match listener.next_in_room().await {
                Message::PeerUpdateMessage(update) => {
                    assert_eq!(update.from_alias, welcome1.alias, "the server sets the alias");
                    assert_eq!(update.body, vec![expected; 60]);
                    assert_eq!(update.unreliable, expected % 2 == 0);
                    expected += 1;
                }
                Message::PeerJoinMessage(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    while let Ok(Some(Ok(message))) =
        tokio::time::timeout(Duration::from_millis(200), futures_util::StreamExt::next(&mut first.0)).await
    {
        let packet = <protocol::rfc5::WsPacket as protocol::Message>::decode(message.into_data()).unwrap();
        let own = matches!(packet.message, Some(Message::PeerUpdateMessage(_)));
        assert!(!own, "the sender receives its own message");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_entry_of_an_address_kicks_the_first() {
    let realm = Realm::start(&[]);
    let (one, two) = (wallet(), wallet());
    let (_w1, mut observer, _) = enter(&realm, &one, 0.0).await;
    let mut wire = sign_in(&realm, &two).await;
    wire.heartbeat(1.0).await;
    let url = room_url(&wire.island_changed().await);
    let mut older = Wire::open(&url).await;
    older.identify(&two).await;
    let first = older.welcome().await.alias;
    // The leave of a member is announced only if its join was.
    let joined = observer.next_in_room().await;
    assert!(matches!(&joined, Message::PeerJoinMessage(join) if join.alias == first), "{joined:?}");
    let mut newer = Wire::open(&url).await;
    newer.identify(&two).await;
    let second = newer.welcome().await;
    assert!(second.alias > first);
    assert_eq!(second.peer_identities.len(), 1, "the older socket is no member");
    assert!(matches!(older.next_in_room().await, Message::PeerKicked(_)));
    assert_eq!(older.closed().await.0, Close::NewSession);
    assert_eq!(realm.closed("rooms", Close::NewSession).await, 1.0);
    let received = [observer.next_in_room().await, observer.next_in_room().await];
    assert!(
        matches!(&received, [Message::PeerLeaveMessage(left), Message::PeerJoinMessage(joined)]
            if (left.alias, joined.alias) == (first, second.alias)),
        "{received:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn known_subprotocols_are_accepted() {
    let realm = Realm::start(&[]);
    let mut wire = sign_in(&realm, &wallet()).await;
    wire.heartbeat(0.0).await;
    let url = room_url(&wire.island_changed().await);
    assert_eq!(Wire::open_with_subprotocols(&url, "rfc5, rfc4").await.1.as_deref(), Some("rfc5"));
    assert_eq!(Wire::open_with_subprotocols(&url, "rfc4").await.1.as_deref(), Some("rfc4"));
    assert_eq!(realm.get("/rooms/I1").await.status(), 426);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_rooms_are_entered_with_a_signature() {
    let realm = Realm::start(&[("ROOMS__OPEN", "lobby, test-*")]);
    let wallet = wallet();
    for room in ["lobby", "test-1"] {
        let mut wire = Wire::open(&format!("{}/rooms/{room}", realm.ws)).await;
        wire.identify(&wallet).await;
        let Message::ChallengeMessage(challenge) = wire.next_in_room().await else { panic!("no challenge") };
        assert!(challenge.challenge_to_sign.starts_with("dcl-"));
        let auth_chain_json = wallet.sign_challenge(&challenge.challenge_to_sign);
        wire.send_room_packet(Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })).await;
        wire.welcome().await;
    }
    let mut wire = Wire::open(&format!("{}/rooms/lobby", realm.ws)).await;
    wire.identify(&wallet).await;
    assert!(matches!(wire.next_in_room().await, Message::ChallengeMessage(_)));
    let auth_chain_json = wallet.sign_challenge("dcl-of-another-time");
    wire.send_room_packet(Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })).await;
    assert_eq!(wire.closed().await.0, Close::AuthRefused);
}

/// Enters an open room with a signature.
async fn enter_open(realm: &Realm, room: &str, wallet: &Wallet) -> Wire {
    let mut wire = Wire::open(&format!("{}/rooms/{room}", realm.ws)).await;
    wire.identify(wallet).await;
    let Message::ChallengeMessage(challenge) = wire.next_in_room().await else { panic!("no challenge") };
    let auth_chain_json = wallet.sign_challenge(&challenge.challenge_to_sign);
    wire.send_room_packet(Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })).await;
    wire.welcome().await;
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn open_room_with_dots_connects_its_members() {
    let realm = Realm::start(&[("ROOMS__OPEN", "name.dcl.eth, world-*")]);
    for room in ["name.dcl.eth", "world-name.dcl.eth"] {
        let mut first = enter_open(&realm, room, &wallet()).await;
        let mut second = enter_open(&realm, room, &wallet()).await;
        first.update(b"hello".to_vec(), false).await;
        assert_eq!(next_update(&mut second).await, b"hello");
        second.update(b"hello yourself".to_vec(), true).await;
        assert_eq!(next_update(&mut first).await, b"hello yourself");
    }
    let mut other = Wire::open(&format!("{}/rooms/other.dcl.eth", realm.ws)).await;
    other.identify(&wallet()).await;
    assert_eq!(other.closed().await.0, Close::UnknownRoom);
    for room in ["name..eth", "name.dcl.eth.", "a%20b", &"x".repeat(129)] {
        assert_eq!(realm.get(&format!("/rooms/{room}")).await.status(), 404, "{room}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_socket_returns_with_its_expired_token() {
    let realm = Realm::start(&[("ROOMS__TOKEN_TTL_S", "2")]);
    let (one, two) = (wallet(), wallet());
    let (_w1, mut observer, _) = enter(&realm, &one, 0.0).await;
    let mut wire = sign_in(&realm, &two).await;
    wire.heartbeat(1.0).await;
    let change = wire.island_changed().await;
    let (room, _) = enter_room(&two, &change).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    for _ in 0..2 {
        let mut another = Wire::open(&room_url(&change)).await;
        another.identify(&one).await;
        assert_eq!(another.closed().await.0, Close::TokenRefused);
    }
    drop(room);
    let (mut room, _) = enter_room(&two, &change).await;
    room.update(b"hello".to_vec(), false).await;
    assert_eq!(next_update(&mut observer).await, b"hello");
    // The membership ends with the session.
    drop(wire);
    assert_eq!(room.closed().await.0, Close::Moved);
    let mut late = Wire::open(&room_url(&change)).await;
    late.identify(&two).await;
    assert_eq!(late.closed().await.0, Close::TokenRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreliable_updates_above_the_rate_are_dropped_and_counted() {
    let realm = Realm::start(&[("ROOMS__MESSAGES_PER_SECOND", "20")]);
    let (_w1, mut sender, _) = enter(&realm, &wallet(), 0.0).await;
    let (_w2, mut listener, _) = enter(&realm, &wallet(), 1.0).await;
    let began = Instant::now();
    let sending = async {
        // Three times the rate, for long enough that a backlog would be seconds old.
        for number in 0..300u32 {
            tokio::time::sleep_until((began + number * Duration::from_micros(16_667)).into()).await;
            sender.update((began.elapsed().as_millis() as u32).to_be_bytes().to_vec(), true).await;
        }
        sender.update(b"last".to_vec(), false).await;
    };
    let listening = async {
        let mut oldest = 0;
        loop {
            let body = next_update(&mut listener).await;
            if body == b"last" {
                return oldest;
            }
            let sent = u32::from_be_bytes(body.try_into().unwrap());
            oldest = oldest.max(began.elapsed().as_millis() as u32 - sent);
        }
    };
    let ((), oldest) = tokio::join!(sending, listening);
    assert!(oldest < 2_000, "an update was {oldest} ms old");
    let dropped = realm.metric("atoll_rooms_ingress_dropped_total").await;
    assert!((150.0..=200.0).contains(&dropped), "{dropped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_room_kicks_with_a_reason() {
    let realm = Realm::start(&[("ROOMS__OPEN", "lobby"), ("ROOMS__MAX_USERS", "1")]);
    let mut wires = Vec::new();
    for wallet in [wallet(), wallet()] {
        let mut wire = Wire::open(&format!("{}/rooms/lobby", realm.ws)).await;
        wire.identify(&wallet).await;
        let Message::ChallengeMessage(challenge) = wire.next_in_room().await else { panic!("no challenge") };
        let auth_chain_json = wallet.sign_challenge(&challenge.challenge_to_sign);
        wire.send_room_packet(Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })).await;
        if wires.is_empty() {
            wire.welcome().await;
        }
        wires.push(wire);
    }
    assert!(matches!(wires[1].next_in_room().await, Message::PeerKicked(_)));
    assert_eq!(wires[1].closed().await.0, Close::RoomFull);
}
