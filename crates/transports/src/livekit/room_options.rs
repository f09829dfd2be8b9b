//! The options of a LiveKit room.

use livekit_protocol::RoomConfiguration;

/// The options with which a room is created: by the room service, or by the token of its first participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomOptions {
    /// The largest number of participants. The server refuses further ones.
    pub max_participants: u32,
    /// The server closes a room that no participant has joined for this long, in seconds.
    pub empty_timeout_s: u32,
    /// The server closes a room that all participants left for this long, in seconds.
    pub departure_timeout_s: u32,
    /// Text that all participants and the operator's tools can read.
    pub metadata: String,
}

impl RoomOptions {
    /// The same, for a token.
    pub(crate) fn configuration(&self) -> RoomConfiguration {
        RoomConfiguration {
            max_participants: self.max_participants,
            empty_timeout: self.empty_timeout_s,
            departure_timeout: self.departure_timeout_s,
            metadata: self.metadata.clone(),
            ..RoomConfiguration::default()
        }
    }
}
