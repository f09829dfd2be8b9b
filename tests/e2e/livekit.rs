//! Bots in the rooms of a real LiveKit server. Each test has a network namespace of its own.

use std::{fs, path::Path, time::Duration};

use client::{Disconnect, Event, Explorer, Settings};
use livekit_api::services::room::RoomClient;
use protocol::{ConnectionString, Position};
use serde_json::Value;
use test_support::{
    LiveKitServer, Realm, TEST_TIMEOUT, eventually, network_namespace, wallet,
    wire::{Wire, sign_in_with},
};
use tokio::time::timeout;

use crate::command_line::atoll;

/// A realm with one LiveKit node, `lk`, which is healthy, and one room node.
async fn realm_with(server: &LiveKitServer, flags: &[&str]) -> Realm {
    let realm = Realm::launch(
        flags,
        &[
            ("LIVEKIT__LK__URL", &server.url()),
            ("LIVEKIT__LK__API_KEY", LiveKitServer::API_KEY),
            ("LIVEKIT__LK__API_SECRET", LiveKitServer::API_SECRET),
            ("ISLANDS__MOVE_INTERVAL_S", "1"),
        ],
    );
    eventually("LiveKit", async || realm.count("atoll_transport_healthy{node=\"lk\"}").await == 1.0).await;
    realm
}

/// Runs bots that announce both transports. Returns their exit code and their summary.
async fn bots(realm: &Realm, flags: &str) -> (Option<i32>, Value) {
    let line = format!(
        "bots --transports livekit,ws-room --json --url {} --admin {} {flags}",
        realm.http, realm.admin
    );
    let run = move || atoll(&line.split(' ').collect::<Vec<_>>());
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    let summary: Value = serde_json::from_str(stdout.trim()).expect("one line of JSON");
    println!("{summary}\n{stderr}");
    (code, summary)
}

fn number(summary: &Value, pointer: &str) -> u64 {
    summary.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {summary}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn server_accepts_the_tokens() {
    if !network_namespace::enter("livekit::server_accepts_the_tokens") {
        return;
    }
    let server = LiveKitServer::start();
    let realm = realm_with(&server, &[]).await;
    let mut wire: Wire = sign_in_with(&realm, &wallet(), &["livekit"]).await;
    wire.send_position(0.0, 0.0).await;
    let change = wire.island_changed().await;
    let Ok(ConnectionString::LiveKit { access_token, .. }) = change.conn_str.parse() else {
        panic!("{}", change.conn_str)
    };
    let validate = async |token: &str| {
        let url = format!("{}/rtc/validate?access_token={token}", server.http());
        reqwest::get(url).await.unwrap().status().as_u16()
    };
    assert_eq!(validate(&access_token).await, 200);
    assert_eq!(validate("noise").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_receive_each_other_without_loss() {
    if !network_namespace::enter("livekit::bots_receive_each_other_without_loss") {
        return;
    }
    let server = LiveKitServer::start();
    let realm = realm_with(&server, &[]).await;
    let (code, summary) = bots(&realm, "--count 8 --still --seconds 15 --reliable-every 4").await;
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(number(&summary, "/connections/livekit/bots"), 8);
    assert_eq!((number(&summary, "/people"), number(&summary, "/absent")), (8, 0));
    assert!(number(&summary, "/near_pairs") >= 28, "{summary}");
    assert_eq!(number(&summary, "/unheard"), 0, "{summary}");
    assert!(summary["room_ends"].get("broken").is_none(), "{summary}");
    // Each of 56 pairs for ten seconds and more: 2.5 reliable and 7.5 lossy messages a second.
    assert!(number(&summary, "/deliveries/livekit/reliable/expected") > 1_000, "{summary}");
    assert_eq!(number(&summary, "/deliveries/livekit/reliable/lost"), 0, "{summary}");
    assert_eq!(number(&summary, "/deliveries/livekit/reliable/disordered"), 0, "{summary}");
    let lossy = number(&summary, "/deliveries/livekit/lossy/expected");
    assert!(lossy > 3_000 && number(&summary, "/deliveries/livekit/lossy/lost") < lossy / 20, "{summary}");
    assert!(number(&summary, "/room_entries/livekit/entered") >= 8, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_to_and_from_rooms_lose_nothing_reliable() {
    if !network_namespace::enter("livekit::moves_to_and_from_rooms_lose_nothing_reliable") {
        return;
    }
    let server = LiveKitServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    write_rule(&file, "ws-room");
    let realm = realm_with(&server, &["--rules", &file.display().to_string()]).await;
    let toggling = tokio::spawn(async move {
        for transport in ["livekit", "ws-room", "livekit"] {
            tokio::time::sleep(Duration::from_secs(5)).await;
            write_rule(&file, transport);
        }
        // The folder is removed when it is dropped.
        folder
    });
    let (code, summary) = bots(&realm, "--count 6 --still --seconds 21 --reliable-every 2").await;
    toggling.await.unwrap();
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(number(&summary, "/moves_overlapping"), 18, "{summary}");
    let entered =
        ["livekit", "ws-room"].map(|name| number(&summary, &format!("/room_entries/{name}/entered")));
    assert_eq!(entered, [12, 12], "{summary}");
    assert!(number(&summary, "/over_moves/overlapping/expected") > 1_000, "{summary}");
    assert_eq!(number(&summary, "/over_moves/overlapping/lost"), 0, "{summary}");
    for transport in ["livekit", "ws-room"] {
        let counts = |name: &str| number(&summary, &format!("/deliveries/{transport}/reliable/{name}"));
        assert!(counts("expected") > 200, "{summary}");
        assert_eq!((counts("lost"), counts("disordered")), (0, 0), "{summary}");
    }
    assert_eq!((number(&summary, "/lost"), number(&summary, "/given_twice")), (0, 0), "{summary}");
    assert!(number(&summary, "/doubles") > 0, "the rooms did not overlap: {summary}");
}

fn write_rule(file: &Path, transport: &str) {
    fs::write(file, format!("[[rule]]\nname = \"{transport}\"\ntransports = [\"{transport}\"]\n")).unwrap();
}

/// The next event that `pick` accepts; `None` if there is none within the time.
async fn event<T>(
    explorer: &mut Explorer,
    within: Duration,
    mut pick: impl FnMut(Event) -> Option<T>,
) -> Option<T> {
    let next = async {
        loop {
            if let Some(picked) = pick(explorer.next().await.expect("a running client")) {
                return picked;
            }
        }
    };
    timeout(within, next).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_client_waits_for_another_assignment() {
    if !network_namespace::enter("livekit::removed_client_waits_for_another_assignment") {
        return;
    }
    let server = LiveKitServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    write_rule(&file, "livekit");
    let realm = realm_with(&server, &["--rules", &file.display().to_string()]).await;
    let identity = client::guest().unwrap();
    let address = identity.address();
    let mut settings = Settings::new(client::discover(&realm.http, None).await.unwrap());
    settings.transports = ["livekit", "ws-room"].map(str::to_owned).into();
    let mut explorer = Explorer::start(settings, identity);
    explorer.handle().heartbeat(Position::new(8.0, 0.0, 8.0), None).await;
    let entered = |event| match event {
        Event::RoomEntered { island, transport, .. } => Some((island, transport)),
        _ => None,
    };
    let (island, transport) = event(&mut explorer, TEST_TIMEOUT, entered).await.expect("a room");
    assert_eq!(transport, "livekit");
    let api = RoomClient::with_api_key(&server.http(), LiveKitServer::API_KEY, LiveKitServer::API_SECRET);
    api.remove_participant(island.as_str(), &address.to_string()).await.unwrap();
    let left = event(&mut explorer, TEST_TIMEOUT, |event| match event {
        Event::RoomLeft { reason, .. } => Some(reason),
        _ => None,
    });
    assert!(matches!(left.await, Some(Disconnect::Removed(_))));
    assert_eq!(event(&mut explorer, Duration::from_secs(3), entered).await, None, "its token is still valid");
    write_rule(&file, "ws-room");
    let (_, transport) = event(&mut explorer, TEST_TIMEOUT, entered).await.expect("another room");
    assert_eq!(transport, "ws-room");
}
