//! The HTTP answers: status, header names, keys and types. Values are left out.

use std::{collections::BTreeSet, fs, time::SystemTime};

use axum::{
    Json, Router,
    routing::{get, post},
};
use serde_json::{Value, json};
use test_support::{
    Realm, TEST_TIMEOUT, eventually, golden,
    signed_login::{METADATA, login_request, signed},
    wallet,
    wire::{enter, sign_in},
};
use tokio::{net::TcpListener, time::timeout};

use super::shape::Shape;

/// Headers of the HTTP connection, which depend on the length of the body.
const CONNECTION_HEADERS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// A response: its status and the names of its headers, and the shape of its JSON body.
async fn record(title: &str, request: reqwest::RequestBuilder) -> String {
    let response = timeout(TEST_TIMEOUT, request.send()).await.expect("an answer in time").unwrap();
    let names = response.headers().keys().map(|name| name.as_str());
    let names: BTreeSet<&str> = names.filter(|name| !CONNECTION_HEADERS.contains(name)).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let media_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let media_type = media_type.unwrap_or_else(|| "no content".to_owned());
    let title =
        format!("{title}: {}, {media_type}, headers: {}", response.status().as_u16(), names.join(" "));
    let mut shape = Shape::default();
    if media_type.starts_with("application/json") {
        shape.add(&response.json().await.unwrap(), &[]);
    }
    shape.section(&title)
}

/// A content service with one scene on parcel 0,0, which has all that a scene can have.
async fn content_service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let active = async || {
        let display = json!({"title": "Plaza", "description": "A plaza", "navmapThumbnail": "map.png"});
        Json(json!([{
            "id": "bafk-plaza", "pointers": ["0,0"], "content": [{"file": "map.png", "hash": "bafk-map"}],
            "metadata": {"display": display, "scene": {"base": "0,0", "parcels": ["0,0"]}},
        }]))
    };
    let status = async || Json(json!({}));
    let router = Router::new().route("/entities/active", post(active)).route("/status", get(status));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// `/openapi.json` of a process with all roles.
async fn description() -> Value {
    Realm::start(&[]).json("/openapi.json").await
}

/// Takes all prose out of a description, and lists it by its place.
fn take_prose(place: &str, value: &mut Value, prose: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for key in ["description", "summary"] {
                // A schema may have a property of that name, which is an object.
                if let Some(Value::String(text)) = members.get(key) {
                    prose.push(format!("{place}/{key}: {}", text.replace('\n', " ")));
                    members.remove(key);
                }
            }
            members.iter_mut().for_each(|(key, member)| take_prose(&format!("{place}/{key}"), member, prose));
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                take_prose(&format!("{place}/{index}"), element, prose);
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_has_these_paths_and_schemas() {
    let mut description = description().await;
    // The version of the workspace changes with each release.
    description["info"]["version"] = json!("(version)");
    take_prose("", &mut description, &mut Vec::new());
    golden::check("openapi.json", &(serde_json::to_string_pretty(&description).unwrap() + "\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_has_these_texts() {
    let mut prose = Vec::new();
    take_prose("", &mut description().await, &mut prose);
    golden::check("openapi-text.txt", &(prose.join("\n") + "\n"));
}

/// The paths of the requests, with their titles in the golden file. `{peer}` and `{island}` are those present.
const PATHS: [(&str, &str); 21] = [
    ("/about", "/about"),
    ("/status", "/status"),
    ("/health/live", "/health/live"),
    ("/health/ready", "/health/ready"),
    ("/metrics", "/metrics"),
    ("/peers", "/peers"),
    ("/peers?id=(malformed)", "/peers?id=0x0"),
    ("/peers/(address)", "/peers/{peer}"),
    ("/peers/(absent)", "/peers/nothing"),
    ("/islands", "/islands"),
    ("/islands/(island)", "/islands/{island}"),
    ("/islands/(absent)", "/islands/nothing"),
    ("/parcels", "/parcels"),
    ("/hot-scenes", "/hot-scenes"),
    ("/core-status", "/core-status"),
    ("/rooms/status", "/rooms/status"),
    ("/openapi.json", "/openapi.json"),
    ("/events", "/events"),
    ("/nothing", "/nothing"),
    ("/comms/peers", "/comms/peers"),
    ("/comms/rooms/status", "/comms/rooms/status"),
];

#[tokio::test(flavor = "multi_thread")]
async fn http_answers_have_these_keys() {
    let content = content_service().await;
    let realm = Realm::start(&[
        ("REALM__NAME", "lagoon"),
        ("REALM__GLOBAL_SCENES", "urn:decentraland:entity:bafk1"),
        ("REALM__SCENES", "urn:decentraland:entity:bafk2"),
        ("REALM__CONTENT_URL", &content),
        ("REALM__FIXED_ROOM", "plaza"),
        ("REALM__FIXED_ADAPTER", "signed-login"),
        ("ROOMS__NODES", "2"),
        ("ISLANDS__REPORT_INTERVAL_MS", "100"),
    ]);
    let one = wallet();
    let _session = enter(&realm, &one, 4.0).await;
    let peer = format!("/peers/{}", one.address());
    let mut island = String::new();
    eventually("presence shows the peer, its island and its scene", async || {
        let islands = realm.json("/islands").await;
        island = islands["islands"][0]["id"].as_str().unwrap_or_default().to_owned();
        let scenes = realm.json("/hot-scenes").await;
        islands["islands"][0]["transport"]["url"].is_string()
            && islands["islands"][0]["peers"][0]["id"].is_string()
            && scenes[0]["thumbnail"].is_string()
            && realm.get(&peer).await.status() == 200
            && realm.get("/about").await.status() == 200
    })
    .await;
    let client = reqwest::Client::new();
    let login = |metadata: &str| login_request(&realm, &signed(&one, metadata, SystemTime::now()));
    eventually("the fixed room is there", async || login(METADATA).send().await.unwrap().status() == 200)
        .await;
    let mut text = String::new();
    for (title, path) in PATHS {
        let path = path.replace("{peer}", &one.address().to_string()).replace("{island}", &island);
        // The description has a golden file of its own.
        let request = client.get(format!("{}{path}", realm.http));
        let section = record(&format!("GET {title}"), request).await;
        text += match &*path {
            "/openapi.json" => format!("{}\n\n", section.lines().next().unwrap()),
            _ => section,
        }
        .as_str();
    }
    text += &record("POST /signed-login (granted)", login(METADATA)).await;
    text += &record("POST /signed-login (denied)", login("{}")).await;
    let preflight = client
        .request(reqwest::Method::OPTIONS, format!("{}/peers", realm.http))
        .header("origin", "https://site.example")
        .header("access-control-request-method", "GET");
    text += &record("OPTIONS /peers", preflight).await;
    golden::check("http.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_socket_answers_have_these_keys() {
    let realm = Realm::start(&[]);
    let one = wallet();
    let _session = enter(&realm, &one, 0.0).await;
    let client = reqwest::Client::new();
    eventually("the director has assigned an island", async || {
        let assignments = client.get(format!("{}/assignments", realm.admin)).send().await.unwrap();
        assignments.json::<Value>().await.is_ok_and(|assignments| assignments[0]["session"].is_string())
    })
    .await;
    let mut text = String::new();
    for path in ["/assignments", "/explain", "/explain?at=0,0", "/nothing"] {
        let request = client.get(format!("{}{path}", realm.admin));
        text += &record(&format!("GET {path}"), request).await;
    }
    // The keys of these two answers are those of explain-json.txt.
    for (method, path, body) in [
        (reqwest::Method::GET, "/explain?at=0,0&json=true", ""),
        (reqwest::Method::POST, "/rules/diff?json=true", "[[rule]]\nname = \"a\"\n"),
        (reqwest::Method::POST, "/rules/diff", "[[rule]]\nname = \"a\"\n"),
        (reqwest::Method::POST, "/rules/diff", "nonsense"),
    ] {
        let title = format!("{method} {path} {}", if body == "nonsense" { "(malformed)" } else { "" });
        let request = client.request(method, format!("{}{path}", realm.admin)).body(body);
        let section = record(title.trim_end(), request).await;
        text += &format!("{}\n\n", section.lines().next().unwrap());
    }
    let foreign = client.get(format!("{}/assignments", realm.admin)).header("origin", "https://site.example");
    text += &record("GET /assignments (from another site)", foreign).await;
    golden::check("admin-socket.txt", &text);
}

/// Reads server-sent events of `/events` until one of this name, and adds their data to the shapes by event name.
async fn read_events(
    response: &mut reqwest::Response,
    unread: &mut String,
    last: &str,
    shapes: &mut std::collections::BTreeMap<String, Shape>,
) {
    let read = async {
        loop {
            while let Some((block, rest)) = unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                *unread = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                let (Some(name), Some(data)) = (field("event: "), field("data: ")) else { continue };
                let fields: Vec<&str> =
                    block.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
                let title = format!("event {name}, fields: {}", fields.join(" "));
                shapes.entry(title).or_default().add(&serde_json::from_str(data).unwrap(), &[]);
                if name == last {
                    return;
                }
            }
            let chunk = response.chunk().await.unwrap().expect("the stream is open");
            unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    timeout(TEST_TIMEOUT, read).await.unwrap_or_else(|_| panic!("no event {last} in time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_have_these_names_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    let write_rules = |transport: &str| {
        fs::write(&file, format!("[[rule]]\nname = \"all\"\ntransports = [\"{transport}\"]\n")).unwrap();
    };
    write_rules("ws-room");
    let realm = Realm::start(&[
        ("RULES__FILE", file.to_str().unwrap()),
        ("EXTERNAL__PULSE__TEMPLATE", "pulse:wss://pulse.example:7/{island}?as={address}"),
        ("CLIENT__ASSUMED_TRANSPORTS", "ws-room,pulse"),
        ("ISLANDS__SETTLING_S", "0"),
        ("ISLANDS__MOVE_INTERVAL_S", "0"),
        ("ISLANDS__RETURN_WINDOW_S", "0"),
    ]);
    let (mut unread, mut shapes) = Default::default();
    let mut response = realm.get("/events").await;
    read_events(&mut response, &mut unread, "ready", &mut shapes).await;
    let mut wire = sign_in(&realm, &wallet()).await;
    wire.heartbeat(0.0).await;
    read_events(&mut response, &mut unread, "peer_moved_island", &mut shapes).await;
    write_rules("external");
    read_events(&mut response, &mut unread, "island_moved", &mut shapes).await;
    drop(wire);
    read_events(&mut response, &mut unread, "island_closed", &mut shapes).await;
    let mut response = realm.get("/events?last_event_id=unknown").await;
    read_events(&mut response, &mut String::new(), "reset", &mut shapes).await;
    golden::check(
        "events.txt",
        &shapes.iter().map(|(title, shape)| shape.section(title)).collect::<String>(),
    );
}
