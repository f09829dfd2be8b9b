//! Test clients that use the wire protocol directly, without the SDK.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt, StreamExt};
use identity::Wallet;
use protocol::{
    Close, ConnectionString, Message as _, Position,
    rfc5::{WsIdentification, WsPacket, WsPeerUpdate, WsWelcome, ws_packet},
    v3::{
        ChallengeRequestMessage, ClientPacket, Heartbeat, IslandChangedMessage, ServerPacket,
        SignedChallengeMessage, WelcomeMessage, client_packet, server_packet,
    },
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::{Realm, TEST_TIMEOUT};

/// A WebSocket client.
pub struct Wire(
    /// The socket.
    pub WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Messages that arrived and were not read yet.
    VecDeque<Vec<u8>>,
);

impl Wire {
    /// A client on this socket.
    pub fn new(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self(socket, VecDeque::new())
    }

    /// Opens a socket.
    pub async fn open(url: &str) -> Self {
        Self::new(timeout(TEST_TIMEOUT, connect_async(url)).await.unwrap().unwrap().0)
    }

    /// Opens a socket and offers subprotocols; returns the chosen one.
    pub async fn open_with_subprotocols(url: &str, subprotocols: &str) -> (Self, Option<String>) {
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", subprotocols.parse().unwrap());
        let (socket, response) = connect_async(request).await.unwrap();
        let chosen = response.headers().get("sec-websocket-protocol");
        (Self(socket, VecDeque::new()), chosen.map(|chosen| chosen.to_str().unwrap().to_owned()))
    }

    /// Opens a socket from 127.0.7.`last`, a network of its own, with these headers; or returns the status and body
    /// of the refusal.
    pub async fn open_from(
        last: u8,
        url: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, String)> {
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 7, last], 0).into()).unwrap();
        let server = request.uri().authority().unwrap().as_str().parse().unwrap();
        let stream = MaybeTlsStream::Plain(socket.connect(server).await.unwrap());
        match timeout(TEST_TIMEOUT, client_async(request, stream)).await.unwrap() {
            Ok((socket, _)) => Ok(Self(socket, VecDeque::new())),
            Err(Error::Http(response)) => {
                let body =
                    String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
                Err((response.status().as_u16(), body))
            }
            Err(error) => panic!("neither a socket nor a refusal: {error}"),
        }
    }

    /// Signs in on this socket.
    pub async fn sign_in(&mut self, wallet: &Wallet) {
        let challenge = self.request_challenge(wallet).await;
        self.send_auth_chain(wallet.sign_challenge(&challenge)).await;
        let welcome = self.next_packet().await;
        assert!(matches!(welcome, server_packet::Message::Welcome(_)), "instead of a welcome: {welcome:?}");
    }

    /// Sends a binary message.
    pub async fn send(&mut self, bytes: Vec<u8>) {
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
    }

    /// Sends a packet to a gateway.
    pub async fn send_packet(&mut self, message: client_packet::Message) {
        self.send(ClientPacket { message: Some(message) }.encode_to_vec()).await;
    }

    /// Sends a packet to a room.
    pub async fn send_room_packet(&mut self, message: ws_packet::Message) {
        self.send(WsPacket { message: Some(message) }.encode_to_vec()).await;
    }

    /// The next binary message; panics on a close, with its reason.
    pub async fn next(&mut self) -> Vec<u8> {
        if let Some(bytes) = self.1.pop_front() {
            return bytes;
        }
        let message = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Binary(bytes))) => return bytes.to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("instead of a message: {other:?}"),
                }
            }
        };
        timeout(TEST_TIMEOUT, message).await.expect("a message in time")
    }

    /// The next packet of a gateway.
    pub async fn next_packet(&mut self) -> server_packet::Message {
        ServerPacket::decode(&self.next().await[..]).unwrap().message.unwrap()
    }

    /// The next packet of a room.
    pub async fn next_in_room(&mut self) -> ws_packet::Message {
        WsPacket::decode(&self.next().await[..]).unwrap().message.unwrap()
    }

    /// Whether no packet arrives for this long. A packet that does is kept for the next read.
    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            let message = tokio::time::timeout_at(deadline, self.0.next()).await;
            match message {
                Err(_) => return true,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(Some(Ok(Message::Binary(bytes)))) => {
                    self.1.push_back(bytes.to_vec());
                    return false;
                }
                Ok(other) => panic!("instead of a message: {other:?}"),
            }
        }
    }

    /// Reads for so long, and returns how many pings arrived. It discards all messages.
    pub async fn pings_within(&mut self, time: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + time;
        let mut pings = 0;
        while let Ok(message) = tokio::time::timeout_at(deadline, self.0.next()).await {
            let message = message.expect("an open socket").expect("an open socket");
            assert!(!message.is_close(), "{message:?}");
            pings += usize::from(message.is_ping());
        }
        pings
    }

    /// Whether no message arrives for this long. A message that does is discarded.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        let message = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return other,
                }
            }
        };
        timeout(time, message).await.is_err()
    }

    /// Reads until the server closes, and returns the close code and reason.
    pub async fn closed(&mut self) -> (Close, String) {
        let close = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame,
                    Some(Ok(_)) => {}
                    other => panic!("instead of a close frame: {other:?}"),
                }
            }
        };
        let frame = timeout(TEST_TIMEOUT, close).await.expect("a close in time");
        // The next read sends the answer to the close.
        let _ = timeout(Duration::from_millis(100), self.0.next()).await;
        let close = Close::from_code(frame.code.into()).expect("a code of the table");
        (close, frame.reason.as_str().to_owned())
    }

    /// Requests a challenge.
    pub async fn request_challenge(&mut self, wallet: &Wallet) -> String {
        self.request_challenge_with(wallet, &[]).await
    }

    /// Requests a challenge, and announces these transports.
    async fn request_challenge_with(&mut self, wallet: &Wallet, transports: &[&str]) -> String {
        let address = wallet.address().to_string();
        let transports = transports.iter().map(|&name| name.to_owned()).collect();
        let request = ChallengeRequestMessage { address, transports, resume_secret: None };
        self.send_packet(client_packet::Message::ChallengeRequest(request)).await;
        match self.next_packet().await {
            server_packet::Message::ChallengeResponse(response) => response.challenge_to_sign,
            other => panic!("instead of a challenge: {other:?}"),
        }
    }

    /// Answers a challenge.
    pub async fn send_auth_chain(&mut self, auth_chain_json: String) {
        let signed = SignedChallengeMessage { auth_chain_json };
        self.send_packet(client_packet::Message::SignedChallenge(signed)).await;
    }

    /// Sends a heartbeat at this x coordinate.
    pub async fn heartbeat(&mut self, x: f32) {
        self.send_position(x, 0.0).await;
    }

    /// Sends a heartbeat with this position.
    pub async fn send_position(&mut self, x: f32, z: f32) {
        let position = Some(Position::new(x, 1.0, z).into());
        self.send_packet(client_packet::Message::Heartbeat(Heartbeat { position, desired_room: None })).await;
    }

    /// The next assignment; joins, leaves and messages about a mesh before it are skipped.
    pub async fn island_changed(&mut self) -> IslandChangedMessage {
        loop {
            match self.next_packet().await {
                server_packet::Message::IslandChanged(change) => return change,
                server_packet::Message::JoinIsland(_)
                | server_packet::Message::LeftIsland(_)
                | server_packet::Message::MeshPlan(_)
                | server_packet::Message::MeshSignal(_)
                | server_packet::Message::IceServers(_) => {}
                other => panic!("instead of an island: {other:?}"),
            }
        }
    }

    /// Identifies itself to a room.
    pub async fn identify(&mut self, wallet: &Wallet) {
        let address = wallet.address().to_string();
        self.send_room_packet(ws_packet::Message::PeerIdentification(WsIdentification { address })).await;
    }

    /// The welcome of a room.
    pub async fn welcome(&mut self) -> WsWelcome {
        match self.next_in_room().await {
            ws_packet::Message::WelcomeMessage(welcome) => welcome,
            other => panic!("instead of a welcome: {other:?}"),
        }
    }

    /// Sends a message to a room.
    pub async fn update(&mut self, body: Vec<u8>, unreliable: bool) {
        // The server sets the alias; it overwrites the client's value.
        let update = WsPeerUpdate { from_alias: 4_000_000, body: body.into(), unreliable };
        self.send_room_packet(ws_packet::Message::PeerUpdateMessage(update)).await;
    }
}

/// Opens a socket and signs in.
pub async fn sign_in(realm: &Realm, wallet: &Wallet) -> Wire {
    sign_in_with(realm, wallet, &[]).await
}

/// The same, with these transports announced.
pub async fn sign_in_with(realm: &Realm, wallet: &Wallet, transports: &[&str]) -> Wire {
    let mut wire = Wire::open(&realm.socket()).await;
    let challenge = wire.request_challenge_with(wallet, transports).await;
    wire.send_auth_chain(wallet.sign_challenge(&challenge)).await;
    match wire.next_packet().await {
        server_packet::Message::Welcome(welcome) => assert_eq!(welcome.peer_id, wallet.address().to_string()),
        other => panic!("instead of a welcome: {other:?}"),
    }
    wire
}

/// Signs in a client that announces extensions, and presents this resume secret.
pub async fn sign_in_with_resume_secret(
    realm: &Realm,
    wallet: &Wallet,
    secret: &[u8],
) -> (Wire, WelcomeMessage) {
    let mut wire = Wire::open(&realm.socket()).await;
    let (address, resume_secret) = (wallet.address().to_string(), Some(secret.to_vec()));
    let request = ChallengeRequestMessage { address, resume_secret, ..Default::default() };
    wire.send_packet(client_packet::Message::ChallengeRequest(request)).await;
    let server_packet::Message::ChallengeResponse(challenge) = wire.next_packet().await else {
        panic!("no challenge")
    };
    wire.send_auth_chain(wallet.sign_challenge(&challenge.challenge_to_sign)).await;
    let server_packet::Message::Welcome(welcome) = wire.next_packet().await else { panic!("no welcome") };
    assert_eq!(welcome.resume_secret.len(), 16);
    (wire, welcome)
}

/// The URL of a room, with its token.
pub fn room_url(change: &IslandChangedMessage) -> String {
    let connection: ConnectionString = change.conn_str.parse().unwrap();
    assert!(matches!(connection, ConnectionString::WsRoom { access_token: Some(_), .. }), "{connection}");
    connection.room_url().unwrap()
}

/// Signs in at this position, and enters the room of the island.
pub async fn enter(realm: &Realm, wallet: &Wallet, x: f32) -> (Wire, Wire, WsWelcome) {
    let mut wire = sign_in(realm, wallet).await;
    wire.heartbeat(x).await;
    let change = wire.island_changed().await;
    let (room, welcome) = enter_room(wallet, &change).await;
    (wire, room, welcome)
}

/// Enters the assigned room; returns the socket and the welcome.
pub async fn enter_room(wallet: &Wallet, change: &IslandChangedMessage) -> (Wire, WsWelcome) {
    let mut room = Wire::open(&room_url(change)).await;
    room.identify(wallet).await;
    let welcome = room.welcome().await;
    (room, welcome)
}

/// The body of the next message of another member.
pub async fn next_update(room: &mut Wire) -> Vec<u8> {
    loop {
        match room.next_in_room().await {
            ws_packet::Message::PeerUpdateMessage(update) => return update.body.to_vec(),
            ws_packet::Message::PeerJoinMessage(_) | ws_packet::Message::PeerLeaveMessage(_) => {}
            other => panic!("instead of an update: {other:?}"),
        }
    }
}
