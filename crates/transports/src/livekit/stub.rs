//! A stub of LiveKit's room service, for tests.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use livekit_api::access_token::TokenVerifier;
use livekit_protocol::{ListRoomsResponse, Room};
use prost::Message as _;
use tokio::net::TcpListener;

use super::{api::ApiClient, keys::Keys};

/// How the stub server responds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behaviour {
    Answers,
    Hangs,
    Fails,
    HasNone,
    RefusesInJson,
    RefusesInText,
}

/// A server with three rooms.
pub(crate) struct Stub {
    url: String,
    /// Its behaviour, and how many requests it received since that was set.
    state: Arc<Mutex<(Behaviour, u32)>>,
}

/// Long enough for a busy machine.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(20);
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_millis(20);

pub(crate) fn keys() -> Keys {
    Keys::new("key", "secret")
}

impl Stub {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let state = Arc::new(Mutex::new((behaviour, 0)));
        let shared_state = state.clone();
        let answer = async move |headers: HeaderMap, _body: Bytes| {
            let behaviour = {
                let mut state = shared_state.lock().unwrap();
                state.1 += 1;
                state.0
            };
            let token = headers[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap();
            let grants = TokenVerifier::with_api_key("key", "secret").verify(token).unwrap().video;
            assert!(grants.room_list || grants.room_create || grants.room_admin);
            respond(behaviour).await
        };
        let app = Router::new().route("/twirp/livekit.RoomService/{method}", post(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, state }
    }

    pub(crate) fn client(&self, timeout: Duration) -> ApiClient {
        ApiClient::new(&self.url, &keys(), timeout)
    }

    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        *self.state.lock().unwrap() = (behaviour, 0);
    }

    pub(crate) fn requests(&self) -> u32 {
        self.state.lock().unwrap().1
    }
}

async fn respond(behaviour: Behaviour) -> Response {
    let twirp = |status: StatusCode, code: &str| {
        (status, format!("{{\"code\":\"{code}\",\"msg\":\"eyJ...\"}}")).into_response()
    };
    match behaviour {
        Behaviour::Answers => {
            let room = |name: &str| Room { name: name.to_owned(), ..Room::default() };
            let rooms = ListRoomsResponse { rooms: ["I1", "I2", "I3"].map(room).to_vec() };
            ([(header::CONTENT_TYPE, "application/protobuf")], rooms.encode_to_vec()).into_response()
        }
        Behaviour::Hangs => pending().await,
        Behaviour::Fails => twirp(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        Behaviour::HasNone => twirp(StatusCode::NOT_FOUND, "not_found"),
        Behaviour::RefusesInJson => twirp(StatusCode::UNAUTHORIZED, "unauthenticated"),
        Behaviour::RefusesInText => (StatusCode::UNAUTHORIZED, "invalid token: eyJ...").into_response(),
    }
}
