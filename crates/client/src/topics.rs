//! Topics: what an explorer says to whoever listens, across islands, and what it listens to.
//!
//! Subscriptions outlive sessions: each new one takes them up again.

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
    Address, Message, Topic, TopicPattern,
    bff::{PeerTopicSubscriptionResultElem, PublishToTopicRequest, SubscriptionRequest},
};
use rpc::client::{Caller, Event};
use tokio::sync::{mpsc, oneshot};

/// What is heard of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicEvent {
    /// Somebody said something.
    Message(TopicMessage),
    /// The explorer was disconnected and is back: what was said meanwhile was not heard.
    Gap,
    /// The gateway does not take it any more, and says why. Nothing comes after this.
    Ended(String),
}

/// What somebody said under a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMessage {
    /// The topic.
    pub topic: Topic,
    /// Who said it, as the gateway vouches for it; none for a server that spoke in a scene.
    pub sender: Option<Address>,
    /// What they said.
    pub payload: Bytes,
    /// How many messages the gateway dropped just before this one, because they were not read.
    pub missed: u64,
}

/// Why something was not published, or is not listened to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// The explorer speaks [`crate::Dialect::Archipelago`].
    #[error("topics need the RPC dialect")]
    NeedsRpc,
    /// The text is no topic, or no pattern.
    #[error(transparent)]
    Malformed(#[from] protocol::TopicError),
    /// The explorer is not signed in at the moment.
    #[error("not signed in")]
    NotSignedIn,
    /// The gateway refuses, and says why.
    #[error("refused by the gateway: {0}")]
    Refused(String),
    /// The connection broke before the gateway answered; it may have heard, or not.
    #[error("the connection broke before the gateway answered")]
    Unanswered,
    /// The explorer is gone.
    #[error("the explorer is gone")]
    ExplorerStopped,
}

/// Listens to topics, until it is dropped. What waits in it waits for its owner: 64 events, and then
/// the gateway's backlog, which drops the newest and counts.
#[derive(Debug)]
pub struct Subscription {
    events: mpsc::Receiver<TopicEvent>,
    /// Dropped with it, which the explorer hears.
    _alive: oneshot::Sender<()>,
}

impl Subscription {
    /// What is heard next; `None` once the explorer is gone, or the subscription ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<TopicEvent> {
        self.events.recv().await
    }
}

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Topic, Bytes, Reply),
    Subscribe(TopicPattern, EventSink, Reply),
}

pub(crate) type Reply = oneshot::Sender<Result<(), TopicsError>>;

/// The other end of a [`Subscription`].
#[derive(Debug)]
pub(crate) struct EventSink {
    events: mpsc::Sender<TopicEvent>,
    /// Resolves when the subscription is dropped.
    dropped: oneshot::Receiver<()>,
}

/// A subscription, and where its events come from.
pub(crate) fn subscription() -> (Subscription, EventSink) {
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let (alive, abandoned) = oneshot::channel();
    (Subscription { events, _alive: alive }, EventSink { events: sender, dropped: abandoned })
}

/// The topics of an explorer, whatever session there is.
pub(crate) struct Topics {
    commands: mpsc::Receiver<Command>,
    by_id: BTreeMap<u64, Subscribed>,
    last_id: u64,
    /// What goes on in the queues of subscriptions, by their ids.
    queues: FuturesUnordered<BoxFuture<'static, (u64, QueueEvent)>>,
    /// Which subscription a stream tells of, by the number of its call.
    streams: HashMap<u32, u64>,
    /// Who waits to hear that it has published, by the number of the call.
    publishing: HashMap<u32, Reply>,
}

struct Subscribed {
    pattern: TopicPattern,
    /// Who waits to hear that it is taken.
    reply: Option<Reply>,
    /// Where the next event goes. Nothing is asked for that has no place.
    permit: Option<Permit>,
    /// The stream that tells of it, once it is open.
    stream: Option<u32>,
    /// An event that comes before anything else.
    pending: Option<TopicEvent>,
}

pub(crate) type Permit = mpsc::OwnedPermit<TopicEvent>;

pub(crate) enum QueueEvent {
    /// There is a place for one more event.
    Ready(Permit),
    /// Nobody listens any more.
    Dropped,
}

/// What has to be served.
pub(crate) enum Wake {
    Command(Command),
    Queue(u64, QueueEvent),
}

pub(crate) const TOPICS_SERVICE: &str = "TopicsService";
/// Events that wait for whoever subscribed.
const EVENT_QUEUE: usize = 64;
/// What handles may ask for before it is taken; at the bound they wait.
pub(crate) const COMMAND_QUEUE: usize = 64;
/// Publications without an answer; at the bound the next one waits.
const MAX_PUBLISHING: usize = 64;

impl Topics {
    pub(crate) fn new(commands: mpsc::Receiver<Command>) -> Self {
        let (by_id, queues, streams, publishing) = Default::default();
        Self { commands, by_id, last_id: 0, queues, streams, publishing }
    }

    /// What has to be served next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Wake {
        let may_publish = self.publishing.len() < MAX_PUBLISHING;
        tokio::select! {
            Some(order) = self.commands.recv(), if may_publish => Wake::Command(order),
            Some((id, queue)) = self.queues.next() => Wake::Queue(id, queue),
            else => pending().await,
        }
    }

    /// Serves what needs no session. Cancel-safe.
    pub(crate) async fn serve_disconnected(&mut self) -> Infallible {
        loop {
            match self.next().await {
                // Who does not wait for the answer does not want it.
                Wake::Command(Command::Publish(.., answer)) => {
                    drop(answer.send(Err(TopicsError::NotSignedIn)));
                }
                Wake::Command(Command::Subscribe(pattern, listener, answer)) => {
                    self.add(pattern, listener, answer);
                }
                Wake::Queue(id, queue) => drop(self.queue_changed(id, queue)),
            }
        }
    }

    /// There is a session: everything is subscribed to on it.
    pub(crate) fn signed_in(&mut self, caller: &mut Caller) {
        let is_live = |subscribed: &Subscribed| !matches!(subscribed.pending, Some(TopicEvent::Ended(_)));
        let ids = self.by_id.iter().filter(|(_, subscribed)| is_live(subscribed)).map(|(&id, _)| id);
        let ids: Vec<u64> = ids.collect();
        ids.into_iter().for_each(|id| self.subscribe(id, caller));
    }

    /// There is no session any more.
    pub(crate) fn disconnected(&mut self) {
        self.streams.clear();
        for (_, answer) in self.publishing.drain() {
            let _ = answer.send(Err(TopicsError::Unanswered));
        }
        self.by_id.values_mut().for_each(|subscribed| subscribed.stream = None);
    }

    /// Serves what [`Topics::next_delay`] gave.
    pub(crate) fn serve(&mut self, wake: Wake, caller: &mut Caller) {
        match wake {
            Wake::Command(Command::Publish(topic, payload, answer)) => {
                let request = PublishToTopicRequest { topic: topic.as_str().to_owned(), payload };
                match caller.call(TOPICS_SERVICE, "PublishToTopic", request.encode_to_vec().into()) {
                    Ok(number) => drop(self.publishing.insert(number, answer)),
                    Err(error) => drop(answer.send(Err(TopicsError::Refused(error.to_string())))),
                }
            }
            Wake::Command(Command::Subscribe(pattern, listener, answer)) => {
                let id = self.add(pattern, listener, answer);
                self.subscribe(id, caller);
            }
            Wake::Queue(id, queue) => {
                if let Some(stream) = self.queue_changed(id, queue) {
                    caller.cancel(stream);
                }
                self.request_next(id, caller);
            }
        }
    }

    /// Hears what became of a call, if it is one of these.
    pub(crate) fn handle_event(&mut self, event: Event, caller: &mut Caller) {
        match event {
            Event::Answered { number, .. } => self.published(number, Ok(())),
            Event::Failed { number, error } if self.publishing.contains_key(&number) => {
                self.published(number, Err(TopicsError::Refused(error.message)));
            }
            Event::Failed { number, error } => self.end(number, error.message),
            Event::Ended { number } => self.end(number, "the gateway ended it".to_owned()),
            Event::Opened { number } => {
                let Some(&id) = self.streams.get(&number) else { return caller.cancel(number) };
                let Some(subscribed) = self.by_id.get_mut(&id) else { return };
                subscribed.stream = Some(number);
                match subscribed.reply.take() {
                    // If nobody waits for it any more, it is abandoned.
                    Some(answer) => drop(answer.send(Ok(()))),
                    None => subscribed.pending = Some(TopicEvent::Gap),
                }
                self.request_next(id, caller);
            }
            Event::Element { number, payload } => {
                let Some(&id) = self.streams.get(&number) else { return };
                match message(payload) {
                    Some(message) => self.deliver(id, TopicEvent::Message(message)),
                    None => tracing::warn!("the gateway sent a message that cannot be read"),
                }
                self.request_next(id, caller);
            }
        }
    }

    fn add(&mut self, pattern: TopicPattern, listener: EventSink, answer: Reply) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let subscribed =
            Subscribed { pattern, reply: Some(answer), permit: None, stream: None, pending: None };
        self.by_id.insert(id, subscribed);
        self.queues.push(listener.dropped.map(move |_| (id, QueueEvent::Dropped)).boxed());
        self.reserve(id, listener.events);
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

    /// Waits for a place for the next event of a subscription.
    fn reserve(&mut self, id: u64, sender: mpsc::Sender<TopicEvent>) {
        let place = sender.reserve_owned().map(move |place| match place {
            Ok(place) => (id, QueueEvent::Ready(place)),
            Err(_) => (id, QueueEvent::Dropped),
        });
        self.queues.push(place.boxed());
    }

    /// Gives the stream that nobody listens to any more.
    fn queue_changed(&mut self, id: u64, queue: QueueEvent) -> Option<u32> {
        match queue {
            QueueEvent::Ready(place) => {
                if let Some(subscribed) = self.by_id.get_mut(&id) {
                    subscribed.permit = Some(place);
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

    /// Asks for the next message, if there is a place for it and nothing else comes first.
    fn request_next(&mut self, id: u64, caller: &mut Caller) {
        let Some(subscribed) = self.by_id.get_mut(&id) else { return };
        if subscribed.permit.is_none() {
            return;
        }
        match (subscribed.pending.take(), subscribed.stream) {
            (Some(ended @ TopicEvent::Ended(_)), _) => {
                self.deliver(id, ended);
                // With it goes the only way to tell more.
                self.by_id.remove(&id);
            }
            (Some(event), _) => self.deliver(id, event),
            (None, Some(stream)) => caller.request_next(stream),
            (None, None) => {}
        }
    }

    fn deliver(&mut self, id: u64, event: TopicEvent) {
        if let Some(place) = self.by_id.get_mut(&id).and_then(|subscribed| subscribed.permit.take()) {
            let sender = place.send(event);
            self.reserve(id, sender);
        }
    }

    fn published(&mut self, number: u32, result: Result<(), TopicsError>) {
        if let Some(answer) = self.publishing.remove(&number) {
            let _ = answer.send(result);
        }
    }

    fn end(&mut self, number: u32, reason: String) {
        if let Some(id) = self.streams.remove(&number) {
            self.reject(id, reason);
        }
    }

    /// The gateway does not take a subscription: it ends, at once or with the next place.
    fn reject(&mut self, id: u64, reason: String) {
        let Some(subscribed) = self.by_id.get_mut(&id) else { return };
        subscribed.stream = None;
        if let Some(answer) = subscribed.reply.take() {
            let _ = answer.send(Err(TopicsError::Refused(reason)));
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

fn message(payload: Bytes) -> Option<TopicMessage> {
    let element = PeerTopicSubscriptionResultElem::decode(payload).ok()?;
    let PeerTopicSubscriptionResultElem { payload, topic, sender, missed } = element;
    let sender = if sender.is_empty() { None } else { Some(sender.parse().ok()?) };
    Some(TopicMessage { topic: topic.parse().ok()?, sender, payload, missed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropped_subscription_is_removed_while_disconnected() {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let mut topics = Topics::new(receiver);
        let mut requested = Vec::new();
        for number in 0..20 {
            let (subscription, listener) = subscription();
            let (answer, answered) = oneshot::channel();
            let pattern = "news".parse().unwrap();
            commands.send(Command::Subscribe(pattern, listener, answer)).await.unwrap();
            requested.push((subscription, answered));
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
