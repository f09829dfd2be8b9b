//! The events of a participant.

use bytes::Bytes;

use super::leave_reason::LeaveReason;

/// Another participant of the room.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its identity, which the token determines. At most one participant of a room has it.
    pub identity: String,
    /// The id of its session. A participant that joins again has another one.
    pub sid: String,
}

/// A change in the room, or a received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The participant has joined, and its data channels are open. The first event.
    Joined {
        /// The name of the room.
        room: String,
        /// Its own identity and session.
        own: Member,
        /// The other participants that are visible.
        others: Vec<Member>,
    },
    /// Another participant joined. It precedes all data of that participant.
    ParticipantJoined(Member),
    /// Another participant left. Data that was in flight may follow.
    ParticipantLeft(Member),
    /// A message was received.
    Data(Data),
    /// The signalling socket or a connection is lost; the participant restores it. Reliable messages are queued
    /// meanwhile, and messages may still arrive.
    Reconnecting,
    /// The connection is restored. Joins and leaves of the meantime follow, or have arrived.
    Reconnected {
        /// Whether the session continues. Otherwise the participant joined again: it has another `sid`, and the other
        /// participants see it leave and join.
        resumed: bool,
        /// Its session.
        sid: String,
        /// The number of reliable messages that may be lost: the server had not acknowledged them. 0 after a
        /// resume.
        unconfirmed: usize,
    },
    /// The participation has ended. The last event.
    Left(LeaveReason),
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The sender; `None`: the API of the server sent it.
    pub sender: Option<Member>,
    /// The content.
    pub payload: Bytes,
    /// The topic, if the sender set one.
    pub topic: Option<String>,
    /// Whether it arrived on the reliable channel.
    pub reliable: bool,
}
