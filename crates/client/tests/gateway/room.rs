//! A room that is played here, too.

use std::time::Duration;

use client::{Dialect, Ended, Event, Explorer, Protobuf, Settings};
use futures_util::{SinkExt, StreamExt};
use protocol::{
    rfc5::{WsChallenge, WsPacket, WsWelcome, ws_packet},
    v3::{IslandChangedMessage, server_packet},
};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::played::{PATIENCE, Played, Socket, close, next};

/// A change to this room of island 7, with this token in its URL.
fn change(gateway: &Played, room: &str, token: &str) -> server_packet::Message {
    let address = gateway.0.local_addr().unwrap();
    server_packet::Message::IslandChanged(IslandChangedMessage {
        island_id: "I7".to_owned(),
        conn_str: format!("ws-room:ws://{address}/rooms/{room}?access_token={token}"),
        ..IslandChangedMessage::default()
    })
}

/// Has the explorer come into a room, which wants a signature if there is a challenge.
async fn enter(gateway: &Played, explorer: &mut Explorer, challenge: Option<&str>) -> (Socket, Socket) {
    let mut session = gateway.welcome().await;
    session.say(change(gateway, "lobby", "first")).await;
    let mut room = gateway.socket("rfc5").await;
    assert!(matches!(hear(&mut room).await, ws_packet::Message::PeerIdentification(_)));
    if let Some(challenge) = challenge {
        let (challenge_to_sign, already_connected) = (challenge.to_owned(), false);
        let challenge = WsChallenge { challenge_to_sign, already_connected };
        say(&mut room, ws_packet::Message::ChallengeMessage(challenge)).await;
    }
    assert_eq!(next(explorer).await, Event::SignedIn);
    assert!(matches!(next(explorer).await, Event::IslandChanged { .. }));
    (session, room)
}

async fn hear(room: &mut Socket) -> ws_packet::Message {
    let message = timeout(PATIENCE, room.0.next()).await.expect("a packet in time").unwrap().unwrap();
    WsPacket::decode(message.into_data()).unwrap().message.unwrap()
}

async fn say(room: &mut Socket, message: ws_packet::Message) {
    let bytes = WsPacket { message: Some(message) }.encode_to_vec();
    room.0.send(Message::Binary(bytes.into())).await.unwrap();
}

fn welcome() -> ws_packet::Message {
    ws_packet::Message::WelcomeMessage(WsWelcome { alias: 1, ..WsWelcome::default() })
}

#[tokio::test]
async fn a_room_without_a_token_is_entered_with_a_signature() {
    let (gateway, mut explorer) = Played::start().await;
    let (_session, mut room) = enter(&gateway, &mut explorer, Some("dcl-open")).await;
    let ws_packet::Message::SignedChallengeForServer(signed) = hear(&mut room).await else {
        panic!("no signature")
    };
    let chain: serde_json::Value = serde_json::from_str(&signed.auth_chain_json).unwrap();
    assert_eq!(chain[2]["payload"], "dcl-open", "{chain}");
    say(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
}

#[tokio::test]
async fn nothing_but_a_challenge_is_signed_for_a_room() {
    let (gateway, mut explorer) = Played::start().await;
    let (_session, _room) = enter(&gateway, &mut explorer, Some("all my money")).await;
    let Event::RoomLeft { ended, .. } = next(&mut explorer).await else { panic!("it stays") };
    assert!(ended.to_string().contains("no challenge"), "{ended}");
}

#[tokio::test]
async fn why_a_stay_is_over_is_not_lost_while_something_is_said() {
    let (gateway, mut explorer) = Played::start().await;
    let (_session, mut room) = enter(&gateway, &mut explorer, None).await;
    say(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    let handle = explorer.handle();
    // What is said on hearing of a room is said there.
    assert_eq!(handle.say("hello".into(), false).await.len(), 1);
    tokio::spawn(async move {
        loop {
            handle.say("and on".into(), false).await;
            sleep(Duration::from_millis(5)).await;
        }
    });
    hear(&mut room).await;
    room.0.send(close(4003)).await.unwrap();
    let Event::RoomLeft { ended, .. } = next(&mut explorer).await else { panic!("it stays") };
    assert!(matches!(ended, Ended::Closed { code: 4003, .. }), "{ended}");
}

#[tokio::test]
async fn told_again_of_its_room_an_explorer_stays_and_keeps_the_newer_token() {
    let (gateway, mut explorer) = Played::start().await;
    let (mut session, mut room) = enter(&gateway, &mut explorer, None).await;
    say(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    session.say(change(&gateway, "lobby", "second")).await;
    assert!(matches!(next(&mut explorer).await, Event::IslandChanged { .. }));
    assert_eq!(explorer.handle().say("hello".into(), false).await.len(), 1, "it is where it was");
    assert!(matches!(hear(&mut room).await, ws_packet::Message::PeerUpdateMessage(_)));
    // The older token is void by now; with the newer one it comes back at once.
    room.0.send(close(4013)).await.unwrap();
    let (mut room, uri) = gateway.asked_for("rfc5").await;
    assert_eq!(uri, "/rooms/lobby?access_token=second");
    hear(&mut room).await;
    say(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomLeft { .. }));
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    // That was the newest.
    room.0.send(close(4013)).await.unwrap();
    assert!(matches!(next(&mut explorer).await, Event::RoomLeft { .. }));
    // And another room is another room.
    session.say(change(&gateway, "elsewhere", "third")).await;
    let (_room, uri) = gateway.asked_for("rfc5").await;
    assert_eq!(uri, "/rooms/elsewhere?access_token=third");
}

#[tokio::test]
async fn stock_clients_enter_a_room_again_whenever_they_are_told_of_it() {
    let stock = |settings: &mut Settings| settings.overlap = None;
    let (gateway, mut explorer) = Played::start_for(Dialect::Archipelago, stock).await;
    let (mut session, mut room) = enter(&gateway, &mut explorer, None).await;
    say(&mut room, welcome()).await;
    assert!(matches!(next(&mut explorer).await, Event::RoomEntered { .. }));
    session.say(change(&gateway, "lobby", "second")).await;
    let (_room, uri) = gateway.asked_for("rfc5").await;
    assert_eq!(uri, "/rooms/lobby?access_token=second");
}
