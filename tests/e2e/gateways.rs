//! What gateways say on a bus that others share.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use protocol::{
    Address, Message as _, Position, Subject,
    atoll_bus::{GatewayHeartbeat, Told},
    subject,
    v3::{Heartbeat, client_packet},
};
use tokio::time::timeout;

use crate::{
    front::{Realm, eventually, wallet},
    rpc::caller,
    server::Server,
    wire::{PATIENCE, Wire, sign_in, sign_in_with},
};

fn realm_on(server: &Server, settings: &[(&str, &str)]) -> Realm {
    Realm::launch(&["--bus", &server.url()], settings)
}

/// Somebody on the bus, and the heartbeats that it hears.
async fn listener(server: &Server) -> (Client, Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let heartbeats = client.subscribe(subject::PEER_HEARTBEATS).await.unwrap();
    client.flush().await.unwrap();
    (client, heartbeats)
}

/// The next heartbeat, and whose it is.
async fn next(heartbeats: &mut Subscriber) -> (Address, GatewayHeartbeat) {
    let message = timeout(PATIENCE, heartbeats.next()).await.expect("a heartbeat in time").unwrap();
    let Ok(Subject::PeerHeartbeat(address)) = message.subject.parse() else { panic!("{}", message.subject) };
    (address, GatewayHeartbeat::decode(message.payload).unwrap())
}

async fn wishes(wire: &mut Wire, x: f32, room: Option<&str>) {
    let (position, desired_room) = (Some(Position::new(x, 1.0, 0.0).into()), room.map(str::to_owned));
    wire.say(client_packet::Message::Heartbeat(Heartbeat { position, desired_room })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_say_all_that_a_director_has_to_know() {
    let server = Server::start();
    let realm = realm_on(&server, &[]);
    let (_bus, mut heard) = listener(&server).await;
    let mut wire = sign_in_with(&realm, &wallet(), &["p2p", "ws-room"]).await;
    wishes(&mut wire, 1.0, Some("I1")).await;
    let first = next(&mut heard).await.1;
    assert_eq!(first.position, Some(Position::new(1.0, 1.0, 0.0).into()));
    assert_eq!(first.transports.as_deref(), Some("p2p,ws-room"));
    assert_eq!((first.desired_room.as_deref(), first.told), (Some("I1"), Some(Told::default())));
    let island = wire.island_changed().await.island_id;
    wishes(&mut wire, 2.0, None).await;
    let second = next(&mut heard).await.1;
    assert_eq!(second.desired_room.as_deref(), Some("I1"), "it holds");
    assert_eq!(second.told.unwrap().island, island);
    wishes(&mut wire, 2.0, Some("")).await;
    assert_eq!(next(&mut heard).await.1.desired_room.as_deref(), Some(""), "it has ended");
    drop(wire);
    // The same over RPC, where what was told waits until the client asks.
    let mut caller = caller::sign_in(&realm, &wallet()).await;
    caller.heartbeat(5_000.0).await;
    let first = next(&mut heard).await.1;
    assert_eq!((first.transports, first.told), (None, Some(Told::default())));
    eventually("told", async || {
        caller.heartbeat(5_000.0).await;
        let told = next(&mut heard).await.1.told.unwrap();
        !told.island.is_empty() && told.island != island
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_who_is_there_hears_of_everybody_once() {
    let server = Server::start();
    // Nobody is vouched for meanwhile.
    let rarely = [("GATEWAY__VOUCH_INTERVAL_S", "60"), ("ISLANDS__SILENCE_S", "120")];
    let realm = realm_on(&server, &rarely);
    let mut wires = Vec::new();
    for number in 0..20_u8 {
        let mut wire = sign_in(&realm, &wallet()).await;
        wire.heartbeat(f32::from(number)).await;
        wire.island_changed().await;
        wires.push(wire);
    }
    let caller_wallet = wallet();
    let mut caller = caller::sign_in(&realm, &caller_wallet).await;
    caller.heartbeat(20.0).await;
    eventually("all are shown", async || {
        realm.json("/peers").await["peers"].as_array().is_some_and(|peers| peers.len() == 21)
    })
    .await;
    let (bus, mut heard) = listener(&server).await;
    for _ in 0..2 {
        bus.publish(Subject::PeersWanted.to_string(), "".into()).await.unwrap();
    }
    let mut places = BTreeMap::new();
    while places.len() < 21 {
        let (address, heartbeat) = next(&mut heard).await;
        let place = heartbeat.position.unwrap().x;
        assert!(places.insert(address, place).is_none(), "each once, however often it was asked");
    }
    assert_eq!(places[&caller_wallet.address()], 20.0);
    assert!(timeout(Duration::from_millis(1_500), heard.next()).await.is_err(), "each once");
    // Presence that begins later shows them, too, and does not wait until they move.
    let later = realm_on(&server, &[("ROOMS__NODE", "rooms-later")]);
    eventually("all are shown there", async || {
        later.json("/peers").await["peers"].as_array().is_some_and(|peers| peers.len() == 21)
    })
    .await;
}
