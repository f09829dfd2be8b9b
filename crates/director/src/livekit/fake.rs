//! A LiveKit server without media, for tests: the room service on rooms in memory.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use livekit_protocol::{
    CreateRoomRequest, DeleteRoomRequest, ListParticipantsRequest, ListParticipantsResponse,
    ListRoomsResponse, ParticipantInfo, Room, RoomParticipantIdentity, UpdateParticipantRequest,
};
use parking_lot::Mutex;
use prost::Message;
use protocol::unix_ms;
use tokio::{net::TcpListener, time};
use transports::livekit::Keys;

use super::LiveKitSettings;
use crate::{ConfiguredNode, TransportOffer};

/// A server with adjustable behaviour. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FakeServer {
    url: String,
    state: Arc<Mutex<FakeState>>,
}

#[derive(Default)]
struct FakeState {
    rooms: BTreeMap<String, FakeRoom>,
    /// The delay of the replies to these calls.
    delays: BTreeMap<String, Duration>,
    /// Calls that are answered with an internal error.
    failing: Vec<String>,
    refuses_key: bool,
    requests: BTreeMap<String, u32>,
}

/// A room, as it was created.
#[derive(Clone)]
pub(crate) struct FakeRoom {
    pub(crate) request: CreateRoomRequest,
    participants: BTreeMap<String, ParticipantInfo>,
}

impl FakeServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, state: Arc::default() };
        let app = Router::new()
            .route("/twirp/livekit.RoomService/{method}", post(serve))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    /// A configured node with this server.
    pub(crate) fn node(&self, name: &str) -> ConfiguredNode {
        self.node_with(name, |_| {})
    }

    pub(crate) fn node_with(&self, name: &str, change: impl FnOnce(&mut LiveKitSettings)) -> ConfiguredNode {
        let mut settings = LiveKitSettings {
            url: "wss://lk.example".to_owned(),
            api_url: self.url.clone(),
            keys: Keys::new("key", "secret"),
            token_ttl: Duration::from_secs(300),
            probed: true,
            hang_timeout: Duration::from_secs(3),
            auto_create: true,
            grace: Duration::from_millis(200),
        };
        change(&mut settings);
        ConfiguredNode {
            node: name.parse().unwrap(),
            offer: TransportOffer::LiveKit(Arc::new(settings)),
            max_island_size: 12,
            max_users: Some(50),
            draining: false,
        }
    }

    pub(crate) fn delay(&self, call: &str, delay: Duration) {
        self.state.lock().delays.insert(call.to_owned(), delay);
    }

    pub(crate) fn fail(&self, call: &str, fails: bool) {
        let mut state = self.state.lock();
        state.failing.retain(|failing| failing != call);
        if fails {
            state.failing.push(call.to_owned());
        }
    }

    pub(crate) fn refuse_key(&self, refuses: bool) {
        self.state.lock().refuses_key = refuses;
    }

    /// A participant joins, with its room if there is none. Returns its sid.
    pub(crate) fn join(&self, room: &str, identity: &str) -> String {
        self.join_as(room, ParticipantInfo { identity: identity.to_owned(), ..ParticipantInfo::default() })
    }

    pub(crate) fn join_as(&self, room: &str, info: ParticipantInfo) -> String {
        let mut state = self.state.lock();
        let sid = format!("PA_{}", state.requests.values().sum::<u32>() + 1_000 * state.rooms.len() as u32);
        let joined_at_ms = i64::try_from(unix_ms(SystemTime::now())).unwrap();
        let info = ParticipantInfo { sid: sid.clone(), joined_at_ms, ..info };
        let room = state.rooms.entry(room.to_owned()).or_insert_with(|| FakeRoom::new(room));
        room.participants.insert(info.identity.clone(), info);
        sid
    }

    pub(crate) fn room(&self, name: &str) -> Option<FakeRoom> {
        self.state.lock().rooms.get(name).cloned()
    }

    pub(crate) fn participants(&self, room: &str) -> Vec<String> {
        self.room(room).map(|room| room.participants.into_keys().collect()).unwrap_or_default()
    }

    /// Whether a participant may publish tracks; `None` if its permissions were never set.
    pub(crate) fn may_publish(&self, room: &str, identity: &str) -> Option<bool> {
        let room = self.room(room)?;
        Some(room.participants.get(identity)?.permission.as_ref()?.can_publish)
    }

    /// Forgets all rooms, as a restarted server does.
    pub(crate) fn restart(&self) {
        self.state.lock().rooms.clear();
    }

    pub(crate) fn requests(&self, call: &str) -> u32 {
        self.state.lock().requests.get(call).copied().unwrap_or_default()
    }
}

impl FakeRoom {
    fn new(name: &str) -> Self {
        let request = CreateRoomRequest { name: name.to_owned(), ..CreateRoomRequest::default() };
        Self { request, participants: BTreeMap::new() }
    }
}

async fn serve(State(server): State<FakeServer>, Path(call): Path<String>, body: Bytes) -> Response {
    let delay = {
        let mut state = server.state.lock();
        *state.requests.entry(call.clone()).or_default() += 1;
        state.delays.get(&call).copied().unwrap_or_default()
    };
    time::sleep(delay).await;
    let mut state = server.state.lock();
    if state.refuses_key {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if state.failing.contains(&call) {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "internal");
    }
    match call.as_str() {
        "ListRooms" => {
            let room = |(name, room): (&String, &FakeRoom)| Room {
                name: name.clone(),
                num_participants: room.participants.len() as u32,
                ..Room::default()
            };
            reply(&ListRoomsResponse { rooms: state.rooms.iter().map(room).collect() })
        }
        "CreateRoom" => {
            let request = CreateRoomRequest::decode(body).unwrap();
            let (name, participants) = (request.name.clone(), BTreeMap::new());
            state.rooms.entry(name.clone()).or_insert(FakeRoom { request, participants });
            reply(&Room { name, ..Room::default() })
        }
        "DeleteRoom" => {
            let DeleteRoomRequest { room } = DeleteRoomRequest::decode(body).unwrap();
            match state.rooms.remove(&room) {
                Some(_) => reply(&()),
                None => error(StatusCode::NOT_FOUND, "not_found"),
            }
        }
        "ListParticipants" => {
            let ListParticipantsRequest { room } = ListParticipantsRequest::decode(body).unwrap();
            match state.rooms.get(&room) {
                Some(room) => {
                    let participants = room.participants.values().cloned().collect();
                    reply(&ListParticipantsResponse { participants })
                }
                None => error(StatusCode::NOT_FOUND, "not_found"),
            }
        }
        "RemoveParticipant" => {
            let RoomParticipantIdentity { room, identity, .. } =
                RoomParticipantIdentity::decode(body).unwrap();
            match state.rooms.get_mut(&room).and_then(|room| room.participants.remove(&identity)) {
                Some(_) => reply(&()),
                None => error(StatusCode::NOT_FOUND, "not_found"),
            }
        }
        "UpdateParticipant" => {
            let request = UpdateParticipantRequest::decode(body).unwrap();
            let room = state.rooms.get_mut(&request.room);
            match room.and_then(|room| room.participants.get_mut(&request.identity)) {
                Some(participant) => {
                    participant.permission = request.permission;
                    reply(participant)
                }
                None => error(StatusCode::NOT_FOUND, "not_found"),
            }
        }
        _ => panic!("an unexpected call: {call}"),
    }
}

fn reply(message: &impl Message) -> Response {
    ([(header::CONTENT_TYPE, "application/protobuf")], message.encode_to_vec()).into_response()
}

fn error(status: StatusCode, code: &str) -> Response {
    (status, format!("{{\"code\":\"{code}\",\"msg\":\"\"}}")).into_response()
}
