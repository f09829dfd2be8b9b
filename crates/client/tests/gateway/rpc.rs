//! Tests of the client against a fake gateway over RPC.

use std::time::Duration;

use bytes::Bytes;
use client::{Dialect, Event, Position, Protobuf, TopicsError};
use futures_util::{SinkExt, StreamExt};
use protocol::{
    bff::{
        GetChallengeResponse, SubscriptionRequest, SystemTopicSubscriptionResultElem, WelcomePeerInformation,
    },
    v3::{Heartbeat, IslandChangedMessage, JoinIslandMessage},
};
use rpc::{Connection, Limits, Module, Procedure};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::fake_gateway::{ADDRESS, FakeGateway, Socket, TEST_TIMEOUT, closed, next};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rpc {
    Challenge,
    Authenticate,
    Disconnection,
    System,
    Publish,
    Heartbeat,
}

const fn procedure(name: &'static str, which: Rpc) -> Procedure<Rpc> {
    Procedure { name, id: which }
}

static MODULES: [Module<Rpc>; 3] = [
    Module {
        name: "BffAuthenticationService",
        procedures: &[
            procedure("GetChallenge", Rpc::Challenge),
            procedure("Authenticate", Rpc::Authenticate),
            procedure("GetDisconnectionMessage", Rpc::Disconnection),
        ],
    },
    Module {
        name: "TopicsService",
        procedures: &[
            procedure("SystemSubscription", Rpc::System),
            procedure("PublishToTopic", Rpc::Publish),
        ],
    },
    Module { name: "CommsDirectorService", procedures: &[procedure("SendHeartbeat", Rpc::Heartbeat)] },
];

/// The server's side of an RPC connection, which accepts every sign-in.
struct FakeBff {
    socket: Socket,
    connection: Connection<Rpc>,
    islands: Option<u32>,
    joins: Option<u32>,
    disconnection: Option<u32>,
    heartbeats: Vec<Heartbeat>,
}

impl FakeBff {
    async fn accept(gateway: &FakeGateway) -> Self {
        let socket = gateway.accept("bff").await;
        let connection = Connection::new(Limits { ports: 4, calls: 256 }, &MODULES);
        Self { socket, connection, islands: None, joins: None, disconnection: None, heartbeats: Vec::new() }
    }

    /// Serves the client until `until` returns true.
    async fn serve(&mut self, mut until: impl FnMut(&mut Self) -> bool) {
        loop {
            while let Some(rpc::Event::Called { number, procedure, payload }) = self.connection.poll_event() {
                self.called(number, procedure, payload);
            }
            let done = until(self);
            while let Some(bytes) = self.connection.poll_output() {
                self.socket.0.send(Message::Binary(bytes)).await.unwrap();
            }
            if done {
                return;
            }
            let message = timeout(TEST_TIMEOUT, self.socket.0.next()).await.expect("a message in time");
            let Some(Ok(message)) = message else { return };
            if let Message::Binary(bytes) = message {
                self.connection.receive(&bytes).unwrap();
            }
        }
    }

    fn called(&mut self, number: u32, procedure: Rpc, payload: Bytes) {
        let answer = match procedure {
            Rpc::Challenge => {
                let (challenge_to_sign, already_connected) = ("dcl-challenge".to_owned(), false);
                GetChallengeResponse { challenge_to_sign, already_connected }.encode_to_vec()
            }
            Rpc::Authenticate => WelcomePeerInformation::default().encode_to_vec(),
            Rpc::Disconnection => return self.disconnection = Some(number),
            Rpc::System => {
                let topic = SubscriptionRequest::decode(payload).unwrap().topic;
                if topic.ends_with(".island_changed") {
                    self.islands = Some(number);
                } else if topic.ends_with(".peer_join") {
                    self.joins = Some(number);
                }
                return self.connection.open_stream(number);
            }
            Rpc::Publish => vec![8, 1],
            Rpc::Heartbeat => {
                self.heartbeats.push(Heartbeat::decode(payload).unwrap());
                Vec::new()
            }
        };
        self.connection.respond(number, answer.into());
    }

    /// Sends an element of a stream, if the client has requested one. Returns whether it was sent.
    fn send_element(&mut self, stream: Option<u32>, message: &impl Protobuf) -> bool {
        let requested =
            stream.filter(|stream| self.connection.requested_streams().any(|requested| requested == *stream));
        if let Some(stream) = requested {
            let payload = message.encode_to_vec().into();
            let element = SystemTopicSubscriptionResultElem { payload, ..Default::default() };
            self.connection.send_element(stream, element.encode_to_vec().into());
        }
        requested.is_some()
    }
}

#[tokio::test]
async fn publish_succeeds_while_event_queues_are_full() {
    let (gateway, mut explorer) = FakeGateway::start_for(Dialect::Rpc, |_| {}).await;
    let mut bff = FakeBff::accept(&gateway).await;
    let island = || "I7".to_owned();
    let change = IslandChangedMessage {
        island_id: island(),
        conn_str: "offline:offline".to_owned(),
        ..IslandChangedMessage::default()
    };
    bff.serve(|bff| bff.send_element(bff.islands, &change)).await;
    let join = JoinIslandMessage { island_id: island(), peer_id: ADDRESS.to_owned() };
    let (sent, mut sends) = (std::sync::atomic::AtomicUsize::new(0), 0);
    let served = bff.serve(|bff| {
        sends += usize::from(bff.send_element(bff.joins, &join));
        sent.store(sends, std::sync::atomic::Ordering::Relaxed);
        false
    });
    let handle = explorer.handle();
    let sent_so_far = || sent.load(std::sync::atomic::Ordering::Relaxed);
    let publish = async {
        while sent_so_far() < 1_024 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The queues fill until the client requests no more elements.
        let mut before = 0;
        while before < sent_so_far() {
            before = sent_so_far();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let published = timeout(TEST_TIMEOUT, handle.publish("news", "sunny")).await;
        published.expect("an answer in time").unwrap();
        // No event was lost.
        let mut joined = 0;
        assert_eq!(next(&mut explorer).await, Event::SignedIn);
        assert!(matches!(next(&mut explorer).await, Event::IslandChanged { .. }));
        while joined < before {
            assert!(matches!(next(&mut explorer).await, Event::IslandJoined { .. }));
            joined += 1;
        }
    };
    tokio::select! {
        () = served => panic!("the client has stopped"),
        () = publish => {}
    }
}

#[tokio::test]
async fn publish_fails_at_once_while_signing_in() {
    let (gateway, explorer) = FakeGateway::start_for(Dialect::Rpc, |_| {}).await;
    let _silent = gateway.accept("bff").await;
    let published = timeout(TEST_TIMEOUT / 2, explorer.handle().publish("news", "sunny")).await;
    assert_eq!(published.expect("an answer in time"), Err(TopicsError::NotSignedIn));
}

#[tokio::test]
async fn replaced_rpc_session_does_not_reconnect() {
    let (gateway, mut explorer) = FakeGateway::start_for(Dialect::Rpc, |_| {}).await;
    let mut bff = FakeBff::accept(&gateway).await;
    bff.serve(|bff| match bff.disconnection {
        Some(number) => {
            bff.connection.respond(number, Bytes::new());
            true
        }
        None => false,
    })
    .await;
    bff.socket.close(1000).await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    let (reason, retry_in) = closed(&mut explorer).await;
    assert_eq!(retry_in, None, "{reason}");
}

#[tokio::test]
async fn newest_heartbeat_is_sent_first_over_rpc() {
    let (gateway, explorer) = FakeGateway::start_for(Dialect::Rpc, |_| {}).await;
    let mut bff = FakeBff::accept(&gateway).await;
    let handle = explorer.handle();
    for x in 0..20_u8 {
        handle.heartbeat(Position::new(x.into(), 0.0, 0.0), None).await;
    }
    handle.send("".into(), false).await;
    bff.serve(|bff| !bff.heartbeats.is_empty()).await;
    assert_eq!(bff.heartbeats[0].position, Some(Position::new(19.0, 0.0, 0.0).into()));
}
