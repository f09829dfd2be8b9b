//! The names of scenes, from a content service that responds, hangs and fails.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use test_support::{Realm, eventually};
use tokio::{net::TcpListener, time};

use super::sign_in_at;

/// A fake content service with one scene, a plaza on 0,0 and 1,0.
#[derive(Clone)]
struct Content {
    url: String,
    state: Arc<Mutex<Served>>,
}

struct Served {
    mood: Behaviour,
    /// The pointers of each request.
    requests: Vec<Vec<String>>,
    waiting: usize,
}

#[derive(Clone, Copy)]
enum Behaviour {
    Answers { title: &'static str },
    Fails,
    Garbage,
    Hangs,
}

impl Content {
    async fn start(mood: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/content/", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(Served { mood, requests: Vec::new(), waiting: 0 }));
        let content = Self { url, state };
        let router =
            Router::new().route("/content/entities/active", post(active)).with_state(content.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        content
    }

    fn set_behaviour(&self, mood: Behaviour) {
        self.state.lock().unwrap().mood = mood;
    }

    fn questions(&self) -> usize {
        self.state.lock().unwrap().requests.len()
    }
}

async fn active(State(content): State<Content>, Json(question): Json<Value>) -> Response {
    let pointers: Vec<String> = serde_json::from_value(question["pointers"].clone()).unwrap();
    let mood = {
        let mut state = content.state.lock().unwrap();
        state.requests.push(pointers.clone());
        state.mood
    };
    match mood {
        Behaviour::Answers { title } => {
            let on_it = pointers.iter().any(|pointer| ["0,0", "1,0"].contains(&&**pointer));
            let display = json!({"title": title, "description": "Meet", "navmapThumbnail": "map.png"});
            let plaza = json!({
                "id": "bafk-plaza", "pointers": ["0,0", "1,0"],
                "content": [{"file": "map.png", "hash": "bafk-map"}],
                "metadata": {"display": display, "scene": {"base": "1,0", "parcels": ["0,0", "1,0"]}}
            });
            let entities = if on_it { vec![json!("nonsense"), plaza] } else { Vec::new() };
            Json(entities).into_response()
        }
        Behaviour::Fails => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Behaviour::Garbage => "<html>".into_response(),
        Behaviour::Hangs => {
            content.state.lock().unwrap().waiting += 1;
            time::sleep(Duration::from_secs(600)).await;
            StatusCode::OK.into_response()
        }
    }
}

async fn first_name(realm: &Realm) -> Value {
    realm.json("/hot-scenes").await[0]["name"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn scene_names_outlive_content_service_failures() {
    let content = Content::start(Behaviour::Answers { title: "Plaza" }).await;
    let mut realm = Realm::start(&[
        ("REALM__CONTENT_URL", &content.url),
        ("STATS__SCENE_TTL_S", "1"),
        ("STATS__CONTENT_TIMEOUT_MS", "500"),
    ]);
    let _peers = [
        sign_in_at(&realm, 500.0, 500.0).await,
        sign_in_at(&realm, 1.0, 1.0).await,
        sign_in_at(&realm, 17.0, 1.0).await,
        sign_in_at(&realm, 18.0, 1.0).await,
    ];
    eventually("a name", async || first_name(&realm).await == "Plaza").await;
    let scenes = realm.json("/comms/hot-scenes").await;
    let realm_of = |users: usize, parcels: Value| {
        let url = &realm.http;
        json!([{"serverName": "", "url": url, "usersCount": users, "maxUsers": 10000, "userParcels": parcels}])
    };
    let plaza = json!({
        "id": "bafk-plaza", "name": "Plaza", "baseCoords": [1, 0], "usersTotalCount": 3,
        "parcels": [[0, 0], [1, 0]], "realms": realm_of(3, json!([[0, 0], [1, 0], [1, 0]])),
        "thumbnail": format!("{}contents/bafk-map", content.url), "description": "Meet",
    });
    let land = json!({
        "id": "31,31", "name": "", "baseCoords": [31, 31], "usersTotalCount": 1,
        "parcels": [[31, 31]], "realms": realm_of(1, json!([[31, 31]])),
    });
    assert_eq!(scenes, json!([plaza, land]));
    assert!(realm.count("atoll_stats_content_errors_total{kind=\"entity\"}").await > 0.0);

    // Presence asks again when the cache expires, and cached names survive each kind of failure.
    for (mood, kind) in
        [(Behaviour::Fails, "status"), (Behaviour::Hangs, "slow"), (Behaviour::Garbage, "understood")]
    {
        content.set_behaviour(mood);
        let errors = format!("atoll_stats_content_errors_total{{kind=\"{kind}\"}}");
        let least = if kind == "status" { 2.0 } else { 1.0 };
        eventually(kind, async || realm.count(&errors).await >= least).await;
        assert_eq!(realm.json("/hot-scenes").await, scenes);
    }
    content.set_behaviour(Behaviour::Answers { title: "Agora" });
    let limit = Duration::from_secs(60);
    let renamed = async {
        while first_name(&realm).await != "Agora" {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(limit, renamed).await.expect("the service receives another request");

    realm.interrupt();
    let (_, log) = realm.wait(Duration::from_secs(20));
    assert_eq!(log.matches("the content service fails").count(), 1, "{log}");
    assert_eq!(log.matches("the content service answers").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_content_service_delays_no_reader() {
    let content = Content::start(Behaviour::Hangs).await;
    let settings = [("REALM__CONTENT_URL", &*content.url), ("STATS__CONTENT_TIMEOUT_MS", "600000")];
    let realm = Realm::start(&settings);
    let _one = sign_in_at(&realm, 1.0, 1.0).await;
    eventually("the service receives a request", async || content.state.lock().unwrap().waiting == 1).await;
    for path in ["/hot-scenes", "/peers", "/islands", "/parcels"] {
        let answer = time::timeout(Duration::from_secs(10), realm.get(path)).await;
        assert_eq!(answer.expect("a reader waits for the content service").status(), 200);
    }
    let unnamed = realm.json("/hot-scenes").await;
    assert_eq!((&unnamed[0]["id"], &unnamed[0]["name"]), (&json!("0,0"), &json!("")));
    // Requests of readers cause no further question.
    assert_eq!(content.questions(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn known_parcels_are_not_requested_again() {
    let content = Content::start(Behaviour::Answers { title: "Plaza" }).await;
    let realm = Realm::start(&[("REALM__CONTENT_URL", &*content.url)]);
    let _peers = [sign_in_at(&realm, 1.0, 1.0).await, sign_in_at(&realm, 500.0, 500.0).await];
    eventually("a name", async || {
        let scenes = realm.json("/hot-scenes").await;
        scenes.as_array().unwrap().iter().any(|scene| scene["name"] == "Plaza")
    })
    .await;
    time::sleep(Duration::from_secs(3)).await;
    let mut requests = content.state.lock().unwrap().requests.concat();
    requests.sort();
    assert_eq!(requests, ["0,0", "31,31"], "each parcel once, empty land as well");
}
