//! Clients in an island that moves between nodes.
//!
//! Real room nodes and real bots; this test plays the gateway, so that it decides when an island moves.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    routing::get,
};
use protocol::{
    Address, Message as _, Ulid,
    v3::{
        ChallengeResponseMessage, ClientPacket, IslandChangedMessage, ServerPacket, WelcomeMessage,
        client_packet, server_packet,
    },
};
use serde_json::{Value, json};
use test_support::{Realm, SECRET};
use tokio::{net::TcpListener, sync::watch, time};
use transports::ws_room::Minter;

const ISLAND: &str = "I7";
/// All moves fit into a run of fifteen seconds, with time before and after.
const MOVES: usize = 3;
const MOVE_INTERVAL: Duration = Duration::from_secs(4);

/// A gateway that assigns all clients one island, and moves it.
#[derive(Clone)]
struct FakeGateway {
    /// The number of moves so far.
    node: watch::Receiver<usize>,
    connections: Arc<[Connections]>,
    /// The delay of the assignment for every other bot.
    lag: Duration,
    sockets: Arc<AtomicU64>,
    minted: Arc<AtomicU64>,
}

enum Connections {
    /// Connection strings of a room node.
    Rooms(String),
    /// Connection strings that bots cannot join.
    Unjoinable,
}

impl FakeGateway {
    /// Starts the gateway, and returns its URL.
    async fn start(connections: Vec<Connections>, lag: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (next, node) = watch::channel(0);
        tokio::spawn(async move {
            for node in 1..=MOVES {
                time::sleep(MOVE_INTERVAL).await;
                next.send_replace(node);
            }
            next.closed().await;
        });
        let (sockets, minted) = Default::default();
        let gateway = Self { node, connections: connections.into(), lag, sockets, minted };
        let adapter = format!("archipelago:archipelago:ws://{address}/ws");
        let about = Json(json!({"comms": {"adapter": adapter}}));
        let sockets = async |State(gateway): State<Self>, upgrade: WebSocketUpgrade| {
            upgrade.protocols(["archipelago"]).on_upgrade(|socket| gateway.serve(socket))
        };
        let router = Router::new().route("/ws", get(sockets)).with_state(gateway);
        let router = router.route("/about", get(async move || about.clone()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    async fn serve(mut self, mut socket: WebSocket) {
        let is_delayed = self.sockets.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        let mut peer = None;
        let mut inside = false;
        loop {
            tokio::select! {
                packet = socket.recv() => {
                    let Some(Ok(message)) = packet else { return };
                    let Message::Binary(bytes) = message else { continue };
                    match ClientPacket::decode(bytes).unwrap().message.unwrap() {
                        client_packet::Message::ChallengeRequest(request) => {
                            peer = Some(request.address.parse::<Address>().unwrap());
                            let challenge_to_sign = "dcl-challenge".to_owned();
                            let response = ChallengeResponseMessage { challenge_to_sign, ..Default::default() };
                            send_packet(&mut socket, server_packet::Message::ChallengeResponse(response)).await;
                        }
                        client_packet::Message::SignedChallenge(_) => {
                            let peer_id = peer.unwrap().to_string();
                            send_packet(&mut socket, server_packet::Message::Welcome(WelcomeMessage { peer_id, ..Default::default() })).await;
                        }
                        client_packet::Message::Heartbeat(_) if !inside => {
                            inside = true;
                            let change = self.change(peer.unwrap(), None);
                            send_packet(&mut socket, change).await;
                        }
                        _ => {}
                    }
                }
                moved = self.node.changed(), if inside => {
                    moved.unwrap();
                    if is_delayed {
                        time::sleep(self.lag).await;
                    }
                    let change = self.change(peer.unwrap(), Some(ISLAND));
                    send_packet(&mut socket, change).await;
                }
            }
        }
    }

    fn change(&mut self, peer: Address, from: Option<&str>) -> server_packet::Message {
        let node = *self.node.borrow_and_update();
        let conn_str = match &self.connections[node % self.connections.len()] {
            Connections::Rooms(url) => {
                let minted = Ulid(self.minted.fetch_add(1, Ordering::Relaxed).into());
                let minter = Minter::new(SECRET.as_bytes(), Duration::from_secs(60));
                let island = ISLAND.parse().unwrap();
                minter.connection(url, &island, peer, minted, SystemTime::now()).unwrap().to_string()
            }
            Connections::Unjoinable => "pulse:I1".to_owned(),
        };
        server_packet::Message::IslandChanged(IslandChangedMessage {
            island_id: ISLAND.to_owned(),
            conn_str,
            from_island_id: from.map(str::to_owned),
            ..IslandChangedMessage::default()
        })
    }
}

async fn send_packet(socket: &mut WebSocket, message: server_packet::Message) {
    let bytes = ServerPacket { message: Some(message) }.encode_to_vec();
    // The client may have disconnected.
    let _ = socket.send(Message::Binary(bytes.into())).await;
}

/// Runs bots for fifteen seconds, and returns their exit code and their summary.
async fn bots(url: &str, flags: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args(["bots", "--seconds", "15", "--json", "--url", url]).args(flags);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let summary = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(summary.trim()).expect("one line of JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_clients_lose_nothing_over_moves() {
    let realm = Realm::start(&[("ROOMS__NODES", "2")]);
    let nodes = [realm.ws.clone(), format!("{}/nodes/rooms-2", realm.ws)];
    let url = FakeGateway::start(nodes.map(Connections::Rooms).into(), Duration::ZERO).await;
    let flags = ["--count", "8", "--hz", "50", "--stock", "0.25", "--route", "0,0 -20,0", "--speed", "2"];
    let (code, summary) = bots(&url, &flags).await;
    assert_eq!(code, Some(0), "{summary}");
    let count = |name: &str| summary.pointer(name).unwrap_or_else(|| panic!("{name}")).as_u64().unwrap();
    // Three moves of eight bots; two of these are like stock clients.
    assert_eq!((count("/moves_overlapping"), count("/moves_stock")), (18, 6), "{summary}");
    assert_eq!((count("/stock"), count("/most_moves_of_one")), (2, 3), "{summary}");
    assert!(summary["least_seconds_between_moves"].as_f64().unwrap() > 3.0, "{summary}");
    assert_eq!(summary["connections"], json!({"ws-room": {"bots": 8, "changes": 32, "moves": 24}}));
    assert!(count("/over_moves/overlapping/expected") > 10_000, "{summary}");
    assert_eq!((count("/over_moves/overlapping/lost"), count("/lost")), (0, 0), "{summary}");
    assert!(count("/over_moves/to_stock/expected") > 2_500, "{summary}");
    // Each bot was in both rooms for two seconds, three times.
    assert!(count("/doubles") > 2_500, "{summary}");
    assert_eq!((count("/given_twice"), count("/disordered")), (0, 0), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_fail_when_messages_are_lost_over_moves() {
    let realm = Realm::start(&[("ROOMS__NODES", "2")]);
    let nodes = [realm.ws.clone(), format!("{}/nodes/rooms-2", realm.ws)];
    // Longer than overlapping clients stay in the old room; and no pair is near enough to be checked.
    let lag = Duration::from_secs(3);
    let url = FakeGateway::start(nodes.map(Connections::Rooms).into(), lag).await;
    let (code, summary) = bots(&url, &["--count", "4", "--route", "0,0 1000,0 1000,1000 0,1000"]).await;
    assert_eq!(code, Some(1), "{summary}");
    assert!(summary["over_moves"]["overlapping"]["lost"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(
        (&summary["lost"], &summary["unheard"], &summary["absent"]),
        (&json!(0), &json!(0), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unjoinable_connection_leaves_bots_without_a_room() {
    let realm = Realm::start(&[]);
    let connections = vec![Connections::Rooms(realm.ws.clone()), Connections::Unjoinable];
    let url = FakeGateway::start(connections, Duration::ZERO).await;
    let (code, summary) = bots(&url, &["--count", "4", "--transports", "pulse,ws-room", "--still"]).await;
    assert_eq!(code, Some(0), "{summary}");
    let (rooms, pulse) = (&summary["connections"]["ws-room"], &summary["connections"]["pulse"]);
    assert_eq!(rooms, &json!({"bots": 0, "changes": 8, "moves": 4}));
    assert_eq!(pulse, &json!({"bots": 4, "changes": 8, "moves": 8}));
    assert_eq!((&summary["people"], &summary["absent"]), (&json!(0), &json!(0)), "{summary}");
}
