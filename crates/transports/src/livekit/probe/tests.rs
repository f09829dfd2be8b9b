//! Tests of the probe against a stub of LiveKit's API.

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use livekit_api::access_token::TokenVerifier;
use prost::Message;
use tokio::net::TcpListener;

use super::*;

/// How the stub server responds.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    Answers,
    Hangs,
    Fails,
    RefusesInJson,
    RefusesInText,
}

/// The fields of `ListRoomsResponse` and `Room` that a probe reads.
#[derive(Clone, PartialEq, Message)]
struct Rooms {
    #[prost(message, repeated, tag = "1")]
    rooms: Vec<Room>,
}

#[derive(Clone, PartialEq, Message)]
struct Room {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, tag = "9")]
    num_participants: u32,
}

/// A stub server with the part of LiveKit's API that a probe needs.
struct Server {
    url: String,
    /// Its behaviour, and how many requests it received since that was set.
    state: Arc<Mutex<(Behaviour, u32)>>,
}

fn keys() -> Keys {
    Keys::new("key", "secret")
}

impl Server {
    async fn start(behaviour: Behaviour) -> Self {
        let state = Arc::new(Mutex::new((behaviour, 0)));
        let shared_state = state.clone();
        let answer = async move |headers: HeaderMap, body: Bytes| {
            let behaviour = {
                let mut state = shared_state.lock().unwrap();
                state.1 += 1;
                state.0
            };
            let token = headers[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap();
            let claims = TokenVerifier::with_api_key("key", "secret").verify(token).unwrap();
            assert!(claims.video.room_list && body.is_empty(), "all rooms are asked for");
            respond(behaviour).await
        };
        let app = Router::new().route("/twirp/livekit.RoomService/ListRooms", post(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, state }
    }

    fn probe(&self, deadline: Duration) -> Probe {
        Probe::with_timeout(&self.url, &keys(), deadline)
    }

    fn set_behaviour(&self, behaviour: Behaviour) {
        *self.state.lock().unwrap() = (behaviour, 0);
    }

    fn requests(&self) -> u32 {
        self.state.lock().unwrap().1
    }
}

async fn respond(behaviour: Behaviour) -> Response {
    let twirp = |status: StatusCode, code: &str| {
        (status, format!("{{\"code\":\"{code}\",\"msg\":\"eyJ...\"}}")).into_response()
    };
    match behaviour {
        Behaviour::Answers => {
            let room = |name: &str, num_participants| Room { name: name.to_owned(), num_participants };
            let rooms = Rooms { rooms: vec![room("I1", 2), room("I2", 0), room("I3", 40)] };
            ([(header::CONTENT_TYPE, "application/protobuf")], rooms.encode_to_vec()).into_response()
        }
        Behaviour::Hangs => pending().await,
        Behaviour::Fails => twirp(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        Behaviour::RefusesInJson => twirp(StatusCode::UNAUTHORIZED, "unauthenticated"),
        Behaviour::RefusesInText => (StatusCode::UNAUTHORIZED, "invalid token: eyJ...").into_response(),
    }
}

/// Long enough for a busy machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(20);
const SHORT_TIMEOUT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn probe_counts_participants_or_names_the_error() {
    let server = Server::start(Behaviour::Answers).await;
    let probe = server.probe(LONG_TIMEOUT);
    assert_eq!(probe.users().await, Ok(42));
    for (behaviour, error) in [
        (Behaviour::RefusesInJson, ProbeError::Refused),
        (Behaviour::RefusesInText, ProbeError::InvalidResponse),
        (Behaviour::Fails, ProbeError::Failed),
    ] {
        server.set_behaviour(behaviour);
        let actual = probe.users().await.unwrap_err();
        assert!(!actual.to_string().contains("eyJ"), "{actual}");
        assert_eq!(actual, error, "{behaviour:?}");
    }
    server.set_behaviour(Behaviour::Hangs);
    assert_eq!(server.probe(SHORT_TIMEOUT).users().await, Err(ProbeError::TimedOut(SHORT_TIMEOUT)));
}

#[tokio::test]
async fn unreachable_server_is_reported_with_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Probe::new(&url, &keys()).users().await.unwrap_err();
    assert!(matches!(&error, ProbeError::Unreachable(cause) if cause.contains("refused")), "{error}");
    let error = Probe::new("nowhere", &keys()).users().await.unwrap_err();
    assert!(matches!(error, ProbeError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn server_that_hangs_is_unhealthy_after_two_probes() {
    /// The next report of another outcome. Until then the state is reported unchanged, every second.
    async fn next_change(watch: &mut HealthWatch) -> HealthReport {
        let healthy = watch.reported.as_ref().is_some_and(Result::is_ok);
        for _ in 0..20 {
            let report = watch.next().await;
            if report.users.is_ok() != healthy {
                return report;
            }
            assert!(!report.changed, "{report:?}");
        }
        panic!("nothing changes")
    }
    let server = Server::start(Behaviour::Answers).await;
    let mut watch = HealthWatch::new(server.probe(Duration::from_millis(200)));
    assert_eq!(watch.next().await, HealthReport { users: Ok(42), changed: true });
    assert_eq!(watch.next().await, HealthReport { users: Ok(42), changed: false });
    server.set_behaviour(Behaviour::Hangs);
    assert!(next_change(&mut watch).await.changed);
    assert_eq!(server.requests(), 2);
    let report = watch.next().await;
    assert_eq!((report.users.is_ok(), report.changed), (false, false));
    server.set_behaviour(Behaviour::Answers);
    assert_eq!(next_change(&mut watch).await, HealthReport { users: Ok(42), changed: true });
    assert!(server.requests() >= 3, "one success proves nothing");
}

#[tokio::test]
async fn server_that_answers_late_is_reported_healthy_meanwhile() {
    let server = Server::start(Behaviour::Answers).await;
    let mut watch = HealthWatch::new(server.probe(LONG_TIMEOUT));
    assert_eq!(watch.next().await, HealthReport { users: Ok(42), changed: true });
    server.set_behaviour(Behaviour::Hangs);
    for _ in 0..3 {
        assert_eq!(watch.next().await, HealthReport { users: Ok(42), changed: false });
    }
    assert_eq!(server.requests(), 1, "one probe at a time");
}

#[test]
fn debug_output_of_a_probe_hides_the_secret() {
    let shown = format!("{:?}", Probe::new("http://127.0.0.1:9", &Keys::new("key", "hush")));
    assert!(!shown.contains("hush"), "{shown}");
}
