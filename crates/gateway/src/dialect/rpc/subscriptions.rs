//! The subscriptions of one session, and the streams that carry their messages.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use protocol::{
    Address, Message, Topic, TopicError, TopicPattern,
    bff::{SetCommsAdapter, SystemTopicSubscriptionResultElem, WorldCommand, world_command},
    v3::IslandChangedMessage,
};
use rpc::ErrorCode;

use crate::{
    metrics,
    session::message::MemberChange,
    topics::{PublisherKind, TopicSubscription, Topics, queues::SubscriptionQueues, system_element},
};

/// The subscriptions of one session, by their ids.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    topics: Arc<Topics>,
    queues: Arc<SubscriptionQueues>,
    max: usize,
    by_id: HashMap<u32, Subscription>,
    /// The subscription id of each stream, by the number of its call.
    streams: HashMap<u32, u32>,
    last_id: u32,
    /// The newest island change, if the client had no subscription that could receive it.
    pending_island_change: Option<Bytes>,
}

#[derive(Debug)]
struct Subscription {
    source: Source,
    /// Whether the subscription outlives its stream, until it is cancelled.
    persistent: bool,
    stream: Option<u32>,
}

/// The messages that a subscription receives.
#[derive(Debug)]
enum Source {
    /// Island changes, as commands. Only the newest is kept.
    Commands,
    /// Island changes, as messages of the system topic of this name. Only the newest is kept.
    Island(String),
    /// Topic messages. Dropping the value unsubscribes.
    Topics(TopicSubscription),
}

/// The reason for which a subscription is rejected. The client is sent the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscriptionError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("this mailbox is another's")]
    ForeignMailbox,
    #[error("too many subscriptions")]
    TooMany,
    #[error("unknown subscription")]
    Unknown,
    #[error("a stream of this subscription is open")]
    StreamOpen,
}

impl SubscriptionError {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::Topic(_) => ErrorCode::BadPayload,
            Self::ForeignMailbox | Self::Unknown | Self::StreamOpen => ErrorCode::Refused,
            Self::TooMany => ErrorCode::LimitReached,
        }
    }
}

impl Subscriptions {
    /// No subscriptions; at most `max` later, each with a queue of at most `buffer` messages.
    pub(crate) fn new(topics: Arc<Topics>, max: usize, buffer: usize) -> Self {
        let queues = Arc::new(SubscriptionQueues::new(buffer));
        let (by_id, streams) = Default::default();
        Self { topics, queues, max, by_id, streams, last_id: 0, pending_island_change: None }
    }

    /// Their message queues.
    pub(crate) fn queues(&self) -> &SubscriptionQueues {
        &self.queues
    }

    /// Subscribes a stream to the commands for this session.
    pub(crate) fn subscribe_commands(&mut self, stream: u32) -> Result<(), SubscriptionError> {
        let id = self.next_id()?;
        self.queues.open(id);
        self.insert(id, Source::Commands, Some(stream));
        Ok(())
    }

    /// Subscribes `owner` to a topic until its stream ends or, without a stream, until it is cancelled.
    /// Returns the subscription id.
    pub(crate) fn subscribe(
        &mut self,
        owner: Address,
        publisher: PublisherKind,
        topic: &str,
        stream: Option<u32>,
    ) -> Result<u32, SubscriptionError> {
        let pattern: TopicPattern = topic.parse()?;
        if publisher == PublisherKind::System && !pattern.can_match_system_topics() {
            return Err(TopicError::NotASystemTopic.into());
        }
        if pattern.mailbox().is_some_and(|mailbox| mailbox != owner) {
            return Err(SubscriptionError::ForeignMailbox);
        }
        let id = self.next_id()?;
        // Island changes carry an access token, so they never pass through the topics, which all sessions
        // share.
        let own_island = format!("{owner}.island_changed");
        let source = if publisher == PublisherKind::System && pattern.as_str() == own_island {
            self.queues.open(id);
            Source::Island(own_island)
        } else {
            Source::Topics(self.topics.subscribe(publisher, pattern, &self.queues, id))
        };
        self.insert(id, source, stream);
        Ok(id)
    }

    /// Attaches a stream to a subscription without one.
    pub(crate) fn attach_stream(
        &mut self,
        publisher: PublisherKind,
        id: u32,
        stream: u32,
    ) -> Result<(), SubscriptionError> {
        let subscription = self.find_persistent(publisher, id).ok_or(SubscriptionError::Unknown)?;
        if subscription.stream.is_some() {
            return Err(SubscriptionError::StreamOpen);
        }
        subscription.stream = Some(stream);
        self.streams.insert(stream, id);
        Ok(())
    }

    /// Cancels a subscription. Returns whether it existed, and its stream, which the caller must end.
    pub(crate) fn cancel(&mut self, publisher: PublisherKind, id: u32) -> (bool, Option<u32>) {
        if self.find_persistent(publisher, id).is_none() {
            return (false, None);
        }
        let stream = self.by_id.remove(&id).and_then(|subscription| subscription.stream);
        self.queues.close(id);
        if let Some(stream) = stream {
            self.streams.remove(&stream);
        }
        (true, stream)
    }

    /// Handles the end of a stream by the client.
    pub(crate) fn stream_ended(&mut self, stream: u32) {
        let Some(id) = self.streams.remove(&stream) else { return };
        match self.by_id.get_mut(&id) {
            Some(subscription) if subscription.persistent => subscription.stream = None,
            _ => {
                self.by_id.remove(&id);
                self.queues.close(id);
            }
        }
    }

    /// Queues a new assignment, an encoded `IslandChangedMessage`, for all subscriptions to island changes.
    pub(crate) fn island_changed(&mut self, change: &Bytes) {
        let mut delivered = false;
        for (&id, subscription) in &self.by_id {
            if matches!(subscription.source, Source::Commands | Source::Island(_)) {
                self.queues.replace(id, change);
                delivered = true;
            }
        }
        self.pending_island_change = (!delivered).then(|| change.clone());
    }

    /// Queues a member change for the subscriptions that match its system topic. Only members of the island
    /// receive such changes.
    pub(crate) fn member_changed(&mut self, change: &MemberChange) {
        let topic = change.topic.topic();
        for (&id, subscription) in &self.by_id {
            if let Source::Topics(topic_subscription) = &subscription.source
                && topic_subscription.matches(PublisherKind::System, topic)
            {
                self.queues.push(id, &system_element(topic, &change.message));
            }
        }
    }

    /// Queues a signal of a mesh for the subscriptions that match its topic in the mailbox of this session.
    pub(crate) fn signal_received(&mut self, topic: &Topic, encode: impl FnOnce() -> Bytes) {
        let matches = |subscription: &Subscription| match &subscription.source {
            Source::Topics(source) => source.matches(PublisherKind::Peers, topic),
            Source::Commands | Source::Island(_) => false,
        };
        let matching = self.by_id.iter().filter(|(_, subscription)| matches(subscription));
        let ids: Vec<u32> = matching.map(|(&id, _)| id).collect();
        if ids.is_empty() {
            return;
        }
        let element = encode();
        for id in ids {
            if !self.queues.try_push(id, &element) {
                metrics::mesh_messages_dropped().increment(1);
            }
        }
    }

    /// Removes and returns the next element of a stream, encoded.
    pub(crate) fn pop(&mut self, stream: u32) -> Option<Bytes> {
        let id = self.streams.get(&stream)?;
        let element = self.queues.pop(*id)?;
        Some(match &self.by_id.get(id)?.source {
            Source::Commands => encode_world_command(&element.payload),
            Source::Island(topic) => {
                let (payload, topic) = (element.payload, topic.clone());
                SystemTopicSubscriptionResultElem { payload, topic, missed: 0 }.encode_to_vec().into()
            }
            Source::Topics(_) => append_missed(element.payload, element.missed),
        })
    }

    fn next_id(&mut self) -> Result<u32, SubscriptionError> {
        if self.by_id.len() >= self.max {
            return Err(SubscriptionError::TooMany);
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1).max(1);
            if !self.by_id.contains_key(&self.last_id) {
                return Ok(self.last_id);
            }
        }
    }

    fn insert(&mut self, id: u32, source: Source, stream: Option<u32>) {
        if matches!(source, Source::Commands | Source::Island(_))
            && let Some(change) = self.pending_island_change.take()
        {
            self.queues.replace(id, &change);
        }
        self.by_id.insert(id, Subscription { source, persistent: stream.is_none(), stream });
        self.streams.extend(stream.map(|stream| (stream, id)));
    }

    /// The persistent subscription with this id, if it receives from this kind of publisher.
    fn find_persistent(&mut self, publisher: PublisherKind, id: u32) -> Option<&mut Subscription> {
        self.by_id.get_mut(&id).filter(|subscription| {
            subscription.persistent
                && match &subscription.source {
                    Source::Commands => false,
                    Source::Island(_) => publisher == PublisherKind::System,
                    Source::Topics(topic_subscription) => topic_subscription.publisher() == publisher,
                }
        })
    }
}

/// Encodes an island change as the command `SetCommsAdapter`.
fn encode_world_command(change: &Bytes) -> Bytes {
    // A director encoded the message. If it does not decode, the result is an empty adapter, which changes
    // nothing.
    let change = IslandChangedMessage::decode(&change[..]).unwrap_or_default();
    let adapter = SetCommsAdapter { connection_string: change.conn_str };
    let command = Some(world_command::Command::SetCommsAdapter(adapter));
    WorldCommand { command }.encode_to_vec().into()
}

/// Appends to an encoded element the number of messages that were missed before it. Concatenated encodings
/// decode as one message (protobuf), and both kinds of elements have this field.
fn append_missed(element: Bytes, missed: u64) -> Bytes {
    if missed == 0 {
        return element;
    }
    let mut bytes = BytesMut::from(element);
    let missed = SystemTopicSubscriptionResultElem { missed, ..Default::default() };
    bytes.extend_from_slice(&missed.encode_to_vec());
    bytes.freeze()
}

#[cfg(test)]
mod tests;
