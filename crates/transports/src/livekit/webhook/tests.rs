//! Tests of the verification and the parsing of webhook requests.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::livekit::Keys;

const NOW_S: u64 = 1_767_225_600;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S)
}

fn receiver() -> Receiver {
    Receiver::new(&Keys::new("key", "secret"))
}

/// The claims of a server that signs `body` now.
fn claims(body: &[u8]) -> Value {
    let sha256 = STANDARD.encode(Sha256::digest(body));
    json!({"iss": "key", "nbf": NOW_S, "iat": NOW_S, "exp": NOW_S + 300, "sha256": sha256})
}

fn sign(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn token(claims: &Value) -> String {
    sign(claims, Algorithm::HS256, "secret")
}

/// Receives a correctly signed body.
fn receive(body: &Value) -> Result<Event, WebhookError> {
    let body = body.to_string();
    receiver().receive(Some(&token(&claims(body.as_bytes()))), body.as_bytes(), now())
}

/// Receives `{"event": "x"}` with these changes to the claims.
fn authenticate(changes: &Value) -> Result<(), AuthError> {
    let body = br#"{"event": "x"}"#;
    let mut claims = claims(body);
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    match receiver().receive(Some(&token(&claims)), body, now()) {
        Ok(_) => Ok(()),
        Err(WebhookError::Unauthenticated(error)) => Err(error),
        Err(WebhookError::Malformed(error)) => panic!("{error}"),
    }
}

#[test]
fn every_field_of_an_event_is_parsed() {
    let event = receive(&json!({
        "event": "participant_left",
        "id": "EV_1",
        "createdAt": "1767225599",
        "room": {"sid": "RM_1", "name": "I1", "numParticipants": 3, "enabledCodecs": [{"mime": "audio/opus"}]},
        "participant": {
            "sid": "PA_1",
            "identity": "0xab",
            "state": "DISCONNECTED",
            "joinedAt": "1767225500",
            "joinedAtMs": "1767225500123",
            "kind": "AGENT",
            "permission": {"canSubscribe": true, "hidden": true, "canPublishSources": ["A_NEW_SOURCE"]},
            "disconnectReason": "CONNECTION_TIMEOUT",
            "tracks": [{"type": "A_NEW_TYPE"}],
        },
        "aNewField": {"deep": [1, null]},
    }));
    let participant = EventParticipant {
        identity: "0xab".into(),
        sid: "PA_1".into(),
        joined_ms: 1_767_225_500_123,
        kind: Some(Kind::Agent),
        hidden: true,
        state: Some(State::Disconnected),
        disconnect_reason: Some(DisconnectReason::ConnectionTimeout),
    };
    let room = EventRoom { name: "I1".into(), sid: "RM_1".into(), participant_count: 3 };
    let expected = Event {
        id: "EV_1".into(),
        kind: EventKind::ParticipantLeft,
        created_at_s: 1_767_225_599,
        room: Some(room),
        participant: Some(participant),
    };
    assert_eq!(event, Ok(expected));
}

#[test]
fn snake_case_numbers_and_unknown_values_are_accepted() {
    let event = receive(&json!({
        "event": "participant_waved",
        "created_at": 7,
        "room": {"name": "I1", "num_participants": "4", "sid": null},
        "participant": {
            "joined_at": 12, "kind": 4, "state": "DREAMING", "disconnect_reason": 99, "permission": null,
        },
    }));
    let event = event.unwrap();
    assert_eq!(event.kind, EventKind::Other("participant_waved".into()));
    assert_eq!((event.created_at_s, event.id.as_str()), (7, ""));
    assert_eq!(event.room, Some(EventRoom { name: "I1".into(), sid: String::new(), participant_count: 4 }));
    let participant = event.participant.unwrap();
    assert_eq!((participant.joined_ms, participant.hidden), (12_000, false));
    assert_eq!(
        (participant.kind, participant.state, participant.disconnect_reason),
        (Some(Kind::Agent), None, None)
    );
}

#[test]
fn absent_fields_have_default_values() {
    let event = receive(&json!({"event": "participant_joined", "participant": {"joinedAtMs": "-5"}}));
    let participant = event.unwrap().participant.unwrap();
    assert_eq!(participant.joined_ms, 0);
    assert_eq!((participant.kind, participant.state), (Some(Kind::Standard), Some(State::Joining)));
    assert_eq!(participant.disconnect_reason, Some(DisconnectReason::UnknownReason));
}

#[test]
fn every_kind_of_event_is_recognised() {
    use EventKind::*;
    for (name, kind) in [
        ("room_started", RoomStarted),
        ("room_finished", RoomFinished),
        ("participant_joined", ParticipantJoined),
        ("participant_left", ParticipantLeft),
        ("participant_connection_aborted", ParticipantConnectionAborted),
        ("track_published", TrackPublished),
        ("track_unpublished", TrackUnpublished),
        ("egress_started", Other("egress_started".into())),
    ] {
        let event = receive(&json!({"event": name})).unwrap();
        assert_eq!((event.kind, event.room, event.participant), (kind, None, None));
    }
}

#[test]
fn malformed_body_is_named_with_its_field() {
    for (body, reason) in [
        (json!([]), "the body is not a JSON object"),
        (json!({}), "event is missing"),
        (json!({"event": 7}), "event is not a string of at most 1024 bytes"),
        (json!({"event": "x", "id": "i".repeat(1_025)}), "id is not a string of at most 1024 bytes"),
        (json!({"event": "x", "createdAt": "soon"}), "createdAt is not a 64-bit integer"),
        (json!({"event": "x", "createdAt": 0.5}), "createdAt is not a 64-bit integer"),
        (json!({"event": "x", "room": "I1"}), "room is not an object"),
        (json!({"event": "x", "room": {"name": 1}}), "room.name is not a string of at most 1024 bytes"),
        (json!({"event": "x", "participant": {"kind": {}}}), "participant.kind is not a name or a number"),
        (
            json!({"event": "x", "participant": {"permission": {"hidden": "no"}}}),
            "participant.permission.hidden is not a boolean",
        ),
    ] {
        assert_eq!(receive(&body), Err(WebhookError::Malformed(reason.to_owned())), "{body}");
    }
    let body = b"{";
    let error = receiver().receive(Some(&token(&claims(body))), body, now()).unwrap_err();
    assert!(matches!(error, WebhookError::Malformed(_)), "{error}");
}

#[test]
fn token_is_accepted_within_its_validity() {
    for changes in [
        json!({}),
        json!({"nbf": null}),
        json!({"iat": null}),
        json!({"nbf": NOW_S + 30}),
        json!({"nbf": NOW_S - 300}),
        json!({"nbf": NOW_S as f64 - 0.5}),
        json!({"exp": NOW_S - 29}),
    ] {
        assert_eq!(authenticate(&changes), Ok(()), "{changes}");
    }
}

#[test]
fn each_reason_for_refusal_is_named() {
    for (changes, error) in [
        (json!({"iss": "other"}), AuthError::WrongKey),
        (json!({"iss": null}), AuthError::NoToken),
        (json!({"exp": null}), AuthError::NoToken),
        (json!({"sha256": null}), AuthError::NoToken),
        (json!({"nbf": null, "iat": null}), AuthError::NoToken),
        (json!({"exp": NOW_S - 30}), AuthError::Expired),
        (json!({"nbf": NOW_S + 31}), AuthError::NotYetValid),
        (json!({"nbf": NOW_S - 301}), AuthError::TooOld),
        (json!({"nbf": NOW_S - 301, "exp": NOW_S + 86_400}), AuthError::TooOld),
        (json!({"nbf": null, "iat": NOW_S - 301}), AuthError::TooOld),
        (json!({"nbf": 0}), AuthError::TooOld),
        (json!({"sha256": STANDARD.encode(Sha256::digest(b"another body"))}), AuthError::WrongBody),
        (json!({"sha256": ""}), AuthError::WrongBody),
    ] {
        assert_eq!(authenticate(&changes), Err(error), "{changes}");
    }
}

#[test]
fn header_contains_the_bare_token_or_a_bearer() {
    let body = br#"{"event": "x"}"#;
    let signed = token(&claims(body));
    let receive = |header: Option<&str>| receiver().receive(header, body, now()).map(|event| event.kind);
    for header in [signed.clone(), format!("Bearer {signed}"), format!("bearer  {signed} ")] {
        assert_eq!(receive(Some(&header)), Ok(EventKind::Other("x".into())), "{header}");
    }
    let refused = |error: AuthError| Err(WebhookError::Unauthenticated(error));
    for header in [None, Some(""), Some("Bearer"), Some("a.b.c"), Some(&*format!("Basic {signed}"))] {
        assert_eq!(receive(header), refused(AuthError::NoToken), "{header:?}");
    }
    for (algorithm, secret, error) in [
        (Algorithm::HS256, "another", AuthError::WrongSignature),
        (Algorithm::HS512, "secret", AuthError::NoToken),
    ] {
        let header = sign(&claims(body), algorithm, secret);
        assert_eq!(receive(Some(&header)), refused(error));
    }
    // {"alg":"none","typ":"JWT"} with the same claims.
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", signed.split('.').nth(1).unwrap());
    assert_eq!(receive(Some(&unsigned)), refused(AuthError::NoToken));
}

#[test]
fn body_above_the_limit_is_refused() {
    let body = |length: usize| {
        let mut body = br#"{"event": "x"}"#.to_vec();
        body.resize(length, b' ');
        receiver().receive(Some(&token(&claims(&body))), &body, now()).map(|event| event.kind)
    };
    assert_eq!(body(MAX_BODY_BYTES), Ok(EventKind::Other("x".into())));
    assert_eq!(body(MAX_BODY_BYTES + 1), Err(WebhookError::Unauthenticated(AuthError::TooLarge)));
}

#[test]
fn debug_output_hides_the_secret() {
    let shown = format!("{:?}", Receiver::new(&Keys::new("key", "hush")));
    assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
}

#[test]
fn recent_ids_recognise_a_repetition_until_forgotten() {
    let mut ids = RecentIds::default();
    let id = |number: usize| format!("EV_{number}");
    for number in 0..RecentIds::CAPACITY {
        assert!(ids.insert(&id(number)));
    }
    assert!(!ids.insert(&id(0)), "the oldest of a full set");
    assert!(ids.insert(&id(RecentIds::CAPACITY)));
    assert!(!ids.insert(&id(1)));
    assert!(ids.insert(&id(0)), "it was forgotten");
    assert!(ids.insert("") && ids.insert(""), "an empty id identifies nothing");
}
