//! Compares the responses with their OpenAPI description.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use test_support::{Realm, wallet};

use super::{feed::Feed, islands, sign_in_at};

/// The presence endpoints.
const PRESENCE: [&str; 9] = [
    "/peers",
    "/peers/{id}",
    "/islands",
    "/islands/{id}",
    "/parcels",
    "/hot-scenes",
    "/core-status",
    "/rooms/status",
    "/events",
];
const PROCESS: [&str; 4] = ["/status", "/health/live", "/health/ready", "/metrics"];

/// A description in which no object may have properties that are not described.
struct Description(Value);

impl Description {
    async fn of(realm: &Realm) -> Self {
        let mut document = realm.json("/openapi.json").await;
        assert_eq!(realm.json("/comms/openapi.json").await, document);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
        forbid_undescribed_properties(&mut document);
        Self(document)
    }

    fn paths(&self) -> BTreeSet<&str> {
        self.0["paths"].as_object().unwrap().keys().map(|path| &**path).collect()
    }

    /// The addresses of a path: one under each of its servers.
    fn addresses(&self, path: &str) -> Vec<String> {
        let servers = self.0["paths"][path]["servers"].as_array();
        let servers = servers.map_or(vec![json!({"url": "/"})], Clone::clone);
        let at = |server: &Value| format!("{}{path}", server["url"].as_str().unwrap().trim_end_matches('/'));
        servers.iter().map(at).collect()
    }

    /// The content type and the schema of a described response.
    fn answer(&self, path: &str, status: u16) -> (&str, jsonschema::Validator) {
        let answer = &self.0["paths"][path]["get"]["responses"][status.to_string()];
        let content = answer["content"].as_object().unwrap_or_else(|| panic!("{path} may answer {status}"));
        let (kind, content) = content.iter().next().unwrap();
        let mut schema = content["schema"].clone();
        schema["components"] = self.0["components"].clone();
        (kind, jsonschema::draft202012::new(&schema).unwrap())
    }

    /// Requests a path, and checks the response against its description.
    async fn check(&self, realm: &Realm, path: &str, address: &str, status: u16) {
        let answer = realm.get(address).await;
        assert_eq!(answer.status(), status, "{address}");
        let (kind, holds) = self.answer(path, status);
        let served = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(served.starts_with(kind), "{address}: {served}, and not {kind}");
        if let Some(headers) = self.0["paths"][path]["get"]["responses"][status.to_string()].get("headers") {
            for header in headers.as_object().unwrap().keys() {
                assert!(answer.headers().contains_key(header), "{address}: {header}");
            }
        }
        let text = answer.text().await.unwrap();
        let body = if kind == "application/json" {
            serde_json::from_str(&text).unwrap()
        } else {
            Value::String(text)
        };
        assert_valid(&holds, &body, address);
    }
}

fn assert_valid(holds: &jsonschema::Validator, body: &Value, label: &str) {
    let errors: Vec<String> = holds.iter_errors(body).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{label}: {errors:?}\n{body}");
}

/// Forbids properties that are not described, in all objects.
fn forbid_undescribed_properties(document: &mut Value) {
    match document {
        Value::Array(parts) => parts.iter_mut().for_each(forbid_undescribed_properties),
        Value::Object(parts) => {
            parts.values_mut().for_each(forbid_undescribed_properties);
            if parts.get("type") == Some(&json!("object")) && parts.contains_key("properties") {
                parts.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_matches_its_description() {
    let realm = Realm::start(&[("ROOMS__NODES", "2"), ("REALM__NAME", "lagoon")]);
    let description = Description::of(&realm).await;
    let expected: BTreeSet<&str> = PRESENCE.into_iter().chain(PROCESS).collect();
    assert_eq!(description.paths(), expected);
    let mut feed = Feed::open(&realm, None).await;
    let peers = [sign_in_at(&realm, 0.0, 0.0).await, sign_in_at(&realm, 9.5, 20.0).await];
    let island = islands(&realm, 2).await[0]["id"].as_str().unwrap().to_owned();
    for &path in &expected {
        let id = if path.starts_with("/peers") { &peers[0].1 } else { &island };
        for address in description.addresses(path) {
            if path == "/events" {
                continue;
            }
            description.check(&realm, path, &address.replace("{id}", id), 200).await;
        }
    }
    let operations = expected.iter().map(|&path| description.0["paths"][path]["get"]["operationId"].as_str());
    assert_eq!(
        operations.collect::<Option<BTreeSet<_>>>().unwrap().len(),
        expected.len(),
        "operation ids are unique"
    );
    for path in PRESENCE {
        assert_eq!(description.addresses(path), [path.to_owned(), format!("/comms{path}")]);
    }
    let absent = wallet().address();
    for (path, address, status) in [
        ("/peers", "/peers?id=0x1".to_owned(), 400),
        ("/peers", format!("/peers?id={absent}"), 200),
        ("/peers/{id}", format!("/comms/peers/{absent}"), 404),
        ("/islands", "/islands?id=*".to_owned(), 400),
        ("/islands/{id}", "/islands/I0".to_owned(), 404),
    ] {
        description.check(&realm, path, &address, status).await;
    }
    // The feed's description is that of the data of each event.
    drop(peers);
    let (kind, holds) = description.answer("/events", 200);
    assert_eq!(kind, "text/event-stream");
    let mut seen = BTreeSet::new();
    while !seen.contains("island_closed") {
        let event = feed.next().await;
        assert_valid(&holds, &json!({ &*event.name: event.data }), &event.name);
        seen.insert(event.name);
    }
    let reset = Feed::open(&realm, Some("none")).await.next().await;
    assert_valid(&holds, &json!({"reset": reset.data}), "reset");
    let names = ["island_closed", "island_opened", "join", "leave", "peer_moved_island", "ready"];
    assert_eq!(seen.iter().map(|name| &**name).collect::<Vec<_>>(), names);
    assert!(!holds.is_valid(&json!({"join": {"time": 1}})), "the schema has required properties");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_of_feed_readers_matches_its_description() {
    let realm = Realm::start(&[("STATS__MAX_FEED_READERS", "1")]);
    let description = Description::of(&realm).await;
    let _feed = Feed::open(&realm, None).await;
    for address in description.addresses("/events") {
        description.check(&realm, "/events", &address, 503).await;
    }
}
