//! Webhooks: occupancy, and the removal of participants that are no members.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use livekit_api::access_token::AccessToken;
use protocol::unix_ms;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{LiveKitServers, WebhookRefusal};

/// An event about a participant that joined now.
fn event(kind: &str, id: &str, room: &str, identity: &str, sid: &str) -> Value {
    let joined = unix_ms(std::time::SystemTime::now()).to_string();
    json!({
        "event": kind, "id": id, "room": { "name": room, "sid": "RM_1" },
        "participant": { "identity": identity, "sid": sid, "joinedAtMs": joined },
    })
}

fn deliver(servers: &LiveKitServers, event: &Value) -> Result<(), WebhookRefusal> {
    let body = event.to_string();
    let hash = STANDARD.encode(Sha256::digest(&body));
    let token = AccessToken::with_api_key("key", "secret").with_sha256(&hash).to_jwt().unwrap();
    servers.receive("lk", Some(&token), body.as_bytes())
}

fn users(servers: &LiveKitServers, room: &str) -> usize {
    servers.status()[0].rooms.get(room).copied().unwrap_or_default()
}

#[tokio::test]
async fn occupancy_follows_events_and_ignores_repetitions() {
    let server = FakeServer::start().await;
    let realm = Realm::ready(vec![server.node("lk")]).await;
    let livekit = &realm.livekit;
    let joined = event("participant_joined", "E1", "I1", "0x01", "PA_1");
    deliver(livekit, &joined).unwrap();
    wait_for("the participant", || users(livekit, "I1") == 1).await;
    assert!(livekit.status()[0].webhooks && livekit.status()[0].healthy);
    deliver(livekit, &event("participant_left", "E2", "I1", "0x01", "PA_1")).unwrap();
    wait_for("the departure", || users(livekit, "I1") == 0).await;
    deliver(livekit, &joined).unwrap();
    deliver(livekit, &event("participant_joined", "E3", "I2", "0x02", "PA_2")).unwrap();
    wait_for("another participant", || users(livekit, "I2") == 1).await;
    assert_eq!(users(livekit, "I1"), 0, "the event was repeated");
    let body = joined.to_string();
    assert_eq!(livekit.receive("nowhere", None, body.as_bytes()), Err(WebhookRefusal::UnknownNode));
    assert!(matches!(livekit.receive("lk", None, body.as_bytes()), Err(WebhookRefusal::Invalid(_))));
}

#[tokio::test]
async fn participant_that_is_no_member_is_removed_as_it_joins() {
    let server = FakeServer::start().await;
    // The next list is late, so that only the event can have caused the removal.
    let mut realm = Realm::ready(vec![server.node_with("lk", |settings| settings.grace = 60 * SECOND)]).await;
    realm.place(1, 0.0);
    let island = realm.assigned_to_livekit().await;
    time::sleep(13 * SECOND).await;
    for number in [1, 9] {
        let identity = peer(number).to_string();
        let sid = server.join(&island, &identity);
        let id = format!("E{number}");
        deliver(&realm.livekit, &event("participant_joined", &id, &island, &identity, &sid)).unwrap();
    }
    let began = Instant::now();
    wait_for("the removal", || server.participants(&island).len() == 1).await;
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    assert_eq!(server.participants(&island), [peer(1).to_string()]);
}

#[tokio::test]
async fn participants_are_polled_while_webhooks_are_missing() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node("lk")]).await;
    realm.place(1, 0.0);
    let island = realm.assigned_to_livekit().await;
    let identity = peer(1).to_string();
    let sid = server.join(&island, &identity);
    deliver(&realm.livekit, &event("participant_joined", "E1", &island, &identity, &sid)).unwrap();
    wait_for("the event", || realm.livekit.status()[0].webhooks).await;
    realm.place(2, 1.0);
    realm.assigned_to_livekit().await;
    server.join(&island, &peer(2).to_string());
    wait_for("the list", || users(&realm.livekit, &island) == 2).await;
    assert!(!realm.livekit.status()[0].webhooks, "an event is missing");
}

#[tokio::test]
async fn changed_grants_reach_members_and_later_joins() {
    let server = FakeServer::start().await;
    let mut realm = Realm::ready(vec![server.node("lk")]).await;
    realm.place(1, 0.0);
    let island = realm.assigned_to_livekit().await;
    let livekit = realm.livekit.clone();
    let join = |number: u8| {
        let identity = peer(number).to_string();
        let sid = server.join(&island, &identity);
        let id = format!("E{number}");
        deliver(&livekit, &event("participant_joined", &id, &island, &identity, &sid)).unwrap();
        identity
    };
    let first = join(1);
    time::sleep(11 * SECOND).await;
    let rules = r#"default = { transports = ["livekit", "ws-room"], voice = "none" }"#;
    realm.admin.set_rules(archipelago::rules::Rules::parse(rules).unwrap()).await.unwrap();
    let changed = Instant::now();
    wait_for("the permissions", || server.may_publish(&island, &first) == Some(false)).await;
    assert!(changed.elapsed() < 2 * SECOND, "{:?}", changed.elapsed());
    realm.place(2, 1.0);
    realm.assigned_to_livekit().await;
    let second = join(2);
    wait_for("those of a later join", || server.may_publish(&island, &second) == Some(false)).await;
    let rules = rules.replace("none", "everyone");
    realm.admin.set_rules(archipelago::rules::Rules::parse(&rules).unwrap()).await.unwrap();
    wait_for("the permissions", || server.may_publish(&island, &second) == Some(true)).await;
}
