//! Topics: publishing to the subscribers of a topic in any island, and subscriptions.
//!
//! Subscriptions outlive sessions: each new session subscribes again.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fmt,
    future::pending,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use protocol::{
    Message, Topic, TopicPattern,
    bff::{PublishToTopicRequest, SubscriptionRequest},
};
use rpc::client::{Caller, Event};
use tokio::sync::{mpsc, oneshot};

use crate::subscription::{EventSink, TopicEvent, TopicMessage, TopicsError};

/// A command of a [`crate::Handle`].
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Topic, Bytes, Reply),
    Subscribe(TopicPattern, EventSink, Reply),
}

pub(crate) type Reply = oneshot::Sender<Result<(), TopicsError>>;

/// The subscriptions and publications of a client, across its sessions.
pub(crate) struct Topics {
    commands: mpsc::Receiver<Command>,
    by_id: BTreeMap<u64, Subscribed>,
    last_id: u64,
    /// Wait for a free slot in each queue, and for the drop of each subscription; the results carry its id.
    queues: FuturesUnordered<BoxFuture<'static, (u64, QueueEvent)>>,
    /// The subscription of each stream, by the number of its call.
    streams: HashMap<u32, u64>,
    /// The reply to each publication that is not answered yet, by the number of its call.
    publishing: HashMap<u32, Reply>,
}

struct Subscribed {
    pattern: TopicPattern,
    /// The reply to the subscriber, until the gateway has accepted the subscription.
    reply: Option<Reply>,
    /// The slot for the next event. No element is requested without one.
    permit: Option<Permit>,
    /// The stream of the subscription, once it is open.
    stream: Option<u32>,
    /// An event that must be delivered before any message.
    pending: Option<TopicEvent>,
}

pub(crate) type Permit = mpsc::OwnedPermit<TopicEvent>;

pub(crate) enum QueueEvent {
    /// The queue has a free slot.
    Ready(Permit),
    /// The subscription was dropped.
    Dropped,
}

/// An input of [`Topics::serve`].
pub(crate) enum Wake {
    Command(Command),
    Queue(u64, QueueEvent),
}

pub(crate) const TOPICS_SERVICE: &str = "TopicsService";
/// The capacity of the queue of commands. When it is full, handles wait.
pub(crate) const COMMAND_QUEUE: usize = 64;
/// The limit of unanswered publications. At the limit, no further command is processed.
const MAX_PUBLISHING: usize = 64;

impl Topics {
    pub(crate) fn new(commands: mpsc::Receiver<Command>) -> Self {
        let (by_id, queues, streams, publishing) = Default::default();
        Self { commands, by_id, last_id: 0, queues, streams, publishing }
    }

    /// The next input to serve. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Wake {
        let may_publish = self.publishing.len() < MAX_PUBLISHING;
        tokio::select! {
            Some(command) = self.commands.recv(), if may_publish => Wake::Command(command),
            Some((id, event)) = self.queues.next() => Wake::Queue(id, event),
            else => pending().await,
        }
    }

    /// Serves all inputs while there is no session: publications fail, subscriptions are stored. Cancel-safe.
    pub(crate) async fn serve_disconnected(&mut self) -> Infallible {
        loop {
            match self.next().await {
                // Sending fails if the caller does not wait for the reply any more.
                Wake::Command(Command::Publish(.., reply)) => {
                    drop(reply.send(Err(TopicsError::NotSignedIn)));
                }
                Wake::Command(Command::Subscribe(pattern, sink, reply)) => {
                    self.add(pattern, sink, reply);
                }
                Wake::Queue(id, event) => drop(self.queue_changed(id, event)),
            }
        }
    }

    /// A session began: subscribes to all patterns.
    pub(crate) fn signed_in(&mut self, caller: &mut Caller) {
        let is_live = |subscribed: &Subscribed| !matches!(subscribed.pending, Some(TopicEvent::Ended(_)));
        let ids = self.by_id.iter().filter(|(_, subscribed)| is_live(subscribed)).map(|(&id, _)| id);
        let ids: Vec<u64> = ids.collect();
        ids.into_iter().for_each(|id| self.subscribe(id, caller));
    }

    /// The session ended: unanswered publications fail, subscriptions stay.
    pub(crate) fn disconnected(&mut self) {
        self.streams.clear();
        for (_, reply) in self.publishing.drain() {
            let _ = reply.send(Err(TopicsError::Unanswered));
        }
        self.by_id.values_mut().for_each(|subscribed| subscribed.stream = None);
    }

    /// Serves an input of [`Topics::next`].
    pub(crate) fn serve(&mut self, wake: Wake, caller: &mut Caller) {
        match wake {
            Wake::Command(Command::Publish(topic, payload, reply)) => {
                let request = PublishToTopicRequest { topic: topic.as_str().to_owned(), payload };
                match caller.call(TOPICS_SERVICE, "PublishToTopic", request.encode_to_vec().into()) {
                    Ok(number) => drop(self.publishing.insert(number, reply)),
                    Err(error) => drop(reply.send(Err(TopicsError::Refused(error.to_string())))),
                }
            }
            Wake::Command(Command::Subscribe(pattern, sink, reply)) => {
                let id = self.add(pattern, sink, reply);
                self.subscribe(id, caller);
            }
            Wake::Queue(id, event) => {
                if let Some(stream) = self.queue_changed(id, event) {
                    caller.cancel(stream);
                }
                self.request_next(id, caller);
            }
        }
    }

    /// Handles the result of a call, if it belongs to a publication or subscription.
    pub(crate) fn handle_event(&mut self, event: Event, caller: &mut Caller) {
        match event {
            Event::Answered { number, .. } => self.published(number, Ok(())),
            Event::Failed { number, error } if self.publishing.contains_key(&number) => {
                self.published(number, Err(TopicsError::Refused(error.message)));
            }
            Event::Failed { number, error } => self.end(number, error.message),
            Event::Ended { number } => self.end(number, "the gateway ended the subscription".to_owned()),
            Event::Opened { number } => {
                let Some(&id) = self.streams.get(&number) else { return caller.cancel(number) };
                let Some(subscribed) = self.by_id.get_mut(&id) else { return };
                subscribed.stream = Some(number);
                match subscribed.reply.take() {
                    // If this fails, the subscription was dropped, and `queue_changed` removes it.
                    Some(reply) => drop(reply.send(Ok(()))),
                    None => subscribed.pending = Some(TopicEvent::Gap),
                }
                self.request_next(id, caller);
            }
            Event::Element { number, payload } => {
                let Some(&id) = self.streams.get(&number) else { return };
                match TopicMessage::decode(payload) {
                    Some(message) => self.deliver(id, TopicEvent::Message(message)),
                    None => tracing::warn!("the gateway sent a malformed message; ignored"),
                }
                self.request_next(id, caller);
            }
        }
    }

    fn add(&mut self, pattern: TopicPattern, sink: EventSink, reply: Reply) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let subscribed =
            Subscribed { pattern, reply: Some(reply), permit: None, stream: None, pending: None };
        self.by_id.insert(id, subscribed);
        self.queues.push(sink.dropped.map(move |_| (id, QueueEvent::Dropped)).boxed());
        self.reserve(id, sink.events);
        id
    }

    fn subscribe(&mut self, id: u64, caller: &mut Caller) {
        let Some(subscribed) = self.by_id.get(&id) else { return };
        let request = SubscriptionRequest { topic: subscribed.pattern.as_str().to_owned() };
        match caller.call(TOPICS_SERVICE, "PeerSubscription", request.encode_to_vec().into()) {
            Ok(number) => drop(self.streams.insert(number, id)),
            Err(error) => self.reject(id, error.to_string()),
        }
    }

    /// Waits for a free slot in the queue of a subscription.
    fn reserve(&mut self, id: u64, sender: mpsc::Sender<TopicEvent>) {
        let slot = sender.reserve_owned().map(move |permit| match permit {
            Ok(permit) => (id, QueueEvent::Ready(permit)),
            Err(_) => (id, QueueEvent::Dropped),
        });
        self.queues.push(slot.boxed());
    }

    /// Handles an event of a queue. Returns the stream to cancel, if the subscription was dropped.
    fn queue_changed(&mut self, id: u64, event: QueueEvent) -> Option<u32> {
        match event {
            QueueEvent::Ready(permit) => {
                if let Some(subscribed) = self.by_id.get_mut(&id) {
                    subscribed.permit = Some(permit);
                }
                None
            }
            QueueEvent::Dropped => {
                self.by_id.remove(&id)?;
                let number =
                    self.streams.iter().find(|(_, stream)| **stream == id).map(|(&number, _)| number);
                self.streams.remove(&number?);
                number
            }
        }
    }

    /// Requests the next message, if the queue has a slot for it. Delivers a pending event first.
    fn request_next(&mut self, id: u64, caller: &mut Caller) {
        let Some(subscribed) = self.by_id.get_mut(&id) else { return };
        if subscribed.permit.is_none() {
            return;
        }
        match (subscribed.pending.take(), subscribed.stream) {
            (Some(ended @ TopicEvent::Ended(_)), _) => {
                self.deliver(id, ended);
                // No further event can be delivered: the next permit is dropped, which closes the queue.
                self.by_id.remove(&id);
            }
            (Some(event), _) => self.deliver(id, event),
            (None, Some(stream)) => caller.request_next(stream),
            (None, None) => {}
        }
    }

    fn deliver(&mut self, id: u64, event: TopicEvent) {
        if let Some(permit) = self.by_id.get_mut(&id).and_then(|subscribed| subscribed.permit.take()) {
            let sender = permit.send(event);
            self.reserve(id, sender);
        }
    }

    fn published(&mut self, number: u32, result: Result<(), TopicsError>) {
        if let Some(reply) = self.publishing.remove(&number) {
            let _ = reply.send(result);
        }
    }

    fn end(&mut self, number: u32, reason: String) {
        if let Some(id) = self.streams.remove(&number) {
            self.reject(id, reason);
        }
    }

    /// The gateway refused or ended a subscription. The subscription ends, at once or when its queue has a
    /// free slot.
    fn reject(&mut self, id: u64, reason: String) {
        let Some(subscribed) = self.by_id.get_mut(&id) else { return };
        subscribed.stream = None;
        if let Some(reply) = subscribed.reply.take() {
            let _ = reply.send(Err(TopicsError::Refused(reason)));
            self.by_id.remove(&id);
        } else if subscribed.permit.is_some() {
            self.deliver(id, TopicEvent::Ended(reason));
            self.by_id.remove(&id);
        } else {
            subscribed.pending = Some(TopicEvent::Ended(reason));
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("subscriptions", &self.by_id.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription;

    #[tokio::test]
    async fn dropped_subscription_is_removed_while_disconnected() {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let mut topics = Topics::new(receiver);
        let mut requested = Vec::new();
        for number in 0..20 {
            let (subscription, sink) = subscription::channel();
            let (reply, outcome) = oneshot::channel();
            let pattern = "news".parse().unwrap();
            commands.send(Command::Subscribe(pattern, sink, reply)).await.unwrap();
            requested.push((subscription, outcome));
            assert!(topics.serve_disconnected().now_or_never().is_none());
            assert_eq!(topics.by_id.len(), number + 1);
        }
        requested.truncate(1);
        assert!(topics.serve_disconnected().now_or_never().is_none());
        assert_eq!(topics.by_id.len(), 1);
        let mut caller = Caller::new(8);
        topics.signed_in(&mut caller);
        assert_eq!(topics.streams.len(), 1);
    }
}
