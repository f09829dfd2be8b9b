//! Messages to a session from other tasks, and the bounded queue that carries them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use protocol::{Close, IslandId, NodeName, SystemTopic};
use tokio::sync::mpsc::{self, error::TrySendError};

/// A message to a session, to be sent to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionMessage {
    /// The session has a new assignment.
    IslandChanged(IslandChange),
    /// Another peer joined or left the island of the session.
    MemberChanged(Arc<MemberChange>),
}

/// A new assignment of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IslandChange {
    pub(crate) island: IslandId,
    /// The node of the room, if the director named it.
    pub(crate) node: Option<NodeName>,
    /// An encoded `IslandChangedMessage`.
    pub(crate) message: Bytes,
}

/// A peer joined or left an island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberChange {
    /// Whether the peer joined; otherwise it left.
    pub(crate) joined: bool,
    /// The system topic under which clients subscribe to the change.
    pub(crate) topic: SystemTopic,
    /// An encoded `JoinIslandMessage` or `LeftIslandMessage`.
    pub(crate) message: Bytes,
}

/// Bound of the message queue of one session. If an island change finds the queue full, the session ends,
/// because it must not miss its assignment.
pub(crate) const SESSION_QUEUE_MESSAGES: usize = 256;
/// Part of the queue that is reserved for island changes. A member change that would use it is dropped and
/// counted; the client learns of members from its room, too.
pub(crate) const RESERVED_FOR_ISLAND_CHANGES: usize = 32;

/// The sending end of a session. Dropping it ends the session.
#[derive(Debug)]
pub(crate) struct SessionSender {
    messages: mpsc::Sender<SessionMessage>,
    close_reason: Arc<OnceLock<Close>>,
}

/// The receiving end of a session: its queued messages, then the close code that ends it.
#[derive(Debug)]
pub(crate) struct SessionReceiver {
    messages: mpsc::Receiver<SessionMessage>,
    close_reason: Arc<OnceLock<Close>>,
}

/// A message found the queue of its session full.
#[derive(Debug)]
pub(crate) struct QueueFull;

/// Creates the message queue of a session.
pub(crate) fn session_queue() -> (SessionSender, SessionReceiver) {
    let (sender, receiver) = mpsc::channel(SESSION_QUEUE_MESSAGES);
    let close_reason = Arc::new(OnceLock::new());
    (
        SessionSender { messages: sender, close_reason: close_reason.clone() },
        SessionReceiver { messages: receiver, close_reason },
    )
}

impl SessionSender {
    /// Queues an island change. Does nothing if the session's task has ended already.
    pub(crate) fn send_island_change(&self, change: IslandChange) -> Result<(), QueueFull> {
        match self.messages.try_send(SessionMessage::IslandChanged(change)) {
            Err(TrySendError::Full(_)) => Err(QueueFull),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Queues a member change, unless only the reserved part of the queue is free. Returns whether it was
    /// queued.
    pub(crate) fn send_member_change(&self, change: &Arc<MemberChange>) -> bool {
        self.messages.capacity() > RESERVED_FOR_ISLAND_CHANGES
            && self.messages.try_send(SessionMessage::MemberChanged(change.clone())).is_ok()
    }

    /// Ends the session with this close code. Its queued messages are still sent before the close.
    pub(crate) fn close(self, close: Close) {
        // The reason cannot be set already: this consumes the only sender.
        let _ = self.close_reason.set(close);
    }
}

impl SessionReceiver {
    /// The next message, or the close code once the registry has ended the session and the queue is empty.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<SessionMessage, Close> {
        match self.messages.recv().await {
            Some(message) => Ok(message),
            // The sender was dropped without a close reason: the queue overflowed.
            None => Err(self.close_reason.get().copied().unwrap_or(Close::TooSlow)),
        }
    }
}
