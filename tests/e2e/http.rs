//! The HTTP endpoints for web sites and operators.

use protocol::{
    rfc5::{WsSignedChallenge, ws_packet},
    v3::{ChallengeRequestMessage, client_packet, server_packet},
};
use serde_json::json;
use test_support::{
    Realm, eventually, wallet,
    wire::{Wire, enter, sign_in},
};

#[tokio::test(flavor = "multi_thread")]
async fn presence_lists_peers_and_forgets_them() {
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
    for absent in ["0x0000000000000000000000000000000000000000", "nothing"] {
        let response = realm.get(&format!("/peers/{absent}")).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.text().await.unwrap(), r#"{"ok":false,"peer":null}"#);
    }

    eventually("the report has both members", async || {
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
    eventually("no peer and no island is shown", async || {
        realm.json("/peers").await["peers"] == json!([])
            && realm.json("/islands").await["islands"] == json!([])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn about_health_and_metrics_describe_the_realm() {
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
    // A web page that an operator opens must not read them.
    for path in ["/metrics", "/rooms/status", "/status", "/openapi.json"] {
        let response = reqwest::get(format!("{}{path}", realm.metrics)).await.unwrap();
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{path}");
    }
    let paths = realm.json("/openapi.json").await["paths"].clone();
    assert!(paths.get("/peers").is_some() && paths.get("/metrics").is_none(), "{paths}");

    let realm = Realm::start(&[]);
    assert_eq!(realm.metrics, realm.http);
    for path in METRICS {
        assert_eq!(realm.get(path).await.status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_endpoint_answers_a_preflight() {
    let realm = Realm::start(&[]);
    let paths = realm.json("/openapi.json").await["paths"].as_object().unwrap().clone();
    let described = paths.keys().map(|path| path.replace("{id}", "x"));
    let others = ["/about", "/comms/peers", "/comms/events", "/openapi.json"].map(str::to_owned);
    for path in described.chain(others) {
        let preflight = reqwest::Client::new()
            .request(reqwest::Method::OPTIONS, format!("{}{path}", realm.http))
            .header("origin", "https://play.example")
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "cache-control,last-event-id");
        let response = preflight.send().await.unwrap();
        assert_eq!(response.status(), 204, "{path}");
        assert_eq!(response.headers()["access-control-allow-origin"], "*", "{path}");
        assert_eq!(
            response.headers()["access-control-allow-headers"],
            "cache-control,last-event-id",
            "{path}"
        );
        let methods = response.headers()["access-control-allow-methods"].to_str().unwrap();
        assert!(methods.contains("GET"), "{path}: {methods}");
        assert_eq!(response.text().await.unwrap(), "");
    }
}

const PRESENCE: [&str; 5] = ["/peers", "/peers/x", "/islands", "/parcels", "/events"];

#[tokio::test(flavor = "multi_thread")]
async fn presence_that_is_not_public_is_refused() {
    let realm = Realm::start(&[("STATS__PUBLIC", "false")]);
    for path in PRESENCE.into_iter().chain(["/comms/peers", "/islands/x"]) {
        let response = realm.get(path).await;
        assert_eq!(response.status(), 403, "{path}");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        let answer: serde_json::Value = response.json().await.unwrap();
        assert_eq!(answer, json!({"ok": false, "error": "presence is not public in this realm"}));
    }
    for path in ["/core-status", "/hot-scenes", "/about", "/openapi.json"] {
        assert_ne!(realm.get(path).await.status(), 403, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_behind_a_token_is_read_with_it() {
    const TOKEN: &str = "a token of sixteen characters";
    let realm = Realm::start(&[("STATS__PUBLIC", "token"), ("STATS__TOKEN", TOKEN)]);
    let client = reqwest::Client::new();
    for path in PRESENCE {
        let url = format!("{}{path}", realm.http);
        let refused = [
            client.get(&url),
            client.get(&url).bearer_auth("another"),
            client.get(format!("{url}?access_token=x")),
        ];
        for request in refused {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{path}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
        let query = format!("{url}?access_token={}", TOKEN.replace(' ', "%20"));
        for request in [client.get(&url).bearer_auth(TOKEN), client.get(query)] {
            let status = request.send().await.unwrap().status();
            assert_eq!(status, if path == "/peers/x" { 404 } else { 200 }, "{path}");
        }
    }
    let config = std::process::Command::new(env!("CARGO_BIN_EXE_atoll"))
        .arg("config")
        .env("ATOLL__STATS__PUBLIC", "token")
        .env("ATOLL__STATS__TOKEN", TOKEN)
        .output()
        .unwrap();
    let printed = String::from_utf8(config.stdout).unwrap();
    assert!(printed.contains("token = \"(hidden)\"") && !printed.contains(TOKEN), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parcel_positions_apply_to_island_changes() {
    let position = async |settings: &[(&str, &str)]| {
        let realm = Realm::start(settings);
        let me = wallet();
        let mut wire = sign_in(&realm, &me).await;
        wire.send_position(21.5, -3.25).await;
        let change = wire.island_changed().await;
        let at = change.peers[&me.address().to_string()];
        [at.x, at.y, at.z]
    };
    let parcel = ("STATS__POSITIONS", "parcel");
    assert_eq!(position(&[]).await, [21.5, 1.0, -3.25]);
    assert_eq!(position(&[parcel]).await, [24.0, 0.0, -8.0]);
    assert_eq!(position(&[parcel, ("ISLANDS__PEER_POSITIONS", "exact")]).await, [21.5, 1.0, -3.25]);
    assert_eq!(position(&[("ISLANDS__PEER_POSITIONS", "parcel")]).await, [24.0, 0.0, -8.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn already_connected_is_reported_unless_turned_off() {
    for (setting, reported) in [("true", true), ("false", false)] {
        let realm = Realm::start(&[("GATEWAY__TELL_CONNECTED", setting), ("ROOMS__OPEN", "hall")]);
        let me = wallet();
        let _session = sign_in(&realm, &me).await;
        let request = ChallengeRequestMessage { address: me.address().to_string(), ..Default::default() };
        let mut asking = Wire::open(&realm.socket()).await;
        asking.send_packet(client_packet::Message::ChallengeRequest(request)).await;
        let server_packet::Message::ChallengeResponse(challenge) = asking.next_packet().await else {
            panic!("no challenge")
        };
        assert_eq!(challenge.already_connected, reported);
        let mut rooms = Vec::new();
        for connected in [false, reported] {
            let mut room = Wire::open(&format!("{}/rooms/hall", realm.ws)).await;
            room.identify(&me).await;
            let ws_packet::Message::ChallengeMessage(challenge) = room.next_in_room().await else {
                panic!("no challenge")
            };
            assert_eq!(challenge.already_connected, connected);
            let auth_chain_json = me.sign_challenge(&challenge.challenge_to_sign);
            let signed = ws_packet::Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json });
            room.send_room_packet(signed).await;
            room.welcome().await;
            rooms.push(room);
        }
    }
}
