//! What one session listens to, and the streams that tell it.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use protocol::{
    Address, Message, TopicError, TopicPattern,
    bff::{SetCommsAdapter, SystemTopicSubscriptionResultElem, WorldCommand, world_command},
    v3::IslandChangedMessage,
};
use rpc::ErrorCode;

use super::SubscriptionQueues;
use crate::{
    session_registry::MemberChange,
    topics::{PublisherKind, TopicSubscription, Topics, system_element},
};

/// The subscriptions of one session, by their ids.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    topics: Arc<Topics>,
    queues: Arc<SubscriptionQueues>,
    max: usize,
    by_id: HashMap<u32, Subscription>,
    /// Which subscription a stream tells of, by the number of its call.
    streams: HashMap<u32, u32>,
    last_id: u32,
    /// A change of island that nobody has been told, as nobody has asked yet.
    pending_island_change: Option<Bytes>,
}

#[derive(Debug)]
struct Subscription {
    source: Source,
    /// Whether it stays when its stream ends: until it is cancelled.
    persistent: bool,
    stream: Option<u32>,
}

/// What a subscription hears.
#[derive(Debug)]
enum Source {
    /// Changes of island, as commands. Only the newest counts.
    Commands,
    /// Changes of island, as the system topic of this name. Only the newest counts.
    Island(String),
    /// Topics. It listens until it is dropped.
    Topics(TopicSubscription),
}

/// Why a subscription is refused.
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
    /// None yet, and never more than `max`, with at most `buffer` waiting messages each.
    pub(crate) fn new(topics: Arc<Topics>, max: usize, buffer: usize) -> Self {
        let backlogs = Arc::new(SubscriptionQueues::new(buffer));
        let (by_id, streams) = Default::default();
        Self { topics, queues: backlogs, max, by_id, streams, last_id: 0, pending_island_change: None }
    }

    /// What waits for them.
    pub(crate) fn queues(&self) -> Arc<SubscriptionQueues> {
        self.queues.clone()
    }

    /// Has a stream tell the commands to this session.
    pub(crate) fn subscribe_commands(&mut self, stream: u32) -> Result<(), SubscriptionError> {
        let id = self.next_id()?;
        self.queues.open(id);
        self.insert(id, Source::Commands, Some(stream));
        Ok(())
    }

    /// Subscribes `owner` to a topic: until its stream ends, or without a stream until it is
    /// cancelled.
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
        // It carries a token, so it never goes through what everybody listens to.
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

    /// Has a stream tell what a subscription hears.
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

    /// Cancels a subscription: whether there was one, and the stream that ends with it.
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

    /// The client wants no more of a stream.
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

    /// The session is on another island, or another connection: an encoded `IslandChangedMessage`.
    pub(crate) fn island_changed(&mut self, change: &Bytes) {
        let mut told = false;
        for (&id, subscription) in &self.by_id {
            if matches!(subscription.source, Source::Commands | Source::Island(_)) {
                self.queues.replace(id, change);
                told = true;
            }
        }
        self.pending_island_change = (!told).then(|| change.clone());
    }

    /// Somebody joined the session's island, or left it. It comes to whoever listens to this system
    /// topic, and to members alone.
    pub(crate) fn member_changed(&mut self, change: &MemberChange) {
        let topic = change.topic.topic();
        for (&id, subscription) in &self.by_id {
            if let Source::Topics(listening) = &subscription.source
                && listening.matches(PublisherKind::System, topic)
            {
                self.queues.push(id, &system_element(topic, &change.message));
            }
        }
    }

    /// The next element of a stream, encoded, if it has one.
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

    /// The subscription of this id, if it can be asked for again and is to this publisher.
    fn find_persistent(&mut self, publisher: PublisherKind, id: u32) -> Option<&mut Subscription> {
        self.by_id.get_mut(&id).filter(|subscription| {
            subscription.persistent
                && match &subscription.source {
                    Source::Commands => false,
                    Source::Island(_) => publisher == PublisherKind::System,
                    Source::Topics(listening) => listening.publisher() == publisher,
                }
        })
    }
}

/// A change of island as the command that it means to a client.
fn encode_world_command(change: &Bytes) -> Bytes {
    // The director encoded it. If it were anything else, an empty command would change nothing.
    let change = IslandChangedMessage::decode(&change[..]).unwrap_or_default();
    let adapter = SetCommsAdapter { connection_string: change.conn_str };
    let command = Some(world_command::Command::SetCommsAdapter(adapter));
    WorldCommand { command }.encode_to_vec().into()
}

/// The element, with how many were missed before it. Encoded messages put one after the other
/// decode as one, and both kinds of elements have this field.
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
