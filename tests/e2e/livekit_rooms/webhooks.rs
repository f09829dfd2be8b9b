//! The endpoint for webhooks.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use livekit_api::access_token::AccessToken;
use reqwest::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use test_support::{LiveKitServer, Realm};

/// Posts a body with this header, and returns the status.
async fn post(realm: &Realm, node: &str, authorization: Option<&str>, body: String) -> StatusCode {
    let request = reqwest::Client::new().post(format!("{}/livekit/webhook/{node}", realm.http)).body(body);
    let request = match authorization {
        Some(value) => request.header("Authorization", value),
        None => request,
    };
    request.send().await.unwrap().status()
}

/// The header for a body.
fn signed(body: &str, secret: &str) -> String {
    let hash = STANDARD.encode(Sha256::digest(body));
    AccessToken::with_api_key(LiveKitServer::API_KEY, secret).with_sha256(&hash).to_jwt().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_is_accepted_once_and_only_if_signed() {
    // No server is needed: it is the test that sends its events.
    let realm = Realm::start(&[
        ("LIVEKIT__LK__URL", "ws://127.0.0.1:9"),
        ("LIVEKIT__LK__API_KEY", LiveKitServer::API_KEY),
        ("LIVEKIT__LK__API_SECRET", LiveKitServer::API_SECRET),
    ]);
    let participant =
        json!({ "identity": "0x01", "sid": "PA_1", "joinedAtMs": "1767225600000", "state": "NEW" });
    let event = json!({
        "event": "participant_joined", "id": "EV_1", "createdAt": "1767225600", "new": { "field": 1 },
        "room": { "name": "Plaza", "sid": "RM_1", "numParticipants": 1 }, "participant": participant,
    });
    let event = event.to_string();
    let token = signed(&event, LiveKitServer::API_SECRET);
    let users = async || realm.json("/rooms/status").await["users"].as_u64().unwrap();
    for _ in 0..2 {
        assert_eq!(post(&realm, "lk", Some(&token), event.clone()).await, StatusCode::OK);
        test_support::eventually("one participant", async || users().await == 1).await;
    }
    let forged = signed(&event, "another secret of at least thirty-two characters");
    let noise = signed("noise", LiveKitServer::API_SECRET);
    let large = "x".repeat(1024 * 1024 + 1);
    for (node, authorization, body, status) in [
        ("lk", None, event.clone(), StatusCode::UNAUTHORIZED),
        ("lk", Some(&*forged), event.clone(), StatusCode::UNAUTHORIZED),
        ("lk", Some(&*token), event.replace("0x01", "0x02"), StatusCode::UNAUTHORIZED),
        ("lk", Some(&*noise), "noise".to_owned(), StatusCode::BAD_REQUEST),
        ("other", Some(&*token), event.clone(), StatusCode::NOT_FOUND),
        ("lk", Some(&*token), large, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(post(&realm, node, authorization, body).await, status, "{node} {authorization:?}");
    }
    let get = realm.get("/livekit/webhook/lk").await.status();
    assert_eq!(get, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(users().await, 1);
}
