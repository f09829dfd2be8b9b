//! The reasons for which connections end, and whether to retry.

use std::{fmt, time::Duration};

use protocol::Close;

/// The reason for which a connection ended or could not be established. It prints as a sentence for users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disconnect {
    /// The client itself closed the connection.
    Left,
    /// The server closed the connection.
    Closed {
        /// The close code. [`Close`] has most of them.
        code: u16,
        /// The reason in the close frame.
        reason: String,
    },
    /// The server refused to open a WebSocket.
    Refused {
        /// The status of the HTTP response.
        status: u16,
        /// The time to wait before the next attempt, if the server sent one.
        retry_after: Option<Duration>,
    },
    /// A LiveKit server removed the client from its room, or deleted the room: the reason. The next assignment brings
    /// another token.
    Removed(String),
    /// Another client of this wallet entered the LiveKit room. Entering again would remove that client in turn.
    Replaced,
    /// The connection was lost or could not be established, or the server violated the protocol.
    Broken(String),
}

/// The 4xx statuses after which a client may retry: 408 Request Timeout, 425 Too Early, 429 Too Many
/// Requests.
const RETRYABLE_STATUSES: [u16; 3] = [408, 425, 429];

const UNAUTHORIZED: u16 = 401;

impl Disconnect {
    /// Whether the client should retry by itself.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Left | Self::Removed(_) | Self::Replaced => false,
            Self::Closed { code, .. } => Close::from_code(*code).is_none_or(Close::should_reconnect),
            Self::Refused { status, .. } => {
                !(400..500).contains(status) || RETRYABLE_STATUSES.contains(status)
            }
            Self::Broken(_) => true,
        }
    }

    /// The time to wait before the next attempt, if the server sent one.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether a room rejected the token, or revoked it after admission. A newer token may be accepted.
    pub(crate) fn is_token_rejected(&self) -> bool {
        match self {
            Self::Closed { code, .. } if *code == Close::Moved.code() => true,
            Self::Removed(_) => true,
            _ => self.is_token_refused(),
        }
    }

    /// Whether a room refused the token: a WebSocket room with a close code, a LiveKit server with an HTTP status.
    pub(crate) fn is_token_refused(&self) -> bool {
        match self {
            Self::Closed { code, .. } => *code == Close::TokenRefused.code(),
            Self::Refused { status, .. } => *status == UNAUTHORIZED,
            _ => false,
        }
    }

    pub(crate) fn broken(error: impl fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }

    pub(crate) fn from_close(close: Close) -> Self {
        Self::Closed { code: close.code(), reason: close.reason().to_owned() }
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("left"),
            Self::Closed { code, reason } => {
                write!(f, "closed by the server: {reason} ({code})")?;
                match Close::from_code(*code) {
                    Some(close) => write!(f, "; {}", explanation(close)),
                    None => Ok(()),
                }
            }
            Self::Refused { status, retry_after: Some(after) } => {
                write!(f, "refused by the server: HTTP status {status}, retry in {after:?}")
            }
            Self::Refused { status, retry_after: None } => {
                write!(f, "refused by the server: HTTP status {status}")
            }
            Self::Removed(reason) => write!(f, "ended by the LiveKit server: {reason}"),
            Self::Replaced => f.write_str("another client of this wallet entered the room"),
            Self::Broken(error) => write!(f, "connection broken: {error}"),
        }
    }
}

/// The meaning of a close code for the user of the client.
fn explanation(close: Close) -> &'static str {
    match close {
        Close::ProtocolError | Close::TextFrame | Close::Undecodable | Close::OutOfOrder => {
            "this client sent something that the server does not accept"
        }
        Close::TooBig => "this client sent a message that is too large",
        Close::Restarting => "another server, or the next one, takes over",
        Close::Full => "there is no capacity for now",
        Close::HandshakeTimeout => "this client, or its network, was too slow to sign in",
        Close::AuthRefused => "this wallet has to sign in in another way",
        Close::NewSession => "this wallet is signed in elsewhere, and reconnecting would end that session",
        Close::Silent => "the network connection was interrupted for a while",
        Close::Idle => "this client sent no heartbeat for too long",
        Close::TooSlow => "this client, or its network, is too slow for the messages that it receives",
        Close::AlreadySignedIn => {
            "this wallet is signed in elsewhere, and that session is kept while it lives"
        }
        Close::TokenRefused => "the gateway has to send a new token",
        Close::UnknownRoom => "there is no such room for this client",
        Close::RoomFull => "there is no seat for now",
        Close::Moved => "this client has been assigned another room",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_explains_every_close_and_retry_follows_the_code() {
        for close in Close::ALL {
            let disconnect = Disconnect::from_close(close);
            assert_eq!(disconnect.is_retryable(), close.should_reconnect());
            let text = disconnect.to_string();
            assert!(text.contains(close.reason()) && text.contains(explanation(close)), "{text}");
        }
        let rejected = |status, retry_after| Disconnect::Refused { status, retry_after };
        let text = rejected(503, Some(Duration::from_secs(3))).to_string();
        assert_eq!(text, "refused by the server: HTTP status 503, retry in 3s");
        for (status, retryable) in [(503, true), (429, true), (404, false), (426, false), (301, true)] {
            assert_eq!(rejected(status, None).is_retryable(), retryable, "{status}");
        }
    }
}
