//! Peer-to-peer meshes: plans, signals between members, and bots that connect to each other.

mod figures;
mod rpc;
mod rpc_peer;

use std::{fs, time::Duration};

use protocol::{
    Address, ConnectionString,
    mesh::{Plan, Signal, signal::Content},
    v3::{client_packet, server_packet},
};
use tempfile::TempDir;
use test_support::{
    Cluster, Realm, eventually, network_namespace, wallet,
    wire::{Wire, sign_in_with},
};

use crate::{command_line::atoll, rules::explain_first_line};

/// Peers at this distance from each other are in different islands.
const FAR: f32 = 5_000.0;

/// Islands are meshes, as far as their members can join one.
const RULES: &str = "default = { transports = [\"p2p\", \"ws-room\"] }\n";

/// A realm in which all islands are meshes, and its folder.
pub(crate) fn mesh_realm(settings: &[(&str, &str)]) -> (Realm, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.toml");
    fs::write(&rules, RULES).unwrap();
    (Realm::launch(&["--rules", &rules.display().to_string()], settings), folder)
}

/// A member of a mesh that answers no signal.
struct Member {
    wire: Wire,
    address: Address,
    island: String,
}

impl Member {
    async fn join(realm: &Realm, x: f32) -> Self {
        let wallet = wallet();
        let mut wire = sign_in_with(realm, &wallet, &["p2p", "ws-room"]).await;
        wire.heartbeat(x).await;
        let change = wire.island_changed().await;
        let connection = change.conn_str.parse().unwrap();
        assert!(matches!(connection, ConnectionString::P2p { .. }), "{connection}");
        Self { wire, address: wallet.address(), island: change.island_id }
    }

    /// The first plan with so many members.
    async fn plan(&mut self, members: usize) -> Plan {
        loop {
            if let server_packet::Message::MeshPlan(plan) = self.wire.next_packet().await
                && plan.members.len() == members
            {
                return plan;
            }
        }
    }

    async fn send(&mut self, to: Address, island: &str, content: Content) {
        let (island_id, peer) = (island.to_owned(), to.to_string());
        let signal = Signal { island_id, peer, negotiation: 7, content: Some(content) };
        self.wire.send_packet(client_packet::Message::MeshSignal(signal)).await;
    }

    async fn signal(&mut self) -> Signal {
        loop {
            if let server_packet::Message::MeshSignal(signal) = self.wire.next_packet().await {
                return signal;
            }
        }
    }
}

fn candidate(address: &str, kind: &str) -> String {
    format!("1 1 udp 2130706431 {address} 50000 typ {kind} raddr 203.0.113.7 rport 1")
}

fn description() -> String {
    let candidates = [("127.0.0.1", "host"), ("203.0.113.7", "host"), ("198.51.100.1", "relay")];
    let lines = candidates.map(|(address, kind)| format!("a=candidate:{}\r\n", candidate(address, kind)));
    format!("v=0\r\no=- 1 1 IN IP4 203.0.113.7\r\nc=IN IP4 203.0.113.7\r\n{}", lines.concat())
}

fn refused(reason: &str) -> String {
    format!("atoll_gateway_mesh_signals_refused_total{{reason=\"{reason}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_members_of_the_mesh_only() {
    let (realm, _folder) = mesh_realm(&[("P2P__ALLOW_PRIVATE", "false")]);
    let (mut one, mut two) = (Member::join(&realm, 0.0).await, Member::join(&realm, 5.0).await);
    let outsider = Member::join(&realm, FAR).await;
    assert_eq!(one.island, two.island);
    let (plan, other) = (one.plan(2).await, two.plan(2).await);
    assert_ne!(plan.alias, other.alias);
    assert_eq!((plan.links[0].alias, other.links[0].alias), (other.alias, plan.alias));
    assert_ne!(plan.links[0].initiate, other.links[0].initiate, "one side offers");

    let island = one.island.clone();
    one.send(two.address, &island, Content::Offer(description())).await;
    let signal = two.signal().await;
    assert_eq!((&signal.island_id, &signal.peer), (&island, &one.address.to_string()));
    assert_eq!(signal.negotiation, 7);
    let Some(Content::Offer(sdp)) = signal.content else { panic!("{:?}", signal.content) };
    assert!(!sdp.contains("127.0.0.1") && sdp.matches("203.0.113.7 50000").count() == 1, "{sdp}");

    let json = serde_json::json!({ "candidate": format!("candidate:{}", candidate("::1", "host")) });
    one.send(two.address, &island, Content::Candidate(json.to_string())).await;
    one.send(outsider.address, &island, Content::Answer("v=0".into())).await;
    one.send(two.address, &outsider.island, Content::Answer("v=0".into())).await;
    one.send(two.address, &island, Content::Fallback(vec![0; 17_000].into())).await;
    one.send(two.address, &island, Content::Fallback(vec![7; 16_000].into())).await;
    // Only the last one passes.
    assert_eq!(two.signal().await.content, Some(Content::Fallback(vec![7; 16_000].into())));
    for (reason, count) in [("candidate", 1.0), ("no-member", 2.0), ("too-long", 1.0)] {
        assert_eq!(realm.count(&refused(reason)).await, count, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_only_mesh_shows_no_address_of_its_members() {
    let settings = [
        ("P2P__RELAY_ONLY", "true"),
        ("P2P__TURN", "turn:192.0.2.1"),
        ("P2P__TURN_SECRET", "north"),
        ("P2P__TURN_TTL_S", "4"),
    ];
    let (realm, _folder) = mesh_realm(&settings);
    let (mut one, mut two) = (Member::join(&realm, 0.0).await, Member::join(&realm, 5.0).await);
    one.send(two.address, &one.island.clone(), Content::Answer(description())).await;
    let Some(Content::Answer(sdp)) = two.signal().await.content else { panic!("no answer") };
    assert!(!sdp.contains("203.0.113.7") && !sdp.contains("127.0.0.1"), "{sdp}");
    assert!(sdp.contains("198.51.100.1 50000 typ relay raddr 0.0.0.0 rport 9"), "{sdp}");
    // TURN users are renewed at half of their validity, without a change of island.
    for _ in 0..2 {
        loop {
            match two.wire.next_packet().await {
                server_packet::Message::IceServers(servers) => break assert!(!servers.is_empty()),
                server_packet::Message::MeshPlan(_) | server_packet::Message::JoinIsland(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_needs_the_consent_of_operator_and_client() {
    let (realm, _folder) = mesh_realm(&[("P2P__ENABLED", "false")]);
    let mut wire = sign_in_with(&realm, &wallet(), &["p2p", "ws-room"]).await;
    wire.heartbeat(0.0).await;
    assert!(wire.island_changed().await.conn_str.starts_with("ws-room:"));
    let (realm, _folder) = mesh_realm(&[]);
    let mut wire = sign_in_with(&realm, &wallet(), &["ws-room"]).await;
    wire.heartbeat(0.0).await;
    assert!(wire.island_changed().await.conn_str.starts_with("ws-room:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_that_does_not_form_takes_the_next_transport() {
    let (realm, _folder) = mesh_realm(&[("ISLANDS__MOVE_INTERVAL_S", "1")]);
    let (mut one, mut two) = (Member::join(&realm, 0.0).await, Member::join(&realm, 5.0).await);
    let began = std::time::Instant::now();
    // Neither reports a link.
    for member in [&mut one, &mut two] {
        loop {
            member.wire.heartbeat(0.0).await;
            if !member.wire.is_quiet_for(Duration::from_secs(2)).await
                && let server_packet::Message::IslandChanged(change) = member.wire.next_packet().await
            {
                assert_eq!(change.island_id, member.island);
                assert!(change.conn_str.starts_with("ws-room:"), "{}", change.conn_str);
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the mesh is kept");
        }
    }
    println!("moved after {:?}", began.elapsed());
    let why = explain_first_line(&realm, &["--island", &one.island]).await;
    assert!(why.starts_with("mesh failed: ") && why.contains("does not report its links; the next"), "{why}");
    // Neither has entered the room yet: messages between them still pass, but no new negotiations.
    let island = one.island.clone();
    one.send(two.address, &island, Content::Offer(description())).await;
    one.send(two.address, &island, Content::Fallback("late".into())).await;
    assert_eq!(two.signal().await.content, Some(Content::Fallback("late".into())));
    eventually("the count", async || realm.count("atoll_director_mesh_failures_total").await == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_in_a_mesh_lose_nothing() {
    if !network_namespace::enter("mesh::bots_in_a_mesh_lose_nothing") {
        return;
    }
    let (realm, _folder) = mesh_realm(&[]);
    let line = format!(
        "bots --transports p2p,ws-room --json --count 8 --still --seconds 15 --url {} --admin {}",
        realm.http, realm.admin
    );
    let run = move || atoll(&line.split(' ').collect::<Vec<_>>());
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    println!("{stdout}\n{stderr}");
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_breaks_no_link() {
    if !network_namespace::enter("mesh::failover_breaks_no_link") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.toml").display().to_string();
    fs::write(&rules, RULES).unwrap();
    let mut cluster = Cluster::start(&[("RULES__FILE", &rules)]);
    for (name, role) in [("one", "gateway"), ("two", "gateway"), ("rooms", "rooms")] {
        cluster.run(name, role, &[]);
    }
    for name in ["first", "second"] {
        cluster.run(name, "director", &[]);
    }
    cluster.ready().await;
    // The members are on two gateways.
    let (urls, admin) = (
        format!("{},{}", cluster["one"].http, cluster["two"].http),
        format!("{},{}", cluster["first"].admin, cluster["second"].admin),
    );
    let line = format!(
        "bots --transports p2p,ws-room --json --count 6 --still --seconds 25 --url {urls} --admin {admin}"
    );
    let run = move || atoll(&line.split(' ').collect::<Vec<_>>());
    let bots = tokio::task::spawn_blocking(run);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let leader = match cluster["first"].count("atoll_director_leads").await {
        1.0 => "first",
        _ => "second",
    };
    cluster.kill(leader);
    let (code, stdout, stderr) = bots.await.unwrap();
    println!("{stdout}\n{stderr}");
    assert_eq!(code, Some(0));
    let standby = if leader == "first" { "second" } else { "first" };
    assert!(
        cluster[standby].count("atoll_director_mesh_plans_total").await > 0.0,
        "the mesh is planned anew"
    );
    assert_eq!(cluster[standby].count("atoll_director_mesh_failures_total").await, 0.0);
    let summary: serde_json::Value = serde_json::from_str(stdout.trim()).unwrap();
    assert_eq!(summary["connections"]["p2p"]["bots"], 6);
    assert_eq!(summary["connections"]["p2p"]["moves"], 0);
}
