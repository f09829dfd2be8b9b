//! A gateway that speaks RPC.

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

use crate::played::{ADDRESS, PATIENCE, Played, Socket, closed, next};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Challenge,
    Authenticate,
    Farewell,
    System,
    Publish,
    Heartbeat,
}

const fn procedure(name: &'static str, which: Asked) -> Procedure<Asked> {
    Procedure { name, which }
}

static MODULES: [Module<Asked>; 3] = [
    Module {
        name: "BffAuthenticationService",
        procedures: &[
            procedure("GetChallenge", Asked::Challenge),
            procedure("Authenticate", Asked::Authenticate),
            procedure("GetDisconnectionMessage", Asked::Farewell),
        ],
    },
    Module {
        name: "TopicsService",
        procedures: &[
            procedure("SystemSubscription", Asked::System),
            procedure("PublishToTopic", Asked::Publish),
        ],
    },
    Module { name: "CommsDirectorService", procedures: &[procedure("SendHeartbeat", Asked::Heartbeat)] },
];

/// The server's side of a connection, which takes everybody in.
struct Bff {
    socket: Socket,
    connection: Connection<Asked>,
    islands: Option<u32>,
    joins: Option<u32>,
    farewell: Option<u32>,
    heartbeats: Vec<Heartbeat>,
}

impl Bff {
    async fn accept(gateway: &Played) -> Self {
        let socket = gateway.socket("bff").await;
        let connection = Connection::new(Limits { ports: 4, calls: 256 }, &MODULES);
        Self { socket, connection, islands: None, joins: None, farewell: None, heartbeats: Vec::new() }
    }

    /// Serves what comes for as long as `until` is not so.
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
            let message = timeout(PATIENCE, self.socket.0.next()).await.expect("a message in time");
            let Some(Ok(message)) = message else { return };
            if let Message::Binary(bytes) = message {
                self.connection.receive(&bytes).unwrap();
            }
        }
    }

    fn called(&mut self, number: u32, procedure: Asked, payload: Bytes) {
        let answer = match procedure {
            Asked::Challenge => {
                let (challenge_to_sign, already_connected) = ("dcl-challenge".to_owned(), false);
                GetChallengeResponse { challenge_to_sign, already_connected }.encode_to_vec()
            }
            Asked::Authenticate => WelcomePeerInformation::default().encode_to_vec(),
            Asked::Farewell => return self.farewell = Some(number),
            Asked::System => {
                let topic = SubscriptionRequest::decode(payload).unwrap().topic;
                if topic.ends_with(".island_changed") {
                    self.islands = Some(number);
                } else if topic.ends_with(".peer_join") {
                    self.joins = Some(number);
                }
                return self.connection.open_stream(number);
            }
            Asked::Publish => vec![8, 1],
            Asked::Heartbeat => {
                self.heartbeats.push(Heartbeat::decode(payload).unwrap());
                Vec::new()
            }
        };
        self.connection.respond(number, answer.into());
    }

    /// Tells something on a stream, if more is wanted there.
    fn tell(&mut self, stream: Option<u32>, message: &impl Protobuf) -> bool {
        let wanted = stream.filter(|stream| self.connection.wanted().any(|wanted| wanted == *stream));
        if let Some(stream) = wanted {
            let payload = message.encode_to_vec().into();
            let element = SystemTopicSubscriptionResultElem { payload, ..Default::default() };
            self.connection.element(stream, element.encode_to_vec().into());
        }
        wanted.is_some()
    }
}

#[tokio::test]
async fn one_publishes_while_nobody_takes_events_of_which_there_are_too_many() {
    let (gateway, mut explorer) = Played::start_for(Dialect::Rpc, |_| {}).await;
    let mut bff = Bff::accept(&gateway).await;
    let island = || "I7".to_owned();
    let change = IslandChangedMessage {
        island_id: island(),
        conn_str: "offline:offline".to_owned(),
        ..IslandChangedMessage::default()
    };
    bff.serve(|bff| bff.tell(bff.islands, &change)).await;
    let join = JoinIslandMessage { island_id: island(), peer_id: ADDRESS.to_owned() };
    let (told, mut tells) = (std::sync::atomic::AtomicUsize::new(0), 0);
    let served = bff.serve(|bff| {
        tells += usize::from(bff.tell(bff.joins, &join));
        told.store(tells, std::sync::atomic::Ordering::Relaxed);
        false
    });
    let handle = explorer.handle();
    let told_so_far = || told.load(std::sync::atomic::Ordering::Relaxed);
    let publish = async {
        while told_so_far() < 1_024 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The queues fill, until nothing more is asked for.
        let mut before = 0;
        while before < told_so_far() {
            before = told_so_far();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let published = timeout(PATIENCE, handle.publish("news", "sunny")).await;
        published.expect("an answer in time").unwrap();
        // And nothing was lost.
        let mut joined = 0;
        assert_eq!(next(&mut explorer).await, Event::SignedIn);
        assert!(matches!(next(&mut explorer).await, Event::IslandChanged { .. }));
        while joined < before {
            assert!(matches!(next(&mut explorer).await, Event::IslandJoined { .. }));
            joined += 1;
        }
    };
    tokio::select! {
        () = served => panic!("the explorer is gone"),
        () = publish => {}
    }
}

#[tokio::test]
async fn nothing_is_kept_for_later_while_a_sign_in_is_under_way() {
    let (gateway, explorer) = Played::start_for(Dialect::Rpc, |_| {}).await;
    let _silent = gateway.socket("bff").await;
    let published = timeout(PATIENCE / 2, explorer.handle().publish("news", "sunny")).await;
    assert_eq!(published.expect("an answer in time"), Err(TopicsError::NotSignedIn));
}

#[tokio::test]
async fn who_was_replaced_over_rpc_stays_away_however_the_gateway_ends_it() {
    let (gateway, mut explorer) = Played::start_for(Dialect::Rpc, |_| {}).await;
    let mut bff = Bff::accept(&gateway).await;
    bff.serve(|bff| match bff.farewell {
        Some(farewell) => {
            bff.connection.respond(farewell, Bytes::new());
            true
        }
        None => false,
    })
    .await;
    bff.socket.close(1000).await;
    assert_eq!(next(&mut explorer).await, Event::SignedIn);
    let (reason, comes_back) = closed(&mut explorer).await;
    assert_eq!(comes_back, None, "{reason}");
}

#[tokio::test]
async fn heartbeats_go_over_rpc_the_newest_first() {
    let (gateway, explorer) = Played::start_for(Dialect::Rpc, |_| {}).await;
    let mut bff = Bff::accept(&gateway).await;
    let handle = explorer.handle();
    for x in 0..20_u8 {
        handle.heartbeat(Position::new(x.into(), 0.0, 0.0), None).await;
    }
    handle.say("".into(), false).await;
    bff.serve(|bff| !bff.heartbeats.is_empty()).await;
    assert_eq!(bff.heartbeats[0].position, Some(Position::new(19.0, 0.0, 0.0).into()));
}
