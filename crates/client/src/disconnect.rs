use std::{fmt, time::Duration};

use protocol::Close;

/// Why a connection ended, or did not come about. Printed, it is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disconnect {
    /// The explorer itself went.
    Left,
    /// The server closed it.
    Closed {
        /// The close code, [`Close`] for most.
        code: u16,
        /// What the server said.
        reason: String,
    },
    /// The server refused to open it.
    Refused {
        /// The status of its HTTP answer.
        status: u16,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// It broke, or did not come about.
    Broken(String),
}

/// Statuses of the 4xx by which a server asks for patience: 408 Request Timeout, 425 Too Early,
/// 429 Too Many Requests.
const RETRYABLE_STATUSES: [u16; 3] = [408, 425, 429];

impl Disconnect {
    /// Whether to try again by itself.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Left => false,
            Self::Closed { code, .. } => Close::from_code(*code).is_none_or(Close::should_reconnect),
            Self::Refused { status, .. } => {
                !(400..500).contains(status) || RETRYABLE_STATUSES.contains(status)
            }
            Self::Broken(_) => true,
        }
    }

    /// When the server wants to be asked again, if it said so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether a room let go of the token with which it was entered, and may take another.
    pub(crate) fn is_token_rejected(&self) -> bool {
        let codes = [Close::TokenRefused, Close::Moved].map(Close::code);
        matches!(self, Self::Closed { code, .. } if codes.contains(code))
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
                write!(f, "refused by the server: HTTP status {status}, to be asked again in {after:?}")
            }
            Self::Refused { status, retry_after: None } => {
                write!(f, "refused by the server: HTTP status {status}")
            }
            Self::Broken(error) => write!(f, "connection broken: {error}"),
        }
    }
}

/// What a close means to whoever runs the client.
fn explanation(close: Close) -> &'static str {
    match close {
        Close::ProtocolError | Close::TextFrame | Close::Undecodable | Close::OutOfOrder => {
            "this client said something that it should not"
        }
        Close::TooBig => "this client said too much at once",
        Close::Restarting => "another server, or the next one, takes over",
        Close::Full => "there is no room for now",
        Close::HandshakeTimeout => "this client, or its line, was too slow to sign in",
        Close::AuthRefused => "this wallet has to sign in in another way",
        Close::NewSession => "this wallet is signed in elsewhere, and coming back would end that session",
        Close::Silent => "the line was dead for a while",
        Close::Idle => "this client never said where it is, or not for too long",
        Close::TooSlow => "this client, or its line, is too slow for what is said",
        Close::AlreadySignedIn => {
            "this wallet is signed in elsewhere, and that session is kept while it lives"
        }
        Close::TokenRefused => "the gateway has to name the room again",
        Close::UnknownRoom => "there is no such room for this client",
        Close::RoomFull => "there is no seat for now",
        Close::Moved => "its island is elsewhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_explains_every_close_and_retry_follows_the_code() {
        for close in Close::ALL {
            let ended = Disconnect::from_close(close);
            assert_eq!(ended.is_retryable(), close.should_reconnect());
            let text = ended.to_string();
            assert!(text.contains(close.reason()) && text.contains(explanation(close)), "{text}");
        }
        let rejected = |status, retry_after| Disconnect::Refused { status, retry_after };
        let text = rejected(503, Some(Duration::from_secs(3))).to_string();
        assert_eq!(text, "refused by the server: HTTP status 503, to be asked again in 3s");
        for (status, retryable) in [(503, true), (429, true), (404, false), (426, false), (301, true)] {
            assert_eq!(rejected(status, None).is_retryable(), retryable, "{status}");
        }
    }
}
