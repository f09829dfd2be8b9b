//! Owner rules: the worked example, explanations, changed rules, and LiveKit nodes that fail and
//! recover.

mod livekit;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, http::header, routing::post};
use identity::Wallet;
use livekit_api::access_token::TokenVerifier;
use protocol::{Address, ConnectionString, v3::IslandChangedMessage};
use test_support::{
    Realm, TEST_TIMEOUT, eventually, wallet,
    wire::{Wire, sign_in_with},
};

use crate::command_line::atoll;

const EVERYTHING: [&str; 3] = ["livekit", "ws-room", "p2p"];

fn example(file: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("examples/casino").join(file).display().to_string()
}

fn casino(settings: &[(&str, &str)]) -> Realm {
    let rules = example("rules.toml");
    let flags = ["--config", &example("atoll.toml"), "--rules", &rules];
    // The example works without a LiveKit server; the tests assume one that they need not run.
    let settings = [settings, &[("LIVEKIT__LK_1__PROBE", "false")]].concat();
    Realm::launch(&flags, &settings)
}

fn connection(change: &IslandChangedMessage) -> ConnectionString {
    change.conn_str.parse().unwrap()
}

/// A signed-in peer with its last assignment.
struct TestPeer {
    wallet: Wallet,
    wire: Wire,
    change: IslandChangedMessage,
}

impl TestPeer {
    async fn join(realm: &Realm, transports: &[&str], x: f32, z: f32) -> Self {
        let wallet = wallet();
        let mut wire = sign_in_with(realm, &wallet, transports).await;
        wire.send_position(x, z).await;
        let change = wire.island_changed().await;
        Self { wallet, wire, change }
    }

    fn address(&self) -> Address {
        self.wallet.address()
    }

    /// Repeats its position until the next assignment.
    async fn next_assignment(&mut self, x: f32, z: f32) -> &IslandChangedMessage {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            self.wire.send_position(x, z).await;
            assert!(Instant::now() < deadline, "no assignment");
            if !self.wire.is_quiet_for(Duration::from_secs(1)).await {
                self.change = self.wire.island_changed().await;
                return &self.change;
            }
        }
    }
}

/// Runs `atoll` with the admin endpoints of this realm.
async fn admin_command(realm: &Realm, args: &[&str]) -> (Option<i32>, String, String) {
    let mut args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    args.extend(["--admin".to_owned(), realm.admin.clone()]);
    let run = move || atoll(&args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// The first line of an explanation.
pub(crate) async fn explain_first_line(realm: &Realm, args: &[&str]) -> String {
    let (code, stdout, error) = admin_command(realm, &[&["explain"], args].concat()).await;
    assert_eq!(code, Some(0), "{error}");
    stdout.lines().next().unwrap_or_default().to_owned()
}

/// Up to twelve peers on the plaza are in a mesh. Returns the thirteenth.
async fn plaza_leaves_its_mesh_with_the_thirteenth_peer(realm: &Realm) -> TestPeer {
    let mut plaza = Vec::new();
    for index in 0..12 {
        plaza.push(TestPeer::join(realm, &EVERYTHING, 200.0 + index as f32, 40.0).await);
        let change = &plaza[index].change;
        let ConnectionString::P2p { island, .. } = connection(change) else { panic!("{}", change.conn_str) };
        assert_eq!((&island, change.peers.len()), (&change.island_id, index + 1));
    }
    // The thirteenth peer moves all of them to a room, in the same island.
    let last = TestPeer::join(realm, &EVERYTHING, 212.0, 40.0).await;
    assert!(matches!(connection(&last.change), ConnectionString::WsRoom { .. }), "{}", last.change.conn_str);
    for (index, peer) in plaza.iter_mut().enumerate() {
        let island = peer.change.island_id.clone();
        let change = peer.next_assignment(200.0 + index as f32, 40.0).await;
        assert_eq!((&change.island_id, change.from_island_id.as_ref()), (&island, Some(&island)));
        assert!(matches!(connection(change), ConnectionString::WsRoom { .. }));
    }
    let why = explain_first_line(realm, &["--island", &last.change.island_id]).await;
    assert_eq!(
        why,
        format!(
            "as wanted: {} is on rooms-1: rule `plaza, more` decides; no other node is preferred",
            last.change.island_id
        )
    );
    last
}

/// A client that cannot join a mesh, outside all areas, is in a room.
async fn stock_client_is_in_a_room(realm: &Realm, of_plaza: &TestPeer) {
    let stock = TestPeer::join(realm, &[], 170.0, -500.0).await;
    assert!(matches!(connection(&stock.change), ConnectionString::WsRoom { .. }));
    let pair = [stock.address().to_string(), of_plaza.address().to_string()];
    let why = explain_first_line(realm, &["--why", &pair[0], &pair[1]]).await;
    assert!(
        why.starts_with("exclusive rule: rule `plaza, up to twelve` makes scene plaza exclusive"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn casino_example_follows_its_rules() {
    // The test passes at any time of day, also in the quiet hour of the example.
    let realm = casino(&[("ISLANDS__SETTLING_S", "1")]);
    let mut guest = TestPeer::join(&realm, &EVERYTHING, 30.0, 30.0).await;
    let quiet = explain_first_line(&realm, &["--at", "30,30"]).await.contains("quiet hour");
    match connection(&guest.change) {
        ConnectionString::LiveKit { url, access_token } => {
            assert_eq!(url, "ws://127.0.0.1:7880");
            let claims = TokenVerifier::with_api_key("devkey", "secret").verify(&access_token).unwrap();
            assert_eq!(
                (claims.sub, claims.video.room),
                (guest.address().to_string(), guest.change.island_id.clone())
            );
            assert!(
                claims.video.room_join
                    && claims.video.can_publish_data == Some(true)
                    && !claims.video.room_list
            );
        }
        ConnectionString::WsRoom { .. } if quiet => {}
        other => panic!("in the casino: {other}"),
    }

    let last = plaza_leaves_its_mesh_with_the_thirteenth_peer(&realm).await;
    stock_client_is_in_a_room(&realm, &last).await;

    // A jump out of the casino moves the peer to a room at once. In the quiet hour it is in that room
    // already.
    if quiet {
        guest.wire.send_position(-1_000.0, 0.0).await;
        assert!(guest.wire.is_quiet_for(Duration::from_secs(2)).await);
    } else {
        let change = guest.next_assignment(-1_000.0, 0.0).await;
        assert!(matches!(connection(change), ConnectionString::WsRoom { .. }), "{}", change.conn_str);
    }
    let peer = guest.address().to_string();
    assert!(explain_first_line(&realm, &["--peer", &peer]).await.starts_with("as wanted: "));
    let (_, json, _) = admin_command(&realm, &["explain", "--peer", &peer, "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["cause"], &json["peers"][0]["address"]), (&"as-wanted".into(), &peer.into()));
    assert_eq!(json["islands"][0]["candidates"][0]["node"], "rooms-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_is_not_assigned_to_incapable_clients() {
    let realm = casino(&[]);
    let alone = TestPeer::join(&realm, &[], 200.0, 40.0).await;
    assert!(matches!(connection(&alone.change), ConnectionString::WsRoom { .. }));
    let why = explain_first_line(&realm, &["--peer", &alone.address().to_string()]).await;
    let expected = format!(
        "capability: {} is on rooms-1: rule `plaza, up to twelve` decides; p2p does not fit: {} cannot join p2p",
        alone.change.island_id,
        alone.address()
    );
    assert_eq!(why, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rules_apply_and_invalid_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let path = file.display().to_string();
    let rooms = "[[rule]]\nname = \"rooms\"\ntransports = [\"ws-room\"]\n";
    fs::write(&file, rooms).unwrap();
    let realm = Realm::launch(&["--rules", &path], &[]);
    let mut peer = TestPeer::join(&realm, &EVERYTHING, 0.0, 0.0).await;
    let island = peer.change.island_id.clone();
    assert!(matches!(connection(&peer.change), ConnectionString::WsRoom { .. }));

    let bad = folder.path().join("bad.toml");
    fs::write(&bad, "[[rule]]\nname = \"mesh\"\ntransports = [\"p2q\"]\n").unwrap();
    let bad = bad.display().to_string();
    let (code, _, error) = atoll(&["rules", "check", &bad]);
    assert_eq!(code, Some(1));
    assert!(error.contains("bad.toml:3:15: `p2q` is not a kind of transport"), "{error}");
    fs::copy(&bad, &file).unwrap();
    eventually("a refusal", async || realm.count("atoll_rules_refused_total").await == 1.0).await;
    assert_eq!(realm.metric("atoll_rules_valid").await, 0.0);
    assert!(
        explain_first_line(&realm, &["--at", "0,0"]).await.contains("rule `rooms`"),
        "the old rules stay"
    );

    let mesh = folder.path().join("mesh.toml");
    fs::write(&mesh, "[[rule]]\nname = \"mesh\"\ntransports = [\"p2p\"]\n").unwrap();
    let (code, diff, _) = admin_command(&realm, &["rules", "diff", &mesh.display().to_string()]).await;
    assert_eq!(code, Some(0));
    let expected = format!(
        "1 of 1 islands would change\n{island}, 1 members, on rooms-1 by rule `rooms`: all on p2p by rule `mesh`\n"
    );
    assert_eq!(diff, expected);
    assert!(peer.wire.is_quiet_for(Duration::from_millis(600)).await, "a diff changes nothing");

    fs::copy(&mesh, &file).unwrap();
    let change = peer.next_assignment(0.0, 0.0).await;
    assert_eq!((&change.island_id, change.from_island_id.as_ref()), (&island, Some(&island)));
    assert!(matches!(connection(change), ConnectionString::P2p { .. }));
    assert_eq!(realm.metric("atoll_rules_valid").await, 1.0);
    // A deleted file does not remove the rules.
    fs::remove_file(&file).unwrap();
    eventually("a refusal", async || realm.count("atoll_rules_refused_total").await == 2.0).await;
    assert!(explain_first_line(&realm, &["--at", "0,0"]).await.contains("rule `mesh`"));
}

#[test]
fn invalid_rules_prevent_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    fs::write(&file, "[[rule]]\nname = \"r\"\nhours = \"9 to 5\"\n").unwrap();
    let path = file.display().to_string();
    let (code, _, error) = atoll(&["serve", "--listen", "127.0.0.1:0", "--rules", &path]);
    assert_eq!(code, Some(1));
    assert!(error.contains("rules.toml:3:9: `9 to 5` is not a part of a day"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_socket_answers_only_local_requests() {
    let realm = Realm::start(&[]);
    eventually("ready", async || realm.get("/health/ready").await.status() == 200).await;
    let ask = async |host: Option<&str>, query: &str| {
        let mut request = reqwest::Client::new().get(format!("{}/explain?{query}", realm.admin));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(None, "at=0,0").await, 200);
    assert_eq!(ask(Some("localhost:1"), "at=0,0").await, 200);
    assert_eq!(ask(Some("[::1]:1"), "at=0,0").await, 200);
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1"] {
        assert_eq!(ask(Some(host), "at=0,0").await, 403, "{host}");
    }
    let site = reqwest::Client::new().get(format!("{}/explain?at=0,0", realm.admin));
    assert_eq!(site.header("origin", "http://evil.example").send().await.unwrap().status().as_u16(), 403);
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("none", 200)] {
        let request = reqwest::Client::new().get(format!("{}/assignments", realm.admin));
        let request = request.header("sec-fetch-site", site);
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{site}");
    }
    for query in ["", "at=0", "at=nan,0", "peer=me", "island=a.b", "why=0x1", "at=0,0&island=I1", "by=me"] {
        assert_eq!(ask(None, query).await, 400, "{query:?}");
    }
    // The public listener does not have these endpoints.
    assert_eq!(realm.get("/explain?at=0,0").await.status().as_u16(), 404);
}

/// Real moves between two room nodes of one process, caused by changed rules.
#[tokio::test(flavor = "multi_thread")]
async fn overlapping_clients_lose_nothing_over_rule_moves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let rule = |node: &str| format!("[[rule]]\nname = \"{node}\"\ntransports = [{{ node = \"{node}\" }}]\n");
    fs::write(&file, rule("rooms-1")).unwrap();
    let settings = [("ROOMS__NODES", "2"), ("ISLANDS__MOVE_INTERVAL_S", "1")];
    let realm = Realm::launch(&["--rules", &file.display().to_string()], &settings);
    let toggled = file.clone();
    let toggling = tokio::spawn(async move {
        for node in ["rooms-2", "rooms-1", "rooms-2"] {
            tokio::time::sleep(Duration::from_secs(4)).await;
            fs::write(&toggled, rule(node)).unwrap();
        }
    });
    let url = realm.http.clone();
    let flags = "bots --count 8 --still --stock 0.25 --seconds 17 --json --url";
    let run = move || atoll(&flags.split(' ').chain([url.as_str()]).collect::<Vec<_>>());
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    toggling.await.unwrap();
    let summary: serde_json::Value = serde_json::from_str(stdout.trim()).expect("one line of JSON");
    assert_eq!(code, Some(0), "{summary}\n{stderr}");
    assert_eq!(
        (&summary["moves_overlapping"], &summary["moves_stock"]),
        (&18.into(), &6.into()),
        "{summary}"
    );
    let overlapping = &summary["over_moves"]["overlapping"];
    assert_eq!(overlapping["lost"], 0, "{summary}");
    assert!(overlapping["expected"].as_u64().unwrap() > 1_000, "{summary}");
    assert!(summary["doubles"].as_u64().unwrap() > 0, "the rooms did not overlap: {summary}");
}
