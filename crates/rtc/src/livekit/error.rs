//! The errors of a participant.

use thiserror::Error;

use super::leave_reason::LeaveReason;

/// The reason for which a participant could not join.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The URL is none of a LiveKit server.
    #[error("the URL of the LiveKit server is not usable: {0}")]
    Url(String),
    /// No connection to the server.
    #[error("the LiveKit server is not reachable: {0}")]
    Unreachable(String),
    /// The server refused the signalling socket: 401 for a token that is not valid (any more), 404 for a room that
    /// does not exist where participants create none, 500 for a room that is full, 503 for a server above its limits.
    #[error("refused by the LiveKit server: HTTP status {status} ({message})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The first 200 characters of the response.
        message: String,
    },
    /// The server did not answer in time, or no data channel was open in time: no network path was found.
    #[error("not joined in time: {0}")]
    Timeout(&'static str),
    /// The server ended the participation before it was complete.
    #[error("ended while joining: {0}")]
    Ended(LeaveReason),
    /// The server closed the signalling socket, or violated its protocol.
    #[error("signalling broken: {0}")]
    Signalling(String),
    /// A WebRTC connection could not be negotiated.
    #[error("WebRTC: {0}")]
    WebRtc(String),
}

impl JoinError {
    /// Whether a later attempt with the same token may succeed.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Url(_) => false,
            Self::Refused { status, .. } => !(400..500).contains(status) || *status == 429,
            _ => true,
        }
    }
}

impl From<webrtc::error::Error> for JoinError {
    fn from(error: webrtc::error::Error) -> Self {
        Self::WebRtc(error.to_string())
    }
}

/// The reason for which a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The packet has this many bytes with its envelope, which is more than
    /// [`super::MAX_PACKET_BYTES`].
    #[error("the message is too large: {0} bytes with its envelope")]
    TooLarge(usize),
    /// The queue of the channel is full. A later message may be sent.
    #[error("the send queue is full")]
    QueueFull,
    /// The participant has left, or, for a lossy message, is reconnecting.
    #[error("not connected")]
    NotConnected,
    /// The token does not permit to publish data.
    #[error("the token does not permit to publish data")]
    NotPermitted,
}
