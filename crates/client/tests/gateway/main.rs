//! An explorer and a gateway that is played here, so that it can be rude.

#![allow(clippy::unwrap_used)]
// The answer of a callback is the library's type.
#![allow(clippy::result_large_err)]

mod played;
mod room;
mod rpc;

use std::time::Duration;

use client::{Dialect, Ended, Event, Gateway, Position, Protobuf, Settings};
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

use played::{ADDRESS, PATIENCE, Played, close, closed, next};

#[tokio::test]
async fn who_comes_to_an_island_and_leaves_it_is_told_in_order() {
    let (gateway, mut explorer) = Played::start().await;
    let mut socket = gateway.welcome().await;
    let island_id = || "I7".to_owned();
    let peer_id = || ADDRESS.to_owned();
    let changed = IslandChangedMessage {
        island_id: island_id(),
        conn_str: "offline:offline".to_owned(),
        ..IslandChangedMessage::default()
    };
    socket.say(server_packet::Message::IslandChanged(changed)).await;
    let join = JoinIslandMessage { island_id: island_id(), peer_id: peer_id() };
    socket.say(server_packet::Message::JoinIsland(join)).await;
    // What cannot be read is left out.
    let nobody = LeftIslandMessage { island_id: island_id(), peer_id: "nobody".to_owned() };
    socket.say(server_packet::Message::LeftIsland(nobody)).await;
    let left = LeftIslandMessage { island_id: island_id(), peer_id: peer_id() };
    socket.say(server_packet::Message::LeftIsland(left)).await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    assert!(matches!(next(&mut explorer).await, Event::IslandChanged { .. }));
    let (island, address) = ("I7".parse().unwrap(), ADDRESS.parse().unwrap());
    assert_eq!(next(&mut explorer).await, Event::IslandJoined { island, address });
    let (island, address) = ("I7".parse().unwrap(), ADDRESS.parse().unwrap());
    assert_eq!(next(&mut explorer).await, Event::IslandLeft { island, address });
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_when_it_said() {
    let (gateway, mut explorer) = Played::start().await;
    let mut busy = gateway.connection().await;
    let _ = busy.read(&mut [0; 4096]).await.unwrap();
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    busy.write_all(answer).await.unwrap();
    let (reason, comes_back) = closed(&mut explorer).await;
    let retry_after = Some(Duration::from_secs(1));
    assert_eq!(reason, Ended::Refused { status: 503, retry_after });
    assert!(comes_back > retry_after, "{comes_back:?}");
    let _socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
}

#[tokio::test]
async fn a_server_that_drops_everybody_meets_ever_longer_pauses() {
    let (gateway, mut explorer) = Played::start().await;
    let mut pauses = Vec::new();
    for _ in 0..3 {
        gateway.welcome().await.close(1012).await;
        assert_eq!(next(&mut explorer).await, Event::SignedIn);
        let (reason, comes_back) = closed(&mut explorer).await;
        assert!(reason.to_string().starts_with("closed by the server: because (1012)"), "{reason}");
        pauses.push(comes_back.unwrap());
    }
    for (pause, longest) in pauses.iter().zip([500, 1_000, 2_000].map(Duration::from_millis)) {
        assert!((longest / 4..=longest).contains(pause), "{pauses:?}");
    }
}

#[tokio::test]
async fn whoever_loses_its_gateway_goes_to_the_next_one_of_its_realm() {
    let standby = Played(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let others = [standby.url(), format!("ws://{gone}/ws")];
    let several = |settings: &mut Settings| settings.gateway.others = others.into();
    let (first, mut explorer) = Played::start_for(Dialect::Archipelago, several).await;
    explorer.handle().heartbeat(Position::new(1.0, 0.0, 0.0), None).await;
    let socket = first.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    // It breaks without a word.
    drop(socket);
    let (reason, comes_back) = closed(&mut explorer).await;
    assert!(matches!(reason, Ended::Broken(_)) && comes_back.is_some(), "{reason}");
    let mut socket = standby.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    assert!(socket.heartbeat().await.position.is_some());
    // And on, past one that is not there.
    socket.close(1012).await;
    for _ in 0..2 {
        assert!(closed(&mut explorer).await.1.is_some());
    }
    let _socket = first.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
}

#[tokio::test]
async fn several_gateways_are_found_and_those_that_do_not_answer_left_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}", listener.local_addr().unwrap());
    let gone = "http://127.0.0.1:9".to_owned();
    let about = async {
        for _ in 0..2 {
            let mut asked = listener.accept().await.unwrap().0;
            let _ = asked.read(&mut [0; 4096]).await.unwrap();
            let body = r#"{"comms": {"adapter": "archipelago:archipelago:ws://h/ws"}}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            asked.write_all((head + body).as_bytes()).await.unwrap();
        }
    };
    let realms = [realm.clone(), gone.clone(), realm];
    let (found, ()) = tokio::join!(client::discover_all(&realms, None), about);
    let expected =
        Gateway { others: vec!["ws://h/ws".to_owned()], ..Gateway::new(Dialect::Archipelago, "ws://h/ws") };
    assert_eq!(found.unwrap(), expected);
    let error = client::discover_all(&[gone], None).await.unwrap_err();
    assert!(error.to_string().starts_with("http://127.0.0.1:9/about"), "{error}");
    let nobody: [&str; 0] = [];
    assert_eq!(client::discover_all(&nobody, None).await.unwrap_err().to_string(), "no realm was named");
}

#[tokio::test]
async fn a_gateway_that_answers_pings_is_alive_and_one_that_is_silent_is_given_up() {
    let silence = Duration::from_millis(300);
    let (gateway, mut explorer) =
        Played::start_for(Dialect::Archipelago, |settings| settings.silence = silence).await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    // Reading is all that it takes to answer.
    let mut pings = 0;
    while pings < 5 {
        let message = timeout(PATIENCE, socket.0.next()).await.expect("a frame in time");
        pings += u32::from(message.expect("an open connection").unwrap().is_ping());
    }
    let (reason, comes_back) = closed(&mut explorer).await;
    assert_eq!(reason.to_string(), "connection broken: nothing came for 300ms");
    assert!(comes_back.is_some());
}

#[tokio::test]
async fn each_session_is_told_where_the_explorer_is_and_would_like_to_be() {
    let (gateway, mut explorer) = Played::start().await;
    let handle = explorer.handle();
    handle.heartbeat(Position::new(1.0, 0.0, 0.0), Some("I3".to_owned())).await;
    handle.heartbeat(Position::new(2.0, 0.0, 0.0), None).await;
    let mut socket = gateway.welcome().await;
    // What was said before it was signed in may be said one by one.
    while socket.heartbeat().await.position != Some(Position::new(2.0, 0.0, 0.0).into()) {}
    socket.close(1012).await;
    let mut socket = gateway.welcome().await;
    let heartbeat = socket.heartbeat().await;
    assert_eq!(heartbeat.position, Some(Position::new(2.0, 0.0, 0.0).into()));
    assert_eq!(heartbeat.desired_room.as_deref(), Some("I3"));
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
}

#[tokio::test]
async fn a_refusal_that_would_be_the_same_again_is_the_end() {
    let (gateway, mut explorer) = Played::start().await;
    gateway.welcome().await.close(4001).await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    let (reason, comes_back) = closed(&mut explorer).await;
    assert_eq!(comes_back, None, "{reason}");
    assert_eq!(explorer.next().await, None);
}

#[tokio::test]
async fn why_it_is_over_is_not_lost_while_heartbeats_fall_into_the_end() {
    let (gateway, mut explorer) = Played::start().await;
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
    // It hears the answer to this, and does not end the connection.
    socket.0.send(close(4003)).await.unwrap();
    let (reason, comes_back) = closed(&mut explorer).await;
    assert!(matches!(reason, Ended::Closed { code: 4003, .. }), "{reason}");
    assert_eq!(comes_back, None);
}

#[tokio::test]
async fn who_was_replaced_stays_away_however_the_gateway_ends_it() {
    for code in [Some(1000), Some(3999), Some(1012), None] {
        let (gateway, mut explorer) = Played::start().await;
        let mut socket = gateway.welcome().await;
        assert_eq!(next(&mut explorer).await, Event::SignedIn);
        socket.say(server_packet::Message::Kicked(KickedMessage { reason: 0 })).await;
        match code {
            Some(code) => socket.close(code).await,
            None => drop(socket),
        }
        let (reason, comes_back) = closed(&mut explorer).await;
        assert!(matches!(reason, Ended::Closed { code: 4003, .. }), "{code:?}: {reason}");
        assert_eq!(comes_back, None, "{code:?}");
        assert_eq!(explorer.next().await, None);
    }
}

#[tokio::test]
async fn what_a_gateway_says_is_heard_while_it_takes_nothing_and_then_it_is_given_up() {
    let silence = Duration::from_secs(1);
    let (gateway, mut explorer) =
        Played::start_for(Dialect::Archipelago, |settings| settings.silence = silence).await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    // More than any buffer on the way holds.
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
    let mut heard = 0;
    let reason = loop {
        match next(&mut explorer).await {
            Event::IslandJoined { .. } => heard += 1,
            Event::Closed { reason, .. } => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason.to_string(), "connection broken: the server took nothing for 1s");
    assert!(heard > 5, "{heard}");
}

#[tokio::test]
async fn the_newest_place_is_told_and_none_before_it() {
    let (gateway, explorer) = Played::start().await;
    let mut socket = gateway.socket("archipelago").await;
    socket.hear().await;
    let handle = explorer.handle();
    for x in 0..20_u8 {
        let desired_room = (x < 10).then(|| format!("I{x}"));
        handle.heartbeat(Position::new(x.into(), 0.0, 0.0), desired_room).await;
    }
    // What was ordered before is done when this is answered.
    handle.say("".into(), false).await;
    socket.welcome().await;
    let heartbeat = socket.heartbeat().await;
    assert_eq!(heartbeat.position, Some(Position::new(19.0, 0.0, 0.0).into()));
    assert_eq!(heartbeat.desired_room.as_deref(), Some("I9"));
}

#[tokio::test]
async fn an_explorer_that_is_dropped_leaves_whoever_has_a_handle() {
    let (gateway, mut explorer) = Played::start().await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    let handle = explorer.handle();
    drop(explorer);
    let message = timeout(PATIENCE, socket.0.next()).await.expect("a goodbye in time");
    assert!(matches!(message, Some(Ok(Message::Close(_)))), "{message:?}");
    assert!(handle.say("".into(), false).await.is_empty());
}
