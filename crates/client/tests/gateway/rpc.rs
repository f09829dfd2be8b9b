//! A gateway that speaks RPC.

use bytes::Bytes;
use client::{Dialect, Event, Protobuf};
use futures_util::{SinkExt, StreamExt};
use protocol::bff::{GetChallengeResponse, WelcomePeerInformation};
use rpc::{Connection, Limits, Module, Procedure};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::played::{PATIENCE, Played, Socket, closed, next};

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
    farewell: Option<u32>,
}

impl Bff {
    async fn accept(gateway: &Played) -> Self {
        let socket = gateway.socket("bff").await;
        let connection = Connection::new(Limits { ports: 4, calls: 256 }, &MODULES);
        Self { socket, connection, farewell: None }
    }

    /// Serves what comes for as long as `until` is not so.
    async fn serve(&mut self, mut until: impl FnMut(&mut Self) -> bool) {
        loop {
            while let Some(rpc::Event::Called { number, procedure, .. }) = self.connection.poll_event() {
                self.called(number, procedure);
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

    fn called(&mut self, number: u32, procedure: Asked) {
        let answer = match procedure {
            Asked::Challenge => {
                let (challenge_to_sign, already_connected) = ("dcl-challenge".to_owned(), false);
                GetChallengeResponse { challenge_to_sign, already_connected }.encode_to_vec()
            }
            Asked::Authenticate => WelcomePeerInformation::default().encode_to_vec(),
            Asked::Farewell => return self.farewell = Some(number),
            Asked::System => return self.connection.open_stream(number),
            Asked::Publish => vec![8, 1],
            Asked::Heartbeat => Vec::new(),
        };
        self.connection.respond(number, answer.into());
    }
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
