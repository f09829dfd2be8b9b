//! Roles in processes of their own.

use std::time::Duration;

use identity::Wallet;
use protocol::{Close, v3::IslandChangedMessage};
use serde_json::json;
use test_support::{
    Cluster, Realm, eventually, wallet,
    wire::{Wire, enter_room, next_update, room_url, sign_in},
};

use crate::command_line::atoll;

/// The room node that a room's URL belongs to.
fn node_of<'a>(cluster: &Cluster, nodes: &[&'a str], url: &str) -> &'a str {
    let node = nodes.iter().find(|&&node| url.starts_with(&format!("{}/", cluster[node].ws)));
    node.unwrap_or_else(|| panic!("{url} is of none of {nodes:?}"))
}

const NODES: [&str; 2] = ["rooms-a", "rooms-b"];

/// A realm of two gateways, two room nodes, a director and presence.
async fn six_processes() -> Cluster {
    let named = [("REALM__NAME", "lagoon"), ("REALM__PUBLIC_URL", "https://lagoon.example/")];
    let mut cluster = Cluster::start(&named);
    for (name, roles) in [
        ("gateway-a", "gateway"),
        ("gateway-b", "gateway"),
        ("rooms-a", "rooms"),
        ("rooms-b", "rooms"),
        ("director", "director"),
        ("stats", "stats"),
    ] {
        cluster.run(name, roles, &[]);
    }
    assert_eq!(cluster.running().count(), 6);
    cluster.ready().await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn process_serves_endpoints_of_its_roles_only() {
    let cluster = six_processes().await;
    for (name, path, status) in [
        ("gateway-a", "/about", 200),
        ("gateway-a", "/peers", 404),
        ("gateway-a", "/rooms/status", 404),
        ("rooms-a", "/rooms/status", 200),
        ("rooms-a", "/about", 404),
        ("director", "/about", 404),
        ("director", "/metrics", 200),
        ("director", "/status", 200),
        ("stats", "/hot-scenes", 200),
        ("stats", "/comms/islands", 200),
        ("stats", "/archipelago/ws", 404),
    ] {
        assert_eq!(cluster[name].get(path).await.status(), status, "{name} {path}");
    }
    for name in ["gateway-b", "rooms-b", "stats"] {
        assert_eq!(cluster[name].admin, "", "only a director has admin endpoints");
    }
}

/// Two peers near each other, on different gateways, in the room of their island.
struct Pair {
    wallets: [Wallet; 2],
    sockets: [Wire; 2],
    rooms: [Wire; 2],
    /// The last assignment of the second peer.
    change: IslandChangedMessage,
}

impl Pair {
    async fn meet(cluster: &Cluster) -> Self {
        let wallets = [wallet(), wallet()];
        let mut first = sign_in(&cluster["gateway-a"], &wallets[0]).await;
        let mut second = sign_in(&cluster["gateway-b"], &wallets[1]).await;
        first.heartbeat(0.0).await;
        let alone = first.island_changed().await;
        second.heartbeat(10.0).await;
        let change = second.island_changed().await;
        assert_eq!((&change.island_id, change.peers.len()), (&alone.island_id, 2));
        let rooms = [enter_room(&wallets[0], &alone).await.0, enter_room(&wallets[1], &change).await.0];
        Self { wallets, sockets: [first, second], rooms, change }
    }

    /// Sends a message in the room from one peer to the other.
    async fn send(&mut self, from: usize, text: &str) {
        self.rooms[from].update(text.as_bytes().to_vec(), false).await;
        assert_eq!(next_update(&mut self.rooms[1 - from]).await, text.as_bytes());
    }
}

/// Waits until presence shows the pair, in one island and in one scene of the realm.
async fn shown_by_presence(cluster: &Cluster) {
    eventually("both are shown", async || {
        let peers = cluster["stats"].json("/peers").await;
        peers["peers"].as_array().is_some_and(|peers| peers.len() == 2)
    })
    .await;
    // The realm in the response has its own URL, not that of presence.
    eventually("the scene is hot", async || {
        let scenes = cluster["stats"].json("/hot-scenes").await;
        scenes[0]["realms"][0]["url"] == "https://lagoon.example"
    })
    .await;
    eventually("together", async || {
        let islands = cluster["stats"].json("/islands").await["islands"].clone();
        islands[0]["peers"].as_array().is_some_and(|peers| peers.len() == 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_different_gateways_meet() {
    let cluster = six_processes().await;
    let mut pair = Pair::meet(&cluster).await;
    pair.send(0, "hello").await;
    shown_by_presence(&cluster).await;
    assert_eq!(cluster["gateway-b"].json("/about").await["comms"]["healthy"], true);
    let admin = cluster["director"].admin.clone();
    let [one, two] = pair.wallets.each_ref().map(|wallet| wallet.address().to_string());
    let explain = move || atoll(&["explain", "--admin", &admin, "--why", &one, &two]);
    let (code, stdout, stderr) = tokio::task::spawn_blocking(explain).await.unwrap();
    assert!(code == Some(0) && stdout.contains(&pair.change.island_id), "{stdout}{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn island_of_a_draining_node_moves_to_the_other() {
    let mut cluster = six_processes().await;
    let mut pair = Pair::meet(&cluster).await;
    let (left, other) = match node_of(&cluster, &NODES, &room_url(&pair.change)) {
        "rooms-a" => ("rooms-a", "rooms-b"),
        _ => ("rooms-b", "rooms-a"),
    };
    cluster.terminate(left);
    let mut moved = Vec::new();
    for wire in &mut pair.sockets {
        let change = wire.island_changed().await;
        assert_eq!(change.island_id, pair.change.island_id, "the island keeps its id");
        assert_eq!(node_of(&cluster, &NODES, &room_url(&change)), other);
        moved.push(change);
    }
    // Until they enter the new room, they exchange messages in the old one; then their sockets are
    // closed.
    pair.send(0, "are you coming?").await;
    for room in &mut pair.rooms {
        assert_eq!(room.closed().await.0, Close::Restarting);
    }
    for (index, change) in moved.iter().enumerate() {
        pair.rooms[index] = enter_room(&pair.wallets[index], change).await.0;
    }
    let (status, log) = cluster.ended(left).await;
    assert!(status.success() && log.contains("drained"), "{log}");
    pair.send(1, "still here").await;
    let status = cluster[other].json("/rooms/status").await;
    assert_eq!((&status["node"], &status["users"]), (&json!(other), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn process_is_ready_when_its_dependencies_are() {
    let mut cluster = Cluster::start(&[]);
    for role in ["gateway", "rooms", "stats"] {
        cluster.run(role, role, &[]);
    }
    eventually("rooms and presence are ready on their own", async || {
        cluster["rooms"].get("/health/ready").await.status() == 200
            && cluster["stats"].get("/health/ready").await.status() == 200
    })
    .await;
    let waiting = cluster["gateway"].get("/health/ready").await;
    assert_eq!(waiting.status(), 503);
    assert_eq!(waiting.text().await.unwrap(), "not ready: no director is known");
    cluster.run("director", "director", &[]);
    cluster.ready().await;
    cluster.nats.stop();
    for name in ["rooms", "stats", "director"] {
        eventually("the outage is reported", async || {
            let ready = cluster[name].get("/health/ready").await;
            ready.status() == 503 && ready.text().await.unwrap() == "not ready: the bus is disconnected"
        })
        .await;
    }
    cluster.nats.restart();
    cluster.ready().await;
    // A killed process is restarted at the same address.
    let at = cluster["stats"].http.clone();
    cluster.kill("stats");
    assert!(reqwest::get(format!("{at}/status")).await.is_err());
    assert_eq!(cluster.restart("stats").http, at);
    cluster.freeze("stats");
    let frozen = tokio::time::timeout(Duration::from_millis(300), cluster["stats"].get("/status")).await;
    assert!(frozen.is_err(), "the frozen process responds");
    cluster.thaw("stats");
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_room_node_name_is_refused() {
    const LAGOON: [(&str, &str); 1] = [("ROOMS__NODE", "lagoon")];
    const TAKEN: &str = "atoll_rooms_name_taken_total";
    let mut cluster = Cluster::start(&[]);
    let first = cluster.run("first", "rooms", &LAGOON).ws.clone();
    cluster.ready().await;
    cluster.run("second", "rooms", &LAGOON);
    let (status, log) = cluster.ended("second").await;
    assert_eq!(status.code(), Some(1), "{log}");
    let error = format!(
        "atoll: another process announces the room node lagoon, at \"{first}\": \
         give each process a rooms.node of its own"
    );
    assert!(log.contains(&error), "{log}");
    assert_eq!(cluster["first"].count(TAKEN).await, 0.0, "the second one has announced nothing");
    // A killed node can be started elsewhere at once: no process announces the name any more.
    cluster.kill("first");
    cluster.run("third", "rooms", &LAGOON);
    cluster.ready().await;
    // A frozen node continues: now both announce the name, and neither is ended.
    cluster.freeze("third");
    cluster.run("fourth", "rooms", &LAGOON);
    eventually("ready", async || cluster["fourth"].get("/health/ready").await.status() == 200).await;
    cluster.thaw("third");
    for name in ["third", "fourth"] {
        eventually("both count the conflict", async || cluster[name].count(TAKEN).await > 0.0).await;
    }
    cluster.terminate("fourth");
    let (status, log) = cluster.ended("fourth").await;
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("announces a room node of this name").count(), 1, "{log}");
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_secret_is_rotated_process_by_process() {
    const OLD: &str = "the old secret of all";
    const NEW: &str = "the new secret of all";
    let mut cluster = Cluster::start(&[]);
    let both = |one: &str, other: &str| format!("{one},{other}");
    // Room nodes first: they accept the new secret before any director signs with it.
    cluster.run("rooms", "rooms", &[("ROOMS__TOKEN_SECRETS", &both(OLD, NEW))]);
    cluster.run("gateway", "gateway", &[]);
    cluster.run("before", "director", &[("ROOMS__TOKEN_SECRETS", OLD)]);
    cluster.ready().await;
    let (one, mut wires) = (wallet(), Vec::new());
    let enter = async |cluster: &Cluster, wallet: &Wallet| {
        let mut wire = sign_in(&cluster["gateway"], wallet).await;
        wire.heartbeat(0.0).await;
        let change = wire.island_changed().await;
        let (room, welcome) = enter_room(wallet, &change).await;
        (wire, welcome.peer_identities.len(), room)
    };
    wires.push(enter(&cluster, &one).await);
    // A director that signs with the new secret takes over.
    cluster.run("after", "director", &[("ROOMS__TOKEN_SECRETS", &both(NEW, OLD))]);
    cluster.terminate("before");
    assert!(cluster.ended("before").await.0.success());
    eventually("the new director leads", async || {
        cluster["after"].count("atoll_director_leads").await == 1.0
    })
    .await;
    wires.push(enter(&cluster, &wallet()).await);
    assert_eq!(wires[1].1, 1, "the room has the earlier member");
}

/// The standard error of `atoll serve` when it does not start.
fn refused_start(flags: &[&str], settings: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.arg("serve").args(flags).env("ATOLL__SERVER__LISTEN", "127.0.0.1:0");
    for (key, value) in settings {
        command.env(format!("ATOLL__{key}"), value);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]), "{stderr}");
    stderr
}

#[test]
fn invalid_roles_are_refused_with_the_reason() {
    const BUS: [&str; 2] = ["--bus", "nats://127.0.0.1:4222"];
    let of = |roles: &str| refused_start(&["--roles", roles], &[]);
    let stderr = of("rooms,stats");
    assert!(stderr.contains("server.roles = rooms,stats: needs bus.url (--bus)"), "{stderr}");
    let stderr = of("gateway,postman");
    let rule = "server.roles = postman: is not a role: the roles are gateway, rooms, director and stats";
    assert!(stderr.contains(rule), "{stderr}");
    let stderr = of(" , ");
    assert!(stderr.contains("server.roles = \"\": must name at least one role"), "{stderr}");
    // Processes that sign or verify tokens share a secret.
    let secret = "rooms.token_secrets = \"\": must be set";
    for roles in ["director", "rooms", "gateway,rooms,director,stats"] {
        let stderr = refused_start(&[&BUS[..], &["--roles", roles]].concat(), &[]);
        assert!(stderr.contains(secret) && stderr.contains("openssl rand -hex 32"), "{roles}: {stderr}");
    }
    let fixed = [("REALM__FIXED_ROOM", "plaza"), ("REALM__FIXED_ADAPTER", "signed-login")];
    let stderr = refused_start(&[&BUS[..], &["--roles", "gateway"]].concat(), &fixed);
    assert!(stderr.contains(secret), "{stderr}");
    // Other roles need none: the error is that no bus responds.
    let no_bus = ["--bus", "nats://127.0.0.1:1", "--roles", "gateway,stats"];
    let stderr = refused_start(&no_bus, &[]);
    assert!(!stderr.contains(secret) && stderr.contains("no bus"), "{stderr}");
    let stderr =
        refused_start(&[&no_bus[..2], &["--roles", "rooms"]].concat(), &[("SERVER__LISTEN", "0.0.0.0:0")]);
    assert!(stderr.contains("server.public_url = \"\": must be set"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_roles_in_any_order_form_a_whole_realm() {
    let realm = Realm::launch(&["--roles", "stats, director,gateway,rooms"], &[]);
    eventually("ready", async || realm.get("/health/ready").await.status() == 200).await;
    assert_eq!(realm.get("/peers").await.status(), 200);
}
