//! Presence: positions and islands of peers, over HTTP and in the live feed.

mod feed;
mod load;
mod openapi;
mod scenes;
mod shared_responses;
mod synthetic_peers;

use std::time::Duration;

use serde_json::{Value, json};
use test_support::{
    Realm, eventually, wallet,
    wire::{Wire, enter, sign_in},
};

/// A client that is signed in, at this position; with its address.
async fn sign_in_at(realm: &Realm, x: f32, z: f32) -> (Wire, String) {
    let wallet = wallet();
    let mut wire = sign_in(realm, &wallet).await;
    wire.send_position(x, z).await;
    wire.island_changed().await;
    (wire, wallet.address().to_string())
}

/// Waits until the islands have this many members in all, and returns them.
async fn islands(realm: &Realm, members: usize) -> Vec<Value> {
    let mut islands = Vec::new();
    eventually("all peers are in islands", async || {
        islands = realm.json("/islands").await["islands"].as_array().unwrap().clone();
        islands.iter().map(|island| island["peers"].as_array().unwrap().len()).sum::<usize>() == members
    })
    .await;
    islands
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_case_insensitive_and_validated() {
    let realm = Realm::start(&[]);
    let peers = [sign_in_at(&realm, 0.0, 0.0).await, sign_in_at(&realm, 1_000.0, 0.0).await];
    let [(_, one), (_, two)] = &peers;
    let capitals = one.to_uppercase();
    let ids = async |path: String, of: &str| -> Vec<String> {
        let answer = realm.json(&path).await;
        assert_eq!(answer["ok"], true, "{answer}");
        let found = answer[of].as_array().unwrap().iter();
        found.map(|found| found["id"].as_str().unwrap().to_owned()).collect()
    };
    for prefix in ["", "/comms"] {
        assert_eq!(ids(format!("{prefix}/peers?id={capitals}"), "peers").await, [&**one]);
        let both = ids(format!("{prefix}/peers?id={one}&id={two}&id={capitals}&other=1"), "peers").await;
        assert_eq!(both.len(), 2);
        assert_eq!(realm.json(&format!("{prefix}/peers/{capitals}")).await["peer"]["id"], **one);
    }
    let absent = format!("/peers?id=0x{}", "0".repeat(40));
    assert_eq!(ids(absent, "peers").await, [""; 0]);

    let there = islands(&realm, 2).await;
    let [first, second] = [0, 1].map(|index: usize| there[index]["id"].as_str().unwrap());
    assert_eq!(ids(format!("/islands?id={}", first.to_uppercase()), "islands").await, [first]);
    assert_eq!(ids(format!("/islands?id={second}&id={first}"), "islands").await, [first, second]);
    assert_eq!(ids("/comms/islands?id=I0".to_owned(), "islands").await, [""; 0]);

    for (path, part) in [
        ("/peers?id=0x0", "id \"0x0\": an address is 0x and 40 hex digits"),
        ("/peers?id=", "id \"\": an address is"),
        ("/comms/islands?id=a.b", "id \"a.b\": must be 1 to 64 characters"),
    ] {
        let refusal = realm.get(&format!("{path}&id={one}")).await;
        assert_eq!(refusal.status(), 400, "{path}");
        assert_eq!(refusal.headers()["access-control-allow-origin"], "*");
        let refusal: Value = refusal.json().await.unwrap();
        assert_eq!(refusal["ok"], false);
        assert!(refusal["error"].as_str().unwrap().starts_with(part), "{refusal}");
    }
}

/// Collects all positions of a document: the values of `position` and `center`.
fn positions_in(document: &Value, found: &mut Vec<[f64; 3]>) {
    match document {
        Value::Array(parts) => parts.iter().for_each(|part| positions_in(part, found)),
        Value::Object(parts) => {
            for (key, part) in parts {
                match &**key {
                    "position" | "center" => found.push(serde_json::from_value(part.clone()).unwrap()),
                    _ => positions_in(part, found),
                }
            }
        }
        _ => {}
    }
}

/// All presence output about two peers in one island, with this setting: the text, the positions in it,
/// and the island's centre and radius.
async fn presence_output(positions: &str) -> (String, Vec<[f64; 3]>, Vec<Value>) {
    let settings = [("STATS__POSITIONS", positions), ("ISLANDS__REPORT_INTERVAL_MS", "100")];
    let realm = Realm::start(&settings);
    let mut feed = feed::Feed::open(&realm, None).await;
    feed.next().await;
    let peers = [sign_in_at(&realm, 37.375, -5.625).await, sign_in_at(&realm, 63.375, -5.625).await];
    let island = islands(&realm, 2).await.swap_remove(0);
    let (mut text, mut found) = (String::new(), Vec::new());
    let paths = [
        "/peers".to_owned(),
        format!("/peers?id={}", peers[0].1),
        format!("/peers/{}", peers[1].1),
        "/islands".to_owned(),
        format!("/islands/{}", island["id"].as_str().unwrap()),
        "/parcels".to_owned(),
        "/hot-scenes".to_owned(),
        "/core-status".to_owned(),
        "/rooms/status".to_owned(),
    ];
    // Presence has received the report by now, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for path in paths.iter().flat_map(|path| [path.clone(), format!("/comms{path}")]) {
        let answer = realm.get(&path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let answer = answer.text().await.unwrap();
        positions_in(&serde_json::from_str(&answer).unwrap(), &mut found);
        text += &answer;
    }
    drop(peers);
    let mut left = 0;
    while left < 2 {
        let event = feed.next().await;
        left += usize::from(event.name == "leave");
        positions_in(&event.data, &mut found);
        text += &event.text;
    }
    let radius = island["radius"].clone();
    (text, found, vec![island["center"].clone(), radius])
}

#[tokio::test(flavor = "multi_thread")]
async fn parcel_setting_hides_exact_positions() {
    let (text, found, island) = presence_output("parcel").await;
    // The positions are those of two peers, in lists, alone, in their islands and in the feed.
    assert!(found.len() > 10, "{found:?}");
    for [x, y, z] in found {
        let is_middle = |metres: f64| metres.rem_euclid(16.0) == 8.0;
        assert!(is_middle(x) && y == 0.0 && is_middle(z), "{x} {y} {z}");
    }
    assert!(!text.contains(".375") && !text.contains(".625"), "{text}");
    assert_eq!(island, [json!([56.0, 0.0, -8.0]), json!(16.0)]);

    let (text, _, island) = presence_output("exact").await;
    assert!(text.contains("[37.375,1.0,-5.625]") && text.contains("[63.375,1.0,-5.625]"), "{text}");
    assert_eq!(island, [json!([50.375, 0.0, -5.625]), json!(13.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn island_shows_its_transport_without_a_token() {
    let realm = Realm::start(&[]);
    let (_wire, _room, _) = enter(&realm, &wallet(), 0.0).await;
    let island = islands(&realm, 1).await.swap_remove(0);
    assert_eq!(island["transport"], json!({"protocol": "ws-room", "url": realm.ws}));
    for path in ["/peers", "/islands", "/hot-scenes", "/rooms/status"] {
        assert!(!realm.get(path).await.text().await.unwrap().contains("token"), "{path}");
    }
}
