//! The reasons for which a participation ends.

use std::fmt;

use livekit_protocol::DisconnectReason;

/// The reason for which a participation ended. It prints as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaveReason {
    /// The participant itself left.
    Left,
    /// Another client joined with the same identity. Joining again would remove that client in turn.
    DuplicateIdentity,
    /// The server shuts down.
    ServerShutdown,
    /// The API removed the participant. Its token is still valid.
    Removed,
    /// The API deleted the room.
    RoomDeleted,
    /// The server does not know the session that the participant resumes.
    StateMismatch,
    /// The server received no connection of the participant in time.
    JoinFailure,
    /// The server moves the participant to another one.
    Migration,
    /// The signalling socket was closed before the connections were established.
    SignalClosed,
    /// The room was closed, because its last standard participant had left.
    RoomClosed,
    /// The server received nothing of the participant for too long.
    ConnectionTimeout,
    /// The server received no media of the participant.
    MediaFailure,
    /// A reason that concerns no participant of this kind, or one that this build does not know: LiveKit's number.
    Other(i32),
    /// The connection was lost and could not be restored in time: the last error.
    Lost(String),
}

impl LeaveReason {
    /// The reason of a Leave message.
    pub(crate) fn from_number(number: i32) -> Self {
        match DisconnectReason::try_from(number) {
            Ok(DisconnectReason::ClientInitiated) => Self::Left,
            Ok(DisconnectReason::DuplicateIdentity) => Self::DuplicateIdentity,
            Ok(DisconnectReason::ServerShutdown) => Self::ServerShutdown,
            Ok(DisconnectReason::ParticipantRemoved) => Self::Removed,
            Ok(DisconnectReason::RoomDeleted) => Self::RoomDeleted,
            Ok(DisconnectReason::StateMismatch) => Self::StateMismatch,
            Ok(DisconnectReason::JoinFailure) => Self::JoinFailure,
            Ok(DisconnectReason::Migration) => Self::Migration,
            Ok(DisconnectReason::SignalClose) => Self::SignalClosed,
            Ok(DisconnectReason::RoomClosed) => Self::RoomClosed,
            Ok(DisconnectReason::ConnectionTimeout) => Self::ConnectionTimeout,
            Ok(DisconnectReason::MediaFailure) => Self::MediaFailure,
            _ => Self::Other(number),
        }
    }
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Left => "left",
            Self::DuplicateIdentity => "another client joined with the same identity",
            Self::ServerShutdown => "the LiveKit server shuts down",
            Self::Removed => "removed from the room",
            Self::RoomDeleted => "the room was deleted",
            Self::StateMismatch => "the LiveKit server does not know the session",
            Self::JoinFailure => "the LiveKit server received no connection in time",
            Self::Migration => "the LiveKit server moves its participants to another one",
            Self::SignalClosed => "the signalling socket was closed too early",
            Self::RoomClosed => "the room was closed, because its last participant had left",
            Self::ConnectionTimeout => "the LiveKit server received nothing for too long",
            Self::MediaFailure => "the LiveKit server received no media",
            Self::Other(number) => return write!(f, "ended by the LiveKit server with reason {number}"),
            Self::Lost(error) => return write!(f, "connection lost: {error}"),
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_of_every_number_is_distinct() {
        let reasons: Vec<LeaveReason> = (1..=20).map(LeaveReason::from_number).collect();
        for (index, reason) in reasons.iter().enumerate() {
            assert!(!reasons[..index].contains(reason), "{reason:?}");
            assert!(
                !reasons[..index].iter().any(|other| other.to_string() == reason.to_string()),
                "{reason}"
            );
        }
        assert_eq!(reasons[1], LeaveReason::DuplicateIdentity);
        assert_eq!(reasons[2], LeaveReason::ServerShutdown);
        assert_eq!(reasons[3], LeaveReason::Removed);
        assert_eq!(reasons[4], LeaveReason::RoomDeleted);
        assert_eq!(LeaveReason::from_number(99), LeaveReason::Other(99), "of a newer server");
        assert_eq!(LeaveReason::from_number(0), LeaveReason::Other(0), "unknown");
    }
}
