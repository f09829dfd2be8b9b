//! Several room nodes in one process.

use protocol::{
    Close,
    rfc5::{WsSignedChallenge, ws_packet::Message},
};
use serde_json::json;
use test_support::{
    Realm, eventually, wallet,
    wire::{Wire, room_url, sign_in},
};

#[tokio::test(flavor = "multi_thread")]
async fn room_nodes_fill_separately_and_drain_together() {
    // One seat on each node: the second island does not fit on the first node.
    let realm =
        Realm::start(&[("ROOMS__NODES", "2"), ("ROOMS__MAX_USERS", "1"), ("ROOMS__MAX_ISLAND_SIZE", "1")]);
    let (mut rooms, mut wires, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for x in [0.0, 1_000.0] {
        let wallet = wallet();
        let mut wire = sign_in(&realm, &wallet).await;
        wire.heartbeat(x).await;
        let change = wire.island_changed().await;
        let url = room_url(&change);
        let path = url.strip_prefix(&realm.ws).unwrap().split('?').next().unwrap();
        paths.push(path.replace(&change.island_id, "{room}"));
        let mut room = Wire::open(&url).await;
        room.identify(&wallet).await;
        room.welcome().await;
        rooms.push(room);
        wires.push(wire);
    }
    paths.sort();
    assert_eq!(paths, ["/nodes/rooms-2/rooms/{room}", "/rooms/{room}"]);
    let status = realm.json("/rooms/status").await;
    assert_eq!((&status["node"], &status["users"]), (&json!("rooms-1"), &json!(2)));
    assert_eq!(status["rooms"].as_array().unwrap().len(), 2);
    assert_eq!(status["nodes"], json!([{"node": "rooms-1", "users": 1}, {"node": "rooms-2", "users": 1}]));
    realm.interrupt();
    for room in &mut rooms {
        assert_eq!(room.closed().await.0, Close::Restarting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_node_is_entered_by_its_path_and_counted() {
    let realm = Realm::start(&[("ROOMS__NODES", "2"), ("ROOMS__NODE", "eu"), ("ROOMS__OPEN", "lobby")]);
    let mut rooms = Vec::new();
    for path in ["/rooms/lobby", "/nodes/eu-2/rooms/lobby"] {
        let wallet = wallet();
        let mut wire = Wire::open(&format!("{}{path}", realm.ws)).await;
        wire.identify(&wallet).await;
        let Message::ChallengeMessage(challenge) = wire.next_in_room().await else { panic!("no challenge") };
        let auth_chain_json = wallet.sign_challenge(&challenge.challenge_to_sign);
        wire.send_room_packet(Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })).await;
        let welcome = wire.welcome().await;
        assert!(welcome.peer_identities.is_empty(), "a room of the same name elsewhere is another room");
        rooms.push((wire, welcome.alias));
    }
    assert!(rooms[0].1 != rooms[1].1, "aliases are unique in a process");
    assert_eq!(realm.metric("dcl_ws_rooms_connections").await, 2.0);
    assert_eq!(realm.metric("dcl_ws_rooms_count").await, 2.0);
    let status = realm.json("/comms/rooms/status").await;
    assert_eq!(status["rooms"], json!([{"id": "lobby", "users": 2}]));
    for path in ["/nodes/eu/rooms/lobby", "/nodes/eu-3/rooms/lobby"] {
        assert!(realm.get(path).await.status().is_client_error(), "{path}");
    }
    rooms.pop();
    eventually("the membership ends", async || realm.metric("dcl_ws_rooms_connections").await == 1.0).await;
}
