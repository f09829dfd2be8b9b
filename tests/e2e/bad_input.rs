//! Bad input is refused with a reason, and never affects other clients.

mod rooms;

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
