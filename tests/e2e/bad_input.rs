//! Bad input is refused with a reason, and never affects other clients.

use std::time::Duration;

use protocol::{
    Close, Position,
    rfc5::ws_packet,
    v3::{Heartbeat, client_packet},
};
use test_support::{
    Realm, TEST_TIMEOUT, eventually, wallet,
    wire::{Wire, enter, room_url, sign_in},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, tungstenite::Message};

/// The TCP stream below a WebSocket, to send frames that no library sends.
fn raw(wire: &mut Wire) -> &mut TcpStream {
    match wire.0.get_mut() {
        MaybeTlsStream::Plain(stream) => stream,
        _ => unreachable!("tests use no TLS"),
    }
}

async fn send_text(wire: &mut Wire) {
    futures_util::SinkExt::send(&mut wire.0, Message::text("hello")).await.unwrap();
}

/// Asserts that malformed frames are refused, in any state in which `open` returns a socket.
async fn assert_bad_frames_refused(open: impl AsyncFn() -> Wire) {
    let mut wire = open().await;
    send_text(&mut wire).await;
    assert_eq!(wire.closed().await.0, Close::TextFrame);

    let mut wire = open().await;
    wire.send(b"\xff\xff\xff noise".to_vec()).await;
    assert_eq!(wire.closed().await.0, Close::Undecodable);

    let mut wire = open().await;
    wire.send(vec![0; 64 * 1024 + 1]).await;
    assert_eq!(wire.closed().await.0, Close::TooBig);

    let mut wire = open().await;
    // A reserved opcode, and no mask.
    raw(&mut wire).write_all(&[0x83, 0x01, 0x00]).await.unwrap();
    assert_eq!(wire.closed().await.0, Close::ProtocolError);
}

#[tokio::test(flavor = "multi_thread")]
async fn archipelago_socket_refuses_malformed_frames() {
    let realm = Realm::start(&[]);
    assert_bad_frames_refused(async || Wire::open(&realm.socket()).await).await;
    assert_bad_frames_refused(async || sign_in(&realm, &wallet()).await).await;
    eventually("all sockets are closed", async || realm.metric("atoll_gateway_sockets").await == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_socket_refuses_malformed_frames() {
    let realm = Realm::start(&[]);
    let (_wire, mut observer, _) = enter(&realm, &wallet(), 0.0).await;
    assert_bad_frames_refused(async || {
        let mut wire = sign_in(&realm, &wallet()).await;
        wire.heartbeat(0.0).await;
        Wire::open(&room_url(&wire.island_changed().await)).await
    })
    .await;
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(enter(&realm, &wallet(), 0.0).await);
        // A member that leaves before its join was announced is never announced.
        let joined = observer.next_in_room().await;
        assert!(matches!(joined, ws_packet::Message::PeerJoinMessage(_)), "{joined:?}");
    }
    let rooms = std::sync::Mutex::new(wires);
    assert_bad_frames_refused(async || rooms.lock().unwrap().pop().unwrap().1).await;
    for _ in 0..4 {
        let left = observer.next_in_room().await;
        assert!(matches!(left, ws_packet::Message::PeerLeaveMessage(_)), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_out_of_order_end_the_handshake() {
    let realm = Realm::start(&[]);
    let mut early = Wire::open(&realm.socket()).await;
    early.heartbeat(0.0).await;
    assert_eq!(early.closed().await.0, Close::OutOfOrder);
    let mut early = Wire::open(&realm.socket()).await;
    early.send_auth_chain("[]".to_owned()).await;
    assert_eq!(early.closed().await.0, Close::OutOfOrder);
    let mut twice = Wire::open(&realm.socket()).await;
    twice.request_challenge(&wallet()).await;
    let (address, transports) = (wallet().address().to_string(), Vec::new());
    let request = protocol::v3::ChallengeRequestMessage { address, transports, resume_secret: None };
    twice.send_packet(client_packet::Message::ChallengeRequest(request)).await;
    assert_eq!(twice.closed().await.0, Close::OutOfOrder);
    let mut again = sign_in(&realm, &wallet()).await;
    again.send_auth_chain("[]".to_owned()).await;
    assert_eq!(again.closed().await.0, Close::OutOfOrder);
    // A packet of an unknown kind is not an error.
    let mut future = sign_in(&realm, &wallet()).await;
    future.send(vec![0x7a, 0x01, 0x00]).await;
    future.heartbeat(0.0).await;
    future.island_changed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_that_do_not_prove_the_wallet_are_refused() {
    let realm = Realm::start(&[]);
    let (me, other) = (wallet(), wallet());
    let refused = async |chain: &dyn Fn(&str) -> String| {
        let mut wire = Wire::open(&realm.socket()).await;
        let challenge = wire.request_challenge(&me).await;
        wire.send_auth_chain(chain(&challenge)).await;
        let (close, reason) = wire.closed().await;
        assert_eq!(close, Close::AuthRefused);
        reason
    };
    assert!(refused(&|_| "no chain".to_owned()).await.contains("not a JSON array"));
    assert!(refused(&|challenge| other.sign_challenge(challenge)).await.contains("another address"));
    assert!(refused(&|_| me.sign_challenge("dcl-stolen")).await.contains("this challenge"));
    let padded = refused(&|challenge| format!("{:17000}", me.sign_challenge(challenge))).await;
    assert!(padded.contains("17000 bytes"), "{padded}");
    let contract = |challenge: &str| {
        me.sign_challenge(challenge).replace("ECDSA_SIGNED_ENTITY", "ECDSA_EIP_1654_SIGNED_ENTITY")
    };
    assert!(refused(&contract).await.contains("EIP-1654"));
    let mut invalid = Wire::open(&realm.socket()).await;
    let request = protocol::v3::ChallengeRequestMessage { address: "me".to_owned(), ..Default::default() };
    invalid.send_packet(client_packet::Message::ChallengeRequest(request)).await;
    assert_eq!(invalid.closed().await.0, Close::AuthRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn challenge_is_valid_for_one_socket_only() {
    let realm = Realm::start(&[]);
    let me = wallet();
    let (mut one, mut two) = (Wire::open(&realm.socket()).await, Wire::open(&realm.socket()).await);
    let first = one.request_challenge(&me).await;
    assert_ne!(first, two.request_challenge(&me).await);
    two.send_auth_chain(me.sign_challenge(&first)).await;
    assert_eq!(two.closed().await.0, Close::AuthRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_end_at_one_deadline() {
    let realm = Realm::start(&[
        ("GATEWAY__HANDSHAKE_TIMEOUT_S", "1"),
        ("ROOMS__HANDSHAKE_TIMEOUT_S", "1"),
        ("SERVER__HEADER_TIMEOUT_S", "1"),
        ("ROOMS__OPEN", "lobby"),
    ]);
    let lobby = format!("{}/rooms/lobby", realm.ws);
    for url in [realm.socket(), lobby] {
        // A socket that sends nothing.
        let mut silent = Wire::open(&url).await;
        assert_eq!(silent.closed().await.0, Close::HandshakeTimeout);
        // One byte at a time: activity does not extend the deadline.
        let mut dripping = Wire::open(&url).await;
        let stream = raw(&mut dripping);
        stream.write_all(&[0x82, 0xfe, 0x01, 0x00, 0, 0, 0, 0]).await.unwrap();
        for _ in 0..20 {
            let _ = stream.write_all(&[0]).await;
            sleep(Duration::from_millis(75)).await;
        }
        assert_eq!(dripping.closed().await.0, Close::HandshakeTimeout);
    }
    // A challenge in between does not extend it either.
    let mut half = Wire::open(&realm.socket()).await;
    half.request_challenge(&wallet()).await;
    assert_eq!(half.closed().await.0, Close::HandshakeTimeout);
    // Connections that never send a complete request.
    for bytes in [&b""[..], b"GET /ab", b"\0\0\0noise\r\n\r\n"] {
        let mut stream = TcpStream::connect(realm.http.trim_start_matches("http://")).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        timeout(TEST_TIMEOUT, stream.read_to_end(&mut answer))
            .await
            .expect("closed in time")
            .unwrap_or_default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_closed_at_any_step_leave_nothing() {
    let realm = Realm::start(&[]);
    for step in 0..5 {
        for abruptly in [true, false] {
            let wallet = wallet();
            let mut wire = Wire::open(&realm.socket()).await;
            if step > 0 {
                let challenge = wire.request_challenge(&wallet).await;
                if step > 1 {
                    wire.send_auth_chain(wallet.sign_challenge(&challenge)).await;
                }
                if step > 2 {
                    wire.next_packet().await;
                    wire.heartbeat(5_000.0).await;
                }
                if step > 3 {
                    wire.island_changed().await;
                }
            }
            if abruptly {
                raw(&mut wire).set_zero_linger().unwrap();
                drop(wire);
            } else {
                wire.0.close(None).await.unwrap();
            }
        }
    }
    eventually("no socket, session or peer is left", async || {
        realm.metric("atoll_gateway_sockets").await == 0.0
            && realm.metric("explorer_bff_connected_users").await == 0.0
            && realm.metric("dcl_archipelago_peers_count").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_positions_change_nothing() {
    let realm = Realm::start(&[]);
    let me = wallet();
    let mut wire = sign_in(&realm, &me).await;
    wire.heartbeat(40.0).await;
    wire.island_changed().await;
    for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 100_001.0] {
        wire.heartbeat(x).await;
    }
    let nowhere = Heartbeat { position: None, desired_room: None };
    wire.send_packet(client_packet::Message::Heartbeat(nowhere)).await;
    let position = Some(Position::new(40.0, 0.0, 0.0).into());
    let odd = Heartbeat { position, desired_room: Some("a.b > *\r\n".to_owned()) };
    wire.send_packet(client_packet::Message::Heartbeat(odd)).await;
    eventually("all were counted", async || {
        let refused = "atoll_gateway_heartbeats_refused_total";
        realm.count(&format!("{refused}{{reason=\"not_finite\"}}")).await == 3.0
            && realm.count(&format!("{refused}{{reason=\"out_of_bounds\"}}")).await == 1.0
            && realm.count(&format!("{refused}{{reason=\"missing\"}}")).await == 1.0
    })
    .await;
    assert!(wire.is_silent_for(Duration::from_millis(600)).await);
    let peer = realm.json(&format!("/peers/{}", me.address())).await;
    assert_eq!(peer["peer"]["position"][0], 40.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_for_another_room_or_address_are_refused() {
    let realm = Realm::start(&[("ROOMS__TOKEN_TTL_S", "2")]);
    let (me, other) = (wallet(), wallet());
    let mut wire = sign_in(&realm, &me).await;
    wire.heartbeat(0.0).await;
    let change = wire.island_changed().await;
    let url = room_url(&change);
    let refused = async |url: &str, wallet| {
        let mut room = Wire::open(url).await;
        room.identify(wallet).await;
        room.closed().await
    };
    let forged = url.replace("access_token=ey", "access_token=ez");
    assert_eq!(refused(&forged, &me).await.0, Close::TokenRefused);
    let other_room = url.replace(&change.island_id, "I0000elsewhere");
    let (close, reason) = refused(&other_room, &me).await;
    assert_eq!((close, reason.as_str()), (Close::TokenRefused, "the access token is for another room"));
    let (close, reason) = refused(&url, &other).await;
    assert_eq!((close, reason.as_str()), (Close::TokenRefused, "the access token is for another address"));
    let bare = url.split('?').next().unwrap();
    assert_eq!(refused(bare, &me).await.0, Close::UnknownRoom);
    let secret = transports::ws_room::Minter::new(b"another secret of sixteen", Duration::from_secs(60));
    let minted = protocol::Ulid(1);
    let island = change.island_id.parse().unwrap();
    let stolen = secret.connection(&realm.ws, &island, me.address(), minted, std::time::SystemTime::now());
    let stolen = stolen.unwrap().to_string().replace("ws-room:", "");
    assert_eq!(refused(&stolen, &me).await.0, Close::TokenRefused);
    sleep(Duration::from_millis(2_100)).await;
    let (close, reason) = refused(&url, &me).await;
    assert_eq!((close, reason.as_str()), (Close::TokenRefused, "the access token has expired"));
    assert_eq!(realm.get("/rooms/no.such*room").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_stops_reading_is_closed_without_side_effects() {
    let realm =
        Realm::start(&[("ROOMS__BYTES_PER_SECOND", "100000000"), ("ROOMS__MESSAGES_PER_SECOND", "100000")]);
    let (_w1, mut sender, _) = enter(&realm, &wallet(), 0.0).await;
    let (_w2, mut slow, slow_welcome) = enter(&realm, &wallet(), 1.0).await;
    let (_w3, mut listener, _) = enter(&realm, &wallet(), 2.0).await;
    let (seen, mut has_seen) = tokio::sync::oneshot::channel();
    // It reads to the end: otherwise messages that the talker's connection still holds would fill its
    // own queue.
    let listening = tokio::spawn(async move {
        let (mut received, mut slow_left_after, mut seen) = (0u32, None, Some(seen));
        loop {
            match listener.next_in_room().await {
                ws_packet::Message::PeerUpdateMessage(update) => {
                    assert_eq!(update.body[..4], received.to_be_bytes(), "in order, none missing");
                    received += 1;
                }
                ws_packet::Message::PeerLeaveMessage(leave) => {
                    assert_eq!(leave.alias, slow_welcome.alias);
                    slow_left_after = Some(received);
                }
                _ => {}
            }
            if let Some(after) = slow_left_after
                && received >= after + 20
                && let Some(seen) = seen.take()
            {
                let _ = seen.send(());
            }
        }
    });
    // Sends more than any socket buffer holds, until the listener has seen enough.
    let mut number = 0u32;
    while has_seen.try_recv().is_err() {
        assert!(!listening.is_finished(), "the listener failed");
        let mut body = vec![0; 60_000];
        body[..4].copy_from_slice(&number.to_be_bytes());
        sender.update(body, false).await;
        number += 1;
        assert!(number < 5_000, "the slow member was never closed");
        sleep(Duration::from_millis(4)).await;
    }
    // A member that reads again receives the reason; its queued messages were dropped.
    let end = timeout(TEST_TIMEOUT, async {
        loop {
            match futures_util::StreamExt::next(&mut slow.0).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    });
    assert_eq!(end.await.expect("an end"), Some(Close::TooSlow.code()));
    assert_eq!(realm.closed("rooms", Close::TooSlow).await, 1.0);
    assert_eq!(realm.metric("dcl_ws_rooms_connections").await, 2.0);
    listening.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_sends_without_reading_is_closed() {
    // Unreliable messages to it are dropped, so its queue never overflows; but its socket accepts no
    // byte.
    let settings = [
        ("ROOMS__WRITE_TIMEOUT_S", "1"),
        ("ROOMS__BYTES_PER_SECOND", "100000000"),
        ("ROOMS__MESSAGES_PER_SECOND", "100000"),
    ];
    let realm = Realm::start(&settings);
    let (_w1, mut sender, _) = enter(&realm, &wallet(), 0.0).await;
    let (_w2, mut slow, _) = enter(&realm, &wallet(), 1.0).await;
    let deadline = std::time::Instant::now() + TEST_TIMEOUT;
    let mut closed = 0.0;
    while closed == 0.0 {
        assert!(std::time::Instant::now() < deadline, "the slow member was never closed");
        for _ in 0..20 {
            sender.update(vec![0; 60_000], true).await;
            // A server that has closed it accepts nothing more.
            let _ = futures_util::SinkExt::send(&mut slow.0, Message::Ping("here".into())).await;
            sleep(Duration::from_millis(4)).await;
        }
        closed = realm.closed("rooms", Close::TooSlow).await;
    }
    assert_eq!(realm.metric("dcl_ws_rooms_connections").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_sockets_closed_at_any_step_leave_nothing() {
    let realm = Realm::start(&[("ROOMS__OPEN", "lobby")]);
    for step in 0..4 {
        for abruptly in [true, false] {
            let wallet = wallet();
            let mut wire = Wire::open(&format!("{}/rooms/lobby", realm.ws)).await;
            if step > 0 {
                wire.identify(&wallet).await;
            }
            if step > 1 {
                let ws_packet::Message::ChallengeMessage(challenge) = wire.next_in_room().await else {
                    panic!("no challenge")
                };
                let auth_chain_json = wallet.sign_challenge(&challenge.challenge_to_sign);
                let signed = protocol::rfc5::WsSignedChallenge { auth_chain_json };
                wire.send_room_packet(ws_packet::Message::SignedChallengeForServer(signed)).await;
            }
            if step > 2 {
                wire.welcome().await;
            }
            if abruptly {
                raw(&mut wire).set_zero_linger().unwrap();
                drop(wire);
            } else {
                wire.0.close(None).await.unwrap();
            }
        }
    }
    eventually("no socket, member or room is left", async || {
        realm.metric("atoll_rooms_sockets").await == 0.0
            && realm.metric("dcl_ws_rooms_connections").await == 0.0
            && realm.metric("dcl_ws_rooms_count").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flooding_member_is_throttled_without_loss() {
    let realm = Realm::start(&[("ROOMS__MESSAGES_PER_SECOND", "50")]);
    let (_w1, mut sender, _) = enter(&realm, &wallet(), 0.0).await;
    let (_w2, mut listener, _) = enter(&realm, &wallet(), 1.0).await;
    let began = std::time::Instant::now();
    for number in 0..150u32 {
        sender.update(number.to_be_bytes().to_vec(), false).await;
    }
    let mut received = 0;
    while received < 150 {
        if let ws_packet::Message::PeerUpdateMessage(update) = listener.next_in_room().await {
            assert_eq!(update.body[..], (received as u32).to_be_bytes());
            received += 1;
        }
    }
    // The burst of one second passes; the other hundred messages take two seconds.
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sign_ins_are_limited() {
    let realm = Realm::start(&[("GATEWAY__MAX_HANDSHAKES_PER_IP", "2")]);
    let _waiting = [Wire::open(&realm.socket()).await, Wire::open(&realm.socket()).await];
    let refused = tokio_tungstenite::connect_async(realm.socket()).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(String::from_utf8_lossy(response.body().as_ref().unwrap()).contains("come back later"));
}

/// Limited to Linux, where the listener also sets `TCP_USER_TIMEOUT`.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn connection_that_reads_no_response_is_closed() {
    let realm = Realm::start(&[("SERVER__WRITE_TIMEOUT_S", "1")]);
    let files = realm.metric("process_open_fds").await;
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(realm.http.strip_prefix("http://").unwrap()).await.unwrap();
        // More responses than the socket buffers hold; the test does not read them.
        let requests = "GET /openapi.json HTTP/1.1\r\nHost: atoll\r\n\r\n".repeat(2_000);
        let _ = timeout(Duration::from_secs(1), stream.write_all(requests.as_bytes())).await;
        stuck.push(stream);
    }
    eventually("the connections are closed", async || realm.metric("process_open_fds").await <= files).await;
    drop(stuck);
}
