//! A fake gateway, which accepts and controls the connections of a client.

use std::time::Duration;

use client::{Dialect, Disconnect, Event, Explorer, Gateway, Protobuf, Settings};
use futures_util::{SinkExt, StreamExt};
use protocol::v3::{
    ChallengeResponseMessage, ClientPacket, Heartbeat, ServerPacket, WelcomeMessage, client_packet,
    server_packet,
};
use tokio::{
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

pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);
pub(crate) const ADDRESS: &str = "0x00000000000000000000000000000000000000aa";

/// A gateway that accepts one connection after the other.
pub(crate) struct FakeGateway(pub(crate) TcpListener);

impl FakeGateway {
    pub(crate) async fn start() -> (Self, Explorer) {
        Self::start_for(Dialect::Archipelago, |_| {}).await
    }

    /// Starts a gateway and a client with changed settings.
    pub(crate) async fn start_for(dialect: Dialect, change: impl FnOnce(&mut Settings)) -> (Self, Explorer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self(listener);
        let gateway = Gateway::new(dialect, fake.url());
        let mut settings = Settings { response_timeout: TEST_TIMEOUT, ..Settings::new(gateway) };
        change(&mut settings);
        (fake, Explorer::start(settings, client::guest().unwrap()))
    }

    /// The URL of the gateway.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.0.local_addr().unwrap())
    }

    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        timeout(TEST_TIMEOUT, self.0.accept()).await.expect("a connection in time").unwrap().0
    }

    /// Accepts the next WebSocket.
    pub(crate) async fn accept(&self, subprotocol: &'static str) -> Socket {
        self.accept_with_uri(subprotocol).await.0
    }

    /// Accepts the next WebSocket, and returns the path and query of its request too.
    pub(crate) async fn accept_with_uri(&self, subprotocol: &'static str) -> (Socket, String) {
        let mut uri = String::new();
        let callback = |request: &Request, mut response: Response| {
            uri = request.uri().to_string();
            response.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
            Ok(response)
        };
        let socket = accept_hdr_async(self.accept_tcp().await, callback).await.unwrap();
        (Socket(socket), uri)
    }

    /// Accepts the next client and signs it in, without verifying its auth chain.
    pub(crate) async fn welcome(&self) -> Socket {
        let mut socket = self.accept("archipelago").await;
        socket.receive().await;
        socket.welcome().await;
        socket
    }
}

pub(crate) struct Socket(pub(crate) WebSocketStream<TcpStream>);

impl Socket {
    /// Completes the sign-in after the request for a challenge was received.
    pub(crate) async fn welcome(&mut self) {
        let (challenge_to_sign, already_connected) = ("dcl-challenge".to_owned(), false);
        let challenge = ChallengeResponseMessage { challenge_to_sign, already_connected };
        self.send(server_packet::Message::ChallengeResponse(challenge)).await;
        self.receive().await;
        self.send(server_packet::Message::Welcome(WelcomeMessage {
            peer_id: ADDRESS.to_owned(),
            ..Default::default()
        }))
        .await;
    }

    pub(crate) async fn receive(&mut self) -> client_packet::Message {
        let message = timeout(TEST_TIMEOUT, self.0.next()).await.expect("a packet in time").unwrap().unwrap();
        ClientPacket::decode(message.into_data()).unwrap().message.unwrap()
    }

    pub(crate) async fn heartbeat(&mut self) -> Heartbeat {
        match self.receive().await {
            client_packet::Message::Heartbeat(heartbeat) => heartbeat,
            other => panic!("instead of a heartbeat: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, message: server_packet::Message) {
        let bytes = ServerPacket { message: Some(message) }.encode_to_vec();
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
    }

    pub(crate) async fn close(mut self, code: u16) {
        self.0.send(close(code)).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

pub(crate) async fn next(explorer: &mut Explorer) -> Event {
    timeout(TEST_TIMEOUT, explorer.next()).await.expect("an event in time").expect("a running client")
}

pub(crate) async fn closed(explorer: &mut Explorer) -> (Disconnect, Option<Duration>) {
    match next(explorer).await {
        Event::Disconnected { reason, retry_in } => (reason, retry_in),
        other => panic!("instead of the end: {other:?}"),
    }
}

/// A close frame with this code.
pub(crate) fn close(code: u16) -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: "because".into() }))
}
