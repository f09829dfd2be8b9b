//! Tests of the client against a fake room.

use std::time::Duration;

use client::{Dialect, Disconnect, Event, Explorer, Protobuf, Settings};
use futures_util::{SinkExt, StreamExt};
use protocol::{
    rfc5::{WsChallenge, WsPacket, WsWelcome, ws_packet},
    v3::{IslandChangedMessage, server_packet},
};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::fake_gateway::{FakeGateway, Socket, TEST_TIMEOUT, close, next};

/// An assignment to this room of island 7, with this token in its URL.
fn assignment(gateway: &FakeGateway, room: &str, token: &str) -> server_packet::Message {
    let address = gateway.0.local_addr().unwrap();
    server_packet::Message::IslandChanged(IslandChangedMessage {
        island_id: "I7".to_owned(),
        conn_str: format!("ws-room:ws://{address}/rooms/{room}?access_token={token}"),
        ..IslandChangedMessage::default()
    })
}

/// Assigns a room to the client and accepts its connection. The room requests a signature if there is a
/// challenge.
async fn enter(gateway: &FakeGateway, explorer: &mut Explorer, challenge: Option<&str>) -> (Socket, Socket) {
    let mut session = gateway.welcome().await;
    session.send(assignment(gateway, "lobby", "first")).await;
    let mut room = gateway.accept("rfc5").await;
    assert!(matches!(receive(&mut room).await, ws_packet::Message::PeerIdentification(_)));
    if let Some(challenge) = challenge {
        let (challenge_to_sign, already_connected) = (challenge.to_owned(), false);
        let challenge = WsChallenge { challenge_to_sign, already_connected };
        send(&mut room, ws_packet::Message::ChallengeMessage(challenge)).await;
    }
    assert_eq!(next(explorer).await, Event::SignedIn);
    assert!(matches!(next(explorer).await, Event::IslandChanged { .. }));
    (session, room)
}

async fn receive(room: &mut Socket) -> ws_packet::Message {
    let message = timeout(TEST_TIMEOUT, room.0.next()).await.expect("a packet in time").unwrap().unwrap();
    WsPacket::decode(message.into_data()).unwrap().message.unwrap()
}

async fn send(room: &mut Socket, message: ws_packet::Message) {
    let bytes = WsPacket { message: Some(message) }.encode_to_vec();
    room.0.send(Message::Binary(bytes.into())).await.unwrap();
}

fn welcome() -> ws_packet::Message {
    ws_packet::Message::WelcomeMessage(WsWelcome { alias: 1, ..WsWelcome::default() })
}

#[tokio::test]
async fn room_without_token_is_entered_with_a_signature() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let (_session, mut room) = enter(&gateway, &mut explorer, Some("dcl-open")).await;
    let ws_packet::Message::SignedChallengeForServer(signed) = receive(&mut room).await else {
        panic!("no signature")
    };
    let chain: serde_json::Value = serde_json::from_str(&signed.auth_chain_json).unwrap();
    assert_eq!(chain[2]["payload"], "dcl-open", "{chain}");
    send(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
}

#[tokio::test]
async fn room_challenge_without_prefix_is_not_signed() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let (_session, _room) = enter(&gateway, &mut explorer, Some("all my money")).await;
    let Event::RoomLeft { reason, .. } = next(&mut explorer).await else { panic!("it stays") };
    assert!(reason.to_string().contains("no challenge"), "{reason}");
}

#[tokio::test]
async fn room_close_reason_is_kept_while_messages_are_sent() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let (_session, mut room) = enter(&gateway, &mut explorer, None).await;
    send(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    let handle = explorer.handle();
    // A message that is sent in response to `RoomEntered` reaches the room.
    assert_eq!(handle.send("hello".into(), false).await.len(), 1);
    tokio::spawn(async move {
        loop {
            handle.send("and on".into(), false).await;
            sleep(Duration::from_millis(5)).await;
        }
    });
    receive(&mut room).await;
    room.0.send(close(4003)).await.unwrap();
    let Event::RoomLeft { reason, .. } = next(&mut explorer).await else { panic!("it stays") };
    assert!(matches!(reason, Disconnect::Closed { code: 4003, .. }), "{reason}");
}

#[tokio::test]
async fn repeated_assignment_keeps_the_room_and_the_newer_token() {
    let (gateway, mut explorer) = FakeGateway::start().await;
    let (mut session, mut room) = enter(&gateway, &mut explorer, None).await;
    send(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    session.send(assignment(&gateway, "lobby", "second")).await;
    assert!(matches!(next(&mut explorer).await, Event::IslandChanged { .. }));
    assert_eq!(
        explorer.handle().send("hello".into(), false).await.len(),
        1,
        "the client is still in the room"
    );
    assert!(matches!(receive(&mut room).await, ws_packet::Message::PeerUpdateMessage(_)));
    // The older token is revoked by now. The client reconnects at once with the newer one.
    room.0.send(close(4013)).await.unwrap();
    let (mut room, uri) = gateway.accept_with_uri("rfc5").await;
    assert_eq!(uri, "/rooms/lobby?access_token=second");
    receive(&mut room).await;
    send(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomLeft { .. }));
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    // There is no newer token: the client does not reconnect.
    room.0.send(close(4013)).await.unwrap();
    assert!(matches!(next(&mut explorer).await, Event::RoomLeft { .. }));
    // An assignment to another room is followed.
    session.send(assignment(&gateway, "elsewhere", "third")).await;
    let (_room, uri) = gateway.accept_with_uri("rfc5").await;
    assert_eq!(uri, "/rooms/elsewhere?access_token=third");
}

#[tokio::test]
async fn stock_client_reenters_a_room_on_repeated_assignment() {
    let stock = |settings: &mut Settings| settings.overlap = None;
    let (gateway, mut explorer) = FakeGateway::start_for(Dialect::Archipelago, stock).await;
    let (mut session, mut room) = enter(&gateway, &mut explorer, None).await;
    send(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    session.send(assignment(&gateway, "lobby", "second")).await;
    let (_room, uri) = gateway.accept_with_uri("rfc5").await;
    assert_eq!(uri, "/rooms/lobby?access_token=second");
}
