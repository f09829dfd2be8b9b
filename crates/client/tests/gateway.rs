//! An explorer and a gateway that is played here, so that it can be rude.

#![allow(clippy::unwrap_used)]
// The answer of a callback is the library's type.
#![allow(clippy::result_large_err)]

use std::time::Duration;

use client::{Dialect, Ended, Event, Explorer, Gateway, Position, Protobuf, Settings};
use futures_util::{SinkExt, StreamExt};
use protocol::v3::{
    ChallengeResponseMessage, ClientPacket, Heartbeat, IslandChangedMessage, JoinIslandMessage,
    LeftIslandMessage, ServerPacket, WelcomeMessage, client_packet, server_packet,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

const PATIENCE: Duration = Duration::from_secs(20);
const ADDRESS: &str = "0x00000000000000000000000000000000000000aa";

/// A gateway that takes one connection after the other.
struct Played(TcpListener);

impl Played {
    async fn start() -> (Self, Explorer) {
        Self::start_for(|_| {}).await
    }

    /// For an explorer with other settings.
    async fn start_for(change: impl FnOnce(&mut Settings)) -> (Self, Explorer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let gateway = Gateway { dialect: Dialect::Archipelago, url };
        let mut settings = Settings { deadline: PATIENCE, ..Settings::new(gateway) };
        change(&mut settings);
        (Self(listener), Explorer::start(settings, client::guest().unwrap()))
    }

    async fn connection(&self) -> TcpStream {
        timeout(PATIENCE, self.0.accept()).await.expect("somebody comes").unwrap().0
    }

    /// Signs in whoever comes next, without looking at their chain.
    async fn welcome(&self) -> Socket {
        // The library's own type.
        #[allow(clippy::result_large_err)]
        let callback = |_: &Request, mut response: Response| {
            response.headers_mut().insert("sec-websocket-protocol", "archipelago".parse().unwrap());
            Ok(response)
        };
        let mut socket = Socket(accept_hdr_async(self.connection().await, callback).await.unwrap());
        socket.hear().await;
        let (challenge_to_sign, already_connected) = ("dcl-challenge".to_owned(), false);
        let challenge = ChallengeResponseMessage { challenge_to_sign, already_connected };
        socket.say(server_packet::Message::ChallengeResponse(challenge)).await;
        socket.hear().await;
        socket.say(server_packet::Message::Welcome(WelcomeMessage { peer_id: ADDRESS.to_owned() })).await;
        socket
    }
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn hear(&mut self) -> client_packet::Message {
        let message = timeout(PATIENCE, self.0.next()).await.expect("a packet in time").unwrap().unwrap();
        ClientPacket::decode(message.into_data()).unwrap().message.unwrap()
    }

    async fn heartbeat(&mut self) -> Heartbeat {
        match self.hear().await {
            client_packet::Message::Heartbeat(heartbeat) => heartbeat,
            other => panic!("instead of a heartbeat: {other:?}"),
        }
    }

    async fn say(&mut self, message: server_packet::Message) {
        let bytes = ServerPacket { message: Some(message) }.encode_to_vec();
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "because".into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

async fn next(explorer: &mut Explorer) -> Event {
    timeout(PATIENCE, explorer.next()).await.expect("an event in time").expect("an explorer")
}

async fn closed(explorer: &mut Explorer) -> (Ended, Option<Duration>) {
    match next(explorer).await {
        Event::Closed { reason, comes_back } => (reason, comes_back),
        other => panic!("instead of the end: {other:?}"),
    }
}

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
async fn a_gateway_that_answers_pings_is_alive_and_one_that_is_silent_is_given_up() {
    let silence = Duration::from_millis(300);
    let (gateway, mut explorer) = Played::start_for(|settings| settings.silence = silence).await;
    let mut socket = gateway.welcome().await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    // Reading is all that it takes to answer.
    let mut pings = 0;
    while pings < 5 {
        pings +=
            u32::from(matches!(timeout(PATIENCE, socket.0.next()).await, Ok(Some(Ok(Message::Ping(_))))));
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
