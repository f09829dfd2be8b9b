//! The room service of a LiveKit server: its rooms, and their participants.

use std::{error::Error, time::Duration};

use livekit_api::services::{
    ServerError, ServerErrorCode, ServiceError, ServiceResult,
    room::{CreateRoomOptions, RoomClient, UpdateParticipantOptions},
};
use livekit_protocol::ParticipantInfo;
use protocol::{MediaGrants, RoomName};
use tokio::time;

use super::{
    keys::Keys,
    occupancy::{Participant, snapshot},
    permissions::{media_of, participant_permission},
    room_options::RoomOptions,
};

/// A client of the room service of one server (`/twirp/livekit.RoomService/…`).
#[derive(Debug)]
pub struct ApiClient {
    client: RoomClient,
    timeout: Duration,
}

/// A participant in the server's list of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedParticipant {
    /// The participant.
    pub participant: Participant,
    /// The media that it may publish.
    pub media: MediaGrants,
}

/// Why a call failed. It contains only the kind of the server's error and none of its text, which may repeat
/// a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No reply in time.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// There is no connection, or it broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The server refuses the key or its secret.
    #[error("it refuses the API key or the secret")]
    Refused,
    /// There is no such room or participant.
    #[error("it has no such room or participant")]
    NotFound,
    /// The server failed.
    #[error("it replied with an internal error")]
    Failed,
    /// Neither a LiveKit reply nor a LiveKit error. Servers refuse a key in plain text, too.
    #[error("its reply is not one of a LiveKit server, or it refuses the API key or the secret")]
    InvalidResponse,
}

/// The timeout error of the library looks like that of an unreachable server, so the timeout of a client is shorter.
const LIBRARY_MARGIN: Duration = Duration::from_secs(1);

impl ApiClient {
    /// A client of the server with its API at `api_url` (`http://host:port` or `https://host`). Each call
    /// fails after `timeout`.
    pub fn new(api_url: &str, keys: &Keys, timeout: Duration) -> Self {
        // Without failover: a reply of another region's server would prove nothing about this one.
        let client = RoomClient::with_api_key(api_url, &keys.api_key, &keys.api_secret)
            .with_failover(false)
            .with_request_timeout(timeout.saturating_add(LIBRARY_MARGIN));
        Self { client, timeout }
    }

    /// The names of the rooms of the server.
    pub async fn rooms(&self) -> Result<Vec<String>, ApiError> {
        let rooms = self.call(self.client.list_rooms(Vec::new())).await?;
        Ok(rooms.into_iter().map(|room| room.name).collect())
    }

    /// Creates a room. Succeeds if it exists already, and then leaves its options as they are.
    pub async fn create_room(&self, room: &RoomName, options: &RoomOptions) -> Result<(), ApiError> {
        let options = CreateRoomOptions {
            empty_timeout: options.empty_timeout_s,
            departure_timeout: options.departure_timeout_s,
            max_participants: options.max_participants,
            metadata: options.metadata.clone(),
            ..CreateRoomOptions::default()
        };
        self.call(self.client.create_room(room.as_str(), options)).await.map(drop)
    }

    /// Deletes a room and disconnects its participants. Succeeds if there is none.
    pub async fn delete_room(&self, room: &RoomName) -> Result<(), ApiError> {
        absent_is_done(self.call(self.client.delete_room(room.as_str())).await)
    }

    /// The participants of a room; none if there is no such room.
    pub async fn participants(&self, room: &RoomName) -> Result<Vec<ListedParticipant>, ApiError> {
        match self.call(self.client.list_participants(room.as_str())).await {
            Ok(participants) => Ok(participants.iter().flat_map(listed).collect()),
            Err(ApiError::NotFound) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Lets the participant with this identity publish exactly this media. Succeeds if there is none. The
    /// participant has the permissions of its token again when it joins again.
    pub async fn set_media(
        &self,
        room: &RoomName,
        identity: &str,
        media: MediaGrants,
    ) -> Result<(), ApiError> {
        let permission = Some(participant_permission(media));
        let options = UpdateParticipantOptions { permission, ..UpdateParticipantOptions::default() };
        let call = self.client.update_participant(room.as_str(), identity, options);
        absent_is_done(self.call(call).await.map(drop))
    }

    /// Disconnects the participant with this identity from a room. Succeeds if there is none. The token of the
    /// participant remains valid.
    pub async fn remove_participant(&self, room: &RoomName, identity: &str) -> Result<(), ApiError> {
        absent_is_done(self.call(self.client.remove_participant(room.as_str(), identity)).await)
    }

    async fn call<T>(&self, call: impl Future<Output = ServiceResult<T>>) -> Result<T, ApiError> {
        let reply = time::timeout(self.timeout, call).await;
        Ok(reply.map_err(|_| ApiError::TimedOut(self.timeout))??)
    }
}

/// `None` for a participant that has disconnected already.
fn listed(info: &ParticipantInfo) -> Option<ListedParticipant> {
    let participant = snapshot(std::slice::from_ref(info)).pop()?;
    let media = info.permission.as_ref().map(media_of).unwrap_or_default();
    Some(ListedParticipant { participant, media })
}

fn absent_is_done(result: Result<(), ApiError>) -> Result<(), ApiError> {
    if result == Err(ApiError::NotFound) { Ok(()) } else { result }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Twirp(ServerError::Twirp(error)) => match error.code.as_str() {
                ServerErrorCode::UNAUTHENTICATED | ServerErrorCode::PERMISSION_DENIED => Self::Refused,
                ServerErrorCode::NOT_FOUND => Self::NotFound,
                _ => Self::Failed,
            },
            ServiceError::Twirp(ServerError::Request(error)) if !error.is_decode() => {
                Self::Unreachable(root_cause(&error))
            }
            ServiceError::Twirp(ServerError::Url(error)) => Self::Unreachable(error.to_string()),
            ServiceError::Twirp(_) => Self::InvalidResponse,
            // No token could be signed with them.
            ServiceError::AccessToken(_) | ServiceError::Env(_) => Self::Refused,
        }
    }
}

fn root_cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::livekit::stub::{Behaviour, LONG_TIMEOUT, SHORT_TIMEOUT, Stub, keys};

    #[tokio::test]
    async fn rooms_are_listed_or_the_error_is_named() {
        let server = Stub::start(Behaviour::Answers).await;
        let api = server.client(LONG_TIMEOUT);
        assert_eq!(api.rooms().await.unwrap(), ["I1", "I2", "I3"]);
        for (behaviour, error) in [
            (Behaviour::RefusesInJson, ApiError::Refused),
            (Behaviour::RefusesInText, ApiError::InvalidResponse),
            (Behaviour::Fails, ApiError::Failed),
        ] {
            server.set_behaviour(behaviour);
            let actual = api.rooms().await.unwrap_err();
            assert!(!actual.to_string().contains("eyJ"), "{actual}");
            assert_eq!(actual, error, "{behaviour:?}");
        }
        server.set_behaviour(Behaviour::Hangs);
        assert_eq!(server.client(SHORT_TIMEOUT).rooms().await, Err(ApiError::TimedOut(SHORT_TIMEOUT)));
    }

    #[tokio::test]
    async fn absent_room_or_participant_is_no_error() {
        let server = Stub::start(Behaviour::HasNone).await;
        let (api, room) = (server.client(LONG_TIMEOUT), "I1".parse().unwrap());
        assert_eq!(api.delete_room(&room).await, Ok(()));
        assert_eq!(api.remove_participant(&room, "0x01").await, Ok(()));
        assert_eq!(api.participants(&room).await, Ok(Vec::new()));
        assert_eq!(api.rooms().await, Err(ApiError::NotFound), "a server always has a list of rooms");
    }

    #[tokio::test]
    async fn unreachable_server_is_reported_with_the_cause() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = ApiClient::new(&url, &keys(), LONG_TIMEOUT).rooms().await.unwrap_err();
        assert!(matches!(&error, ApiError::Unreachable(cause) if cause.contains("refused")), "{error}");
        let error = ApiClient::new("nowhere", &keys(), LONG_TIMEOUT).rooms().await.unwrap_err();
        assert!(matches!(error, ApiError::Unreachable(_)), "{error}");
    }

    #[test]
    fn debug_output_of_a_client_hides_the_secret() {
        let client = ApiClient::new("http://127.0.0.1:9", &Keys::new("key", "hush"), LONG_TIMEOUT);
        let shown = format!("{client:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }
}
