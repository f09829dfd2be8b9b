//! Events of rooms and participants.

use super::fields::Fields;

pub use livekit_protocol::{
    DisconnectReason,
    participant_info::{Kind, State},
};

/// An event of a LiveKit server, with the fields that this project uses. Other fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identifies the event: a repeated delivery has the same id. Empty if the server sent none.
    pub id: String,
    /// The kind of event.
    pub kind: EventKind,
    /// When the event happened, in seconds since the Unix epoch by the clock of the server; 0 if not known.
    pub created_at_s: u64,
    /// The room that the event is about.
    pub room: Option<EventRoom>,
    /// The participant that the event is about.
    pub participant: Option<EventParticipant>,
}

/// The kind of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// `room_started`: a room was created.
    RoomStarted,
    /// `room_finished`: a room was closed.
    RoomFinished,
    /// `participant_joined`: a participant has connected. It arrives 60 ms to 420 ms later.
    ParticipantJoined,
    /// `participant_left`: a participant that had connected is no longer in the room.
    ParticipantLeft,
    /// `participant_connection_aborted`: a participant left before it had connected.
    ParticipantConnectionAborted,
    /// `track_published`: a participant publishes a track. The event contains only its identity and sid.
    TrackPublished,
    /// `track_unpublished`: a participant has ended a track. The event contains only its identity and sid.
    TrackUnpublished,
    /// Another kind, by its name.
    Other(String),
}

/// The room of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventRoom {
    /// Its name.
    pub name: String,
    /// Its id on the server: a room that is created again under the same name has another one.
    pub sid: String,
    /// The number of participants. The server updates it about every 5 s.
    pub participant_count: u32,
}

/// The participant of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventParticipant {
    /// Its identity, which is unique in the room at any time.
    pub identity: String,
    /// Its id on the server: the same identity has another one each time it joins.
    pub sid: String,
    /// When it joined, in milliseconds since the Unix epoch by the clock of the server; 0 if not known. Servers
    /// without `joinedAtMs` report whole seconds.
    pub joined_ms: u64,
    /// Its kind. `None`: a kind that this version does not know.
    pub kind: Option<Kind>,
    /// Whether it is hidden from the other participants.
    pub hidden: bool,
    /// Its state. `None`: a state that this version does not know.
    pub state: Option<State>,
    /// Why it left, in events about that. `None`: a reason that this version does not know.
    pub disconnect_reason: Option<DisconnectReason>,
}

impl Event {
    /// Parses the body of a request.
    ///
    /// # Errors
    ///
    /// The body is no JSON object, has no `event`, or a field has another type. The text names the field.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let fields = Fields::of(&value)?;
        let kind = fields.text("event")?;
        if kind.is_empty() {
            return Err("event is missing".to_owned());
        }
        Ok(Self {
            id: fields.text("id")?,
            kind: kind.into(),
            created_at_s: fields.integer("createdAt")?,
            room: fields.message("room", "room.")?.map(room).transpose()?,
            participant: fields.message("participant", "participant.")?.map(participant).transpose()?,
        })
    }
}

fn room(fields: Fields<'_>) -> Result<EventRoom, String> {
    let count = fields.integer("numParticipants")?;
    Ok(EventRoom {
        name: fields.text("name")?,
        sid: fields.text("sid")?,
        participant_count: u32::try_from(count).unwrap_or(u32::MAX),
    })
}

fn participant(fields: Fields<'_>) -> Result<EventParticipant, String> {
    let permission = fields.message("permission", "participant.permission.")?;
    Ok(EventParticipant {
        identity: fields.text("identity")?,
        sid: fields.text("sid")?,
        joined_ms: join_time_ms(fields.integer("joinedAtMs")?, fields.integer("joinedAt")?),
        kind: fields.enumeration("kind", Kind::from_str_name)?,
        hidden: permission.map_or(Ok(false), |permission| permission.flag("hidden"))?,
        state: fields.enumeration("state", State::from_str_name)?,
        disconnect_reason: fields.enumeration("disconnectReason", DisconnectReason::from_str_name)?,
    })
}

/// The time at which a participant joined, in milliseconds. Older servers report only seconds.
pub(in crate::livekit) fn join_time_ms(joined_at_ms: u64, joined_at_s: u64) -> u64 {
    if joined_at_ms > 0 { joined_at_ms } else { joined_at_s.saturating_mul(1_000) }
}

impl From<String> for EventKind {
    fn from(name: String) -> Self {
        match name.as_str() {
            "room_started" => Self::RoomStarted,
            "room_finished" => Self::RoomFinished,
            "participant_joined" => Self::ParticipantJoined,
            "participant_left" => Self::ParticipantLeft,
            "participant_connection_aborted" => Self::ParticipantConnectionAborted,
            "track_published" => Self::TrackPublished,
            "track_unpublished" => Self::TrackUnpublished,
            _ => Self::Other(name),
        }
    }
}
