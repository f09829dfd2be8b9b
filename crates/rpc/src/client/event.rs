//! The results of calls, and the errors of a [`Caller`](super::Caller).

use bytes::Bytes;

use crate::Undecodable;

/// A result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server answered the call, which ends it.
    Answered {
        /// The number of the call.
        number: u32,
        /// The response, encoded.
        payload: Bytes,
    },
    /// The server answered the call, or ended its stream, with an error. The call has ended.
    Failed {
        /// The number of the call.
        number: u32,
        /// The error.
        error: CallError,
    },
    /// The server answered the call with a stream. Its first element must be requested with
    /// [`Caller::request_next`](super::Caller::request_next).
    Opened {
        /// The number of the call.
        number: u32,
    },
    /// The requested element of a stream.
    Element {
        /// The number of the call.
        number: u32,
        /// The payload, encoded.
        payload: Bytes,
    },
    /// The server ended the stream, which ends the call.
    Ended {
        /// The number of the call.
        number: u32,
    },
}

/// The error with which a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (error {code})")]
pub struct CallError {
    /// The kind of the error: an [`crate::ErrorCode`] for servers of this project.
    pub code: u32,
    /// A description for a log.
    pub message: String,
}

/// The server violated the protocol. The connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// A message without a valid identifier.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// A message that does not decode, or that only clients send.
    #[error("not a message of a server of dcl-rpc")]
    NotAServerMessage,
    /// A response of another kind than the request.
    #[error("the response does not match the request")]
    MismatchedResponse,
    /// An element that was not requested, or that is out of order.
    #[error("an element of a stream that was not requested")]
    UnrequestedElement,
}

/// As many calls are open as the client allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many open calls")]
pub struct TooManyCalls;
