//! A subscription to topics: its events, and the two ends of its queue.

use bytes::Bytes;
use protocol::{Address, Message, Topic, bff::PeerTopicSubscriptionResultElem};
use tokio::sync::{mpsc, oneshot};

/// The capacity of the queue of a subscription.
const EVENT_QUEUE: usize = 64;

/// An event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicEvent {
    /// A message was published.
    Message(TopicMessage),
    /// The client was disconnected and has subscribed again. Messages that were published meanwhile are lost.
    Gap,
    /// The gateway ended the subscription, for this reason. It is the last event.
    Ended(String),
}

/// A message on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMessage {
    /// The topic.
    pub topic: Topic,
    /// The publisher, as authenticated by its gateway; `None` for a server that published in a scene.
    pub sender: Option<Address>,
    /// The payload.
    pub payload: Bytes,
    /// The number of messages that the gateway dropped directly before this one, because the client read too
    /// slowly.
    pub missed: u64,
}

impl TopicMessage {
    /// Decodes an element of a subscription; `None` if it is malformed.
    pub(crate) fn decode(payload: Bytes) -> Option<Self> {
        let element = PeerTopicSubscriptionResultElem::decode(payload).ok()?;
        let PeerTopicSubscriptionResultElem { payload, topic, sender, missed } = element;
        let sender = if sender.is_empty() { None } else { Some(sender.parse().ok()?) };
        Some(Self { topic: topic.parse().ok()?, sender, payload, missed })
    }
}

/// The reason for which a message was not published, or a subscription failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// The client uses [`crate::Dialect::Archipelago`], which has no topics.
    #[error("topics need the RPC dialect")]
    NeedsRpc,
    /// The text is not a topic, or not a pattern.
    #[error(transparent)]
    Malformed(#[from] protocol::TopicError),
    /// The client is not signed in at the moment.
    #[error("not signed in")]
    NotSignedIn,
    /// The gateway refused, for this reason.
    #[error("refused by the gateway: {0}")]
    Refused(String),
    /// The connection was lost before the gateway answered. The gateway may or may not have processed the
    /// request.
    #[error("the connection was lost before the gateway answered")]
    Unanswered,
    /// The [`crate::Explorer`] has stopped.
    #[error("the client has stopped")]
    ExplorerStopped,
}

/// A subscription to topics, until it is dropped. Its queue holds 64 events. When it is full, messages stay
/// in the backlog of the gateway, which drops the newest ones and counts them.
#[derive(Debug)]
pub struct Subscription {
    events: mpsc::Receiver<TopicEvent>,
    /// Dropping it notifies the other end.
    _alive: oneshot::Sender<()>,
}

impl Subscription {
    /// The next event; `None` after the client has stopped, or after the subscription has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<TopicEvent> {
        self.events.recv().await
    }
}

/// The other end of a [`Subscription`].
#[derive(Debug)]
pub(crate) struct EventSink {
    pub(crate) events: mpsc::Sender<TopicEvent>,
    /// Resolves when the subscription is dropped.
    pub(crate) dropped: oneshot::Receiver<()>,
}

/// A subscription, and the sink that feeds it.
pub(crate) fn channel() -> (Subscription, EventSink) {
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let (alive, dropped) = oneshot::channel();
    (Subscription { events, _alive: alive }, EventSink { events: sender, dropped })
}
