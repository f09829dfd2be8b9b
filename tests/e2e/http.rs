//! What sites and operators read.

use serde_json::json;

use crate::{
    front::{Realm, eventually, wallet},
    wire::enter,
};

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_told_and_forgotten() {
    let settings = [("ISLANDS__REPORT_INTERVAL_MS", "100"), ("REALM__NAME", "lagoon")];
    let realm = Realm::start(&settings);
    let (one, two) = (wallet(), wallet());
    let first = enter(&realm, &one, 40.0).await;
    let second = enter(&realm, &two, 50.0).await;
    let (one, two) = (one.address().to_string(), two.address().to_string());

    let peers = realm.json("/peers").await;
    assert_eq!(peers["peers"].as_array().unwrap().len(), 2);
    let peer = realm.json(&format!("/peers/{one}")).await;
    assert_eq!(peer["ok"], true);
    assert_eq!(peer["peer"]["address"], one);
    assert_eq!(peer["peer"]["parcel"], json!([2, 0]));
    assert_eq!(peer["peer"]["position"], json!([40.0, 1.0, 0.0]));
    assert!(peer["peer"]["lastPing"].as_u64().unwrap() > 1_700_000_000_000);
    let some = realm.json(&format!("/comms/peers?id={two}&id=0x{:040}", 0)).await;
    assert_eq!(some["peers"].as_array().unwrap().len(), 1);
    assert_eq!(realm.get("/peers/0x0000000000000000000000000000000000000000").await.status(), 404);

    eventually("both islands reports are in", async || {
        realm.json("/islands").await["islands"][0]["peers"].as_array().is_some_and(|peers| peers.len() == 2)
    })
    .await;
    let island = realm.json("/comms/islands").await["islands"][0].clone();
    assert_eq!(island["center"], json!([45.0, 0.0, 0.0]));
    assert_eq!(island["radius"], 5.0);
    assert_eq!(island["maxPeers"], 100);
    let id = island["id"].as_str().unwrap();
    assert_eq!(realm.json(&format!("/islands/{id}")).await["id"], id);
    assert_eq!(realm.get("/islands/I0").await.status(), 404);

    assert_eq!(
        realm.json("/parcels").await,
        json!({"parcels": [{"peersCount": 1, "parcel": {"x": 2, "y": 0}}, {"peersCount": 1, "parcel": {"x": 3, "y": 0}}]})
    );
    assert_eq!(realm.json("/core-status").await, json!({"healthy": true, "userCount": 2}));
    let scenes = realm.json("/hot-scenes").await;
    assert_eq!(scenes.as_array().unwrap().len(), 2);
    assert_eq!(scenes[0]["usersTotalCount"], 1);
    assert_eq!(scenes[0]["realms"][0]["serverName"], "lagoon");
    let rooms = realm.json("/comms/rooms/status").await;
    assert_eq!((&rooms["ok"], &rooms["users"]), (&json!(true), &json!(2)));
    assert_eq!(rooms["rooms"], json!([{"id": id, "users": 2}]));
    for path in [
        "/peers",
        "/islands",
        "/parcels",
        "/core-status",
        "/hot-scenes",
        "/rooms/status",
        "/about",
        "/status",
    ] {
        let response = realm.get(path).await;
        assert_eq!(response.headers()["access-control-allow-origin"], "*", "{path}");
    }
    assert!(realm.get("/islands").await.headers().contains_key("atoll-age-ms"));

    drop((first, second));
    eventually("nobody is shown any more", async || {
        realm.json("/peers").await["peers"] == json!([])
            && realm.json("/islands").await["islands"] == json!([])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_says_what_it_is_and_whether_it_is_well() {
    let settings = [("REALM__NAME", "lagoon"), ("REALM__SCENES", "urn:a, urn:b")];
    let realm = Realm::start(&settings);
    eventually("ready", async || realm.get("/health/ready").await.status() == 200).await;
    let about = realm.get("/about").await;
    assert_eq!(about.status(), 200);
    let about: serde_json::Value = about.json().await.unwrap();
    assert_eq!(about["healthy"], true);
    assert_eq!(about["acceptingUsers"], true);
    let configurations = json!({"networkId": 1, "realmName": "lagoon", "globalScenesUrn": [], "scenesUrn": ["urn:a", "urn:b"]});
    assert_eq!(about["configurations"], configurations);
    let adapter = format!("archipelago:archipelago:{}", realm.socket());
    assert_eq!(
        about["comms"],
        json!({"healthy": true, "protocol": "v3", "adapter": adapter, "usersCount": 0})
    );
    assert_eq!(about["bff"]["publicUrl"], "/bff");
    assert_eq!(about["content"], json!({"healthy": true, "publicUrl": ""}));
    assert_eq!(realm.get("/health/live").await.text().await.unwrap(), "alive");
    assert_eq!(realm.json("/status").await["version"], env!("CARGO_PKG_VERSION"));
    let metrics = realm.get("/metrics").await.text().await.unwrap();
    for name in [
        "dcl_archipelago_peers_count",
        "dcl_archipelago_islands_count",
        "dcl_ws_rooms_count",
        "dcl_ws_rooms_connections",
        "dcl_ws_rooms_in_messages",
        "dcl_ws_rooms_in_bytes",
        "dcl_ws_rooms_out_messages",
        "dcl_ws_rooms_out_bytes",
        "dcl_ws_rooms_unknown_sent_messages_total",
        "explorer_bff_connected_users",
        "atoll_director_flush_seconds_bucket",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_listener_serves_metrics_that_the_public_one_does_not() {
    const METRICS: [&str; 3] = ["/metrics", "/rooms/status", "/comms/rooms/status"];
    let realm = Realm::start(&[("SERVER__METRICS_LISTEN", "127.0.0.1:0")]);
    assert_ne!(realm.metrics, realm.http);
    let status = async |at: &str, path: &str| reqwest::get(format!("{at}{path}")).await.unwrap().status();
    for path in METRICS {
        assert_eq!(status(&realm.http, path).await, 404, "{path}");
        assert_eq!(status(&realm.metrics, path).await, 200, "{path}");
    }
    eventually("ready", async || status(&realm.metrics, "/health/ready").await == 200).await;
    for path in ["/health/live", "/health/ready", "/status", "/openapi.json"] {
        for at in [&realm.http, &realm.metrics] {
            assert_eq!(status(at, path).await, 200, "{at}{path}");
        }
    }
    for path in ["/about", "/peers", "/islands", "/events"] {
        assert_eq!(status(&realm.metrics, path).await, 404, "{path}");
    }
    let paths = realm.json("/openapi.json").await["paths"].clone();
    assert!(paths.get("/peers").is_some() && paths.get("/metrics").is_none(), "{paths}");

    let realm = Realm::start(&[]);
    assert_eq!(realm.metrics, realm.http);
    for path in METRICS {
        assert_eq!(realm.get(path).await.status(), 200, "{path}");
    }
}
