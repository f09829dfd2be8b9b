//! A room that is played here, too.

use std::time::Duration;

use client::{Ended, Event, Explorer, Protobuf};
use futures_util::{SinkExt, StreamExt};
use protocol::{
    rfc5::{WsPacket, WsWelcome, ws_packet},
    v3::{IslandChangedMessage, server_packet},
};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::played::{PATIENCE, Played, Socket, close, next};

/// Has the explorer come into a room.
async fn enter(gateway: &Played, explorer: &mut Explorer) -> (Socket, Socket) {
    let mut session = gateway.welcome().await;
    let change = IslandChangedMessage {
        island_id: "I7".to_owned(),
        conn_str: format!("ws-room:ws://{}/rooms/lobby", gateway.0.local_addr().unwrap()),
        ..IslandChangedMessage::default()
    };
    session.say(server_packet::Message::IslandChanged(change)).await;
    let mut room = gateway.socket("rfc5").await;
    assert!(matches!(hear(&mut room).await, ws_packet::Message::PeerIdentification(_)));
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
async fn why_a_stay_is_over_is_not_lost_while_something_is_said() {
    let (gateway, mut explorer) = Played::start().await;
    let (_session, mut room) = enter(&gateway, &mut explorer).await;
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
