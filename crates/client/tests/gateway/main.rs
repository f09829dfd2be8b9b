//! Tests of the client against a fake gateway, which can misbehave.

#![allow(clippy::unwrap_used)]
// The error type of the handshake callback is defined by tungstenite.
#![allow(clippy::result_large_err)]

mod fake_gateway;
#[cfg(feature = "webrtc")]
mod mesh;
mod room;
mod rpc;

use std::time::Duration;

use client::{Dialect, Disconnect, Event, Gateway, Position, Protobuf, Settings};
use futures_util::{SinkExt, StreamExt};
use protocol::v3::{
    IslandChangedMessage, JoinIslandMessage, KickedMessage, LeftIslandMessage, ServerPacket, server_packet,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use fake_gateway::{ADDRESS, FakeGateway, TEST_TIMEOUT, close, closed, next};

#[tokio::test]
async fn island_joins_and_leaves_arrive_in_order() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let mut socket = gateway.welcome().await;
    let island_id = || "I7".to_owned();
    let peer_id = || ADDRESS.to_owned();
    let changed = IslandChangedMessage {
        island_id: island_id(),
        conn_str: "offline:offline".to_owned(),
        ..IslandChangedMessage::default()
    };
    socket.send(server_packet::Message::IslandChanged(changed)).await;
    let join = JoinIslandMessage { island_id: island_id(), peer_id: peer_id() };
    socket.send(server_packet::Message::JoinIsland(join)).await;
    // A malformed message is ignored.
    let malformed = LeftIslandMessage { island_id: island_id(), peer_id: "nobody".to_owned() };
    socket.send(server_packet::Message::LeftIsland(malformed)).await;
    let left = LeftIslandMessage { island_id: island_id(), peer_id: peer_id() };
    socket.send(server_packet::Message::LeftIsland(left)).await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    assert!(matches!(next(&mut explorer).await, Event::IslandChanged { .. }));
    let (island, address) = ("I7".parse().unwrap(), ADDRESS.parse().unwrap());
    assert_eq!(next(&mut explorer).await, Event::IslandJoined { island, address });
    let (island, address) = ("I7".parse().unwrap(), ADDRESS.parse().unwrap());
    assert_eq!(next(&mut explorer).await, Event::IslandLeft { island, address });
}

#[tokio::test]
async fn busy_server_is_retried_after_its_retry_after() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let mut busy = gateway.accept_tcp().await;
    let _ = busy.read(&mut [0; 4096]).await.unwrap();
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    busy.write_all(answer).await.unwrap();
    let (reason, retry_in) = closed(&mut explorer).await;
    let retry_after = Some(Duration::from_secs(1));
    assert_eq!(reason, Disconnect::Refused { status: 503, retry_after });
    assert!(retry_in > retry_after, "{retry_in:?}");
    let _socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
}

#[tokio::test]
async fn backoff_grows_when_every_session_is_dropped() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let mut pauses = Vec::new();
    for _ in 0..3 {
        gateway.welcome().await.close(1012).await;
        assert_eq!(next(&mut explorer).await, Event::SignedIn);
        let (reason, retry_in) = closed(&mut explorer).await;
        assert!(reason.to_string().starts_with("closed by the server: because (1012)"), "{reason}");
        pauses.push(retry_in.unwrap());
    }
    for (pause, longest) in pauses.iter().zip([500, 1_000, 2_000].map(Duration::from_millis)) {
        assert!((longest / 4..=longest).contains(pause), "{pauses:?}");
    }
}

#[tokio::test]
async fn lost_gateway_is_replaced_by_the_next_of_the_realm() {
    let second = FakeGateway(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let others = [second.url(), format!("ws://{gone}/ws")];
    let several = |settings: &mut Settings| settings.gateway.other_urls = others.into();
    let (first, mut explorer) = FakeGateway::start_for(Dialect::Archipelago, several).await;
    explorer.handle().heartbeat(Position::new(1.0, 0.0, 0.0), None).await;
    let socket = first.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    // The connection is lost without a close frame.
    drop(socket);
    let (reason, retry_in) = closed(&mut explorer).await;
    assert!(matches!(reason, Disconnect::Broken(_)) && retry_in.is_some(), "{reason}");
    let mut socket = second.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    assert!(socket.heartbeat().await.position.is_some());
    // The client moves on, past a gateway that does not exist.
    socket.close(1012).await;
    for _ in 0..2 {
        assert!(closed(&mut explorer).await.1.is_some());
    }
    let _socket = first.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
}

#[tokio::test]
async fn discover_all_skips_gateways_that_do_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}", listener.local_addr().unwrap());
    let gone = "http://127.0.0.1:9".to_owned();
    let about = async {
        for _ in 0..2 {
            let mut stream = listener.accept().await.unwrap().0;
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let body = r#"{"comms": {"adapter": "archipelago:archipelago:ws://h/ws"}}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).await.unwrap();
        }
    };
    let realms = [realm.clone(), gone.clone(), realm];
    let (found, ()) = tokio::join!(client::discover_all(&realms, None), about);
    let expected = Gateway {
        other_urls: vec!["ws://h/ws".to_owned()],
        ..Gateway::new(Dialect::Archipelago, "ws://h/ws")
    };
    assert_eq!(found.unwrap(), expected);
    let error = client::discover_all(&[gone], None).await.unwrap_err();
    assert!(error.to_string().starts_with("http://127.0.0.1:9/about"), "{error}");
    let no_realms: [&str; 0] = [];
    assert_eq!(client::discover_all(&no_realms, None).await.unwrap_err().to_string(), "no realm was named");
}

#[tokio::test]
async fn gateway_is_dropped_only_when_pings_go_unanswered() {
    let liveness_timeout = Duration::from_millis(300);
    let (gateway, mut explorer) =
        FakeGateway::start_for(Dialect::Archipelago, |settings| settings.liveness_timeout = liveness_timeout)
            .await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    // The fake gateway answers pings as long as it reads.
    let mut pings = 0;
    while pings < 5 {
        let message = timeout(TEST_TIMEOUT, socket.0.next()).await.expect("a frame in time");
        pings += u32::from(message.expect("an open connection").unwrap().is_ping());
    }
    let (reason, retry_in) = closed(&mut explorer).await;
    assert_eq!(reason.to_string(), "connection broken: received nothing for 300ms");
    assert!(retry_in.is_some());
}

#[tokio::test]
async fn new_session_receives_position_and_desired_room() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let handle = explorer.handle();
    handle.heartbeat(Position::new(1.0, 0.0, 0.0), Some("I3".to_owned())).await;
    handle.heartbeat(Position::new(2.0, 0.0, 0.0), None).await;
    let mut socket = gateway.welcome().await;
    // Positions that were set before the sign-in may be sent one by one.
    while socket.heartbeat().await.position != Some(Position::new(2.0, 0.0, 0.0).into()) {}
    socket.close(1012).await;
    let mut socket = gateway.welcome().await;
    let heartbeat = socket.heartbeat().await;
    assert_eq!(heartbeat.position, Some(Position::new(2.0, 0.0, 0.0).into()));
    assert_eq!(heartbeat.desired_room.as_deref(), Some("I3"));
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
}

#[tokio::test]
async fn final_refusal_is_not_retried() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    gateway.welcome().await.close(4001).await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    let (reason, retry_in) = closed(&mut explorer).await;
    assert_eq!(retry_in, None, "{reason}");
    assert_eq!(explorer.next().await, None);
}

#[tokio::test]
async fn close_reason_is_kept_while_heartbeats_are_sent() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    let handle = explorer.handle();
    tokio::spawn(async move {
        loop {
            handle.heartbeat(Position::new(1.0, 0.0, 0.0), None).await;
            sleep(Duration::from_millis(5)).await;
        }
    });
    socket.heartbeat().await;
    // The gateway leaves the connection open and does not read the client's answer to the close frame.
    socket.0.send(close(4003)).await.unwrap();
    let (reason, retry_in) = closed(&mut explorer).await;
    assert!(matches!(reason, Disconnect::Closed { code: 4003, .. }), "{reason}");
    assert_eq!(retry_in, None);
}

#[tokio::test]
async fn replaced_session_does_not_reconnect_after_any_close() {
    for code in [Some(1000), Some(3999), Some(1012), None] {
        let (gateway, mut explorer) = FakeGateway::start().await;
        let mut socket = gateway.welcome().await;
        assert_eq!(next(&mut explorer).await, Event::SignedIn);
        socket.send(server_packet::Message::Kicked(KickedMessage { reason: 0 })).await;
        match code {
            Some(code) => socket.close(code).await,
            None => drop(socket),
        }
        let (reason, retry_in) = closed(&mut explorer).await;
        assert!(matches!(reason, Disconnect::Closed { code: 4003, .. }), "{code:?}: {reason}");
        assert_eq!(retry_in, None, "{code:?}");
        assert_eq!(explorer.next().await, None);
    }
}

#[tokio::test]
async fn gateway_that_reads_nothing_is_read_until_the_timeout() {
    let liveness_timeout = Duration::from_secs(1);
    let (gateway, mut explorer) =
        FakeGateway::start_for(Dialect::Archipelago, |settings| settings.liveness_timeout = liveness_timeout)
            .await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    // More than the buffers of the sockets hold.
    let much = "x".repeat(24 << 20);
    explorer.handle().heartbeat(Position::new(1.0, 0.0, 0.0), Some(much)).await;
    tokio::spawn(async move {
        loop {
            let (island_id, peer_id) = ("I7".to_owned(), ADDRESS.to_owned());
            let join = JoinIslandMessage { island_id, peer_id };
            let packet = ServerPacket { message: Some(server_packet::Message::JoinIsland(join)) };
            if socket.0.send(Message::Binary(packet.encode_to_vec().into())).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let mut received = 0;
    let reason = loop {
        match next(&mut explorer).await {
            Event::IslandJoined { .. } => received += 1,
            Event::Disconnected { reason, .. } => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason.to_string(), "connection broken: the server read nothing for 1s");
    assert!(received > 5, "{received}");
}

#[tokio::test]
async fn only_the_newest_position_is_sent() {
    let (gateway, explorer) = FakeGateway::start().await;
    let mut socket = gateway.accept("archipelago").await;
    socket.receive().await;
    let handle = explorer.handle();
    for x in 0..20_u8 {
        let desired_room = (x < 10).then(|| format!("I{x}"));
        handle.heartbeat(Position::new(x.into(), 0.0, 0.0), desired_room).await;
    }
    // Earlier commands have been processed when this one is answered.
    handle.send("".into(), false).await;
    socket.welcome().await;
    let heartbeat = socket.heartbeat().await;
    assert_eq!(heartbeat.position, Some(Position::new(19.0, 0.0, 0.0).into()));
    assert_eq!(heartbeat.desired_room.as_deref(), Some("I9"));
}

#[tokio::test]
async fn dropped_explorer_leaves_although_a_handle_remains() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    let handle = explorer.handle();
    drop(explorer);
    let message = timeout(TEST_TIMEOUT, socket.0.next()).await.expect("a close frame in time");
    assert!(matches!(message, Some(Ok(Message::Close(_)))), "{message:?}");
    assert!(handle.send("".into(), false).await.is_empty());
}
