//! The errors of a mesh peer.

use thiserror::Error;

/// The reason for which a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The packet has this many bytes with its envelope, which is more than [`super::MAX_PACKET_BYTES`].
    #[error("the message is too large: {0} bytes with its envelope")]
    TooLarge(usize),
    /// The queue of the channel is full. A later message may be sent.
    #[error("the send queue is full")]
    QueueFull,
    /// The peer was closed.
    #[error("closed")]
    Closed,
}

/// The reason for which an input was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InputError {
    /// 256 inputs are queued. A dropped signal costs an attempt to link; a dropped plan must be repeated.
    #[error("the input queue is full")]
    QueueFull,
    /// The peer was closed.
    #[error("closed")]
    Closed,
}
