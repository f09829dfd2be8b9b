use bytes::Bytes;
use identity::Identity;
use protocol::{
    Address, IslandId, Position,
    v3::{Heartbeat, IslandChangedMessage},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Dialect, Event, RoomId, Settings, Subscription, TopicsError,
    link::{Link, Request},
    room::Say,
    rooms::{AskAgain, Rooms},
    topics::{self, ORDER_QUEUE, Topics},
};

/// An explorer at work. It leaves when told to, or when this and all its [`Handle`]s are dropped.
///
/// Its events have to be taken: while 1,024 of them wait, it reads nothing more, topics included.
#[derive(Debug)]
pub struct Explorer {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

/// Tells an explorer what to do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    topics: mpsc::Sender<topics::Order>,
    dialect: Dialect,
}

#[derive(Debug)]
enum Order {
    Heartbeat(Heartbeat),
    Say(Say, oneshot::Sender<Vec<RoomId>>),
    Leave,
}

/// What the gateway says of islands.
#[derive(Debug)]
pub(crate) enum IslandNews {
    /// This is the explorer's island from now on.
    Changed(IslandChangedMessage),
    /// Somebody came to it.
    Joined(IslandId, Address),
    /// Somebody left it.
    Left(IslandId, Address),
}

/// Orders and events that may wait; at the bound, whoever adds one waits too.
const QUEUE: usize = 1024;
/// Requests that may wait for the gateway; at the bound, the newest is not sent.
const HEARTBEAT_QUEUE: usize = 4;

impl Explorer {
    /// Sends an explorer on its way, in tasks of the present Tokio runtime.
    pub fn start(settings: Settings, identity: Identity) -> Self {
        let (orders_sender, orders) = mpsc::channel(QUEUE);
        let (events_sender, events) = mpsc::channel(QUEUE);
        let (topics_sender, topics) = mpsc::channel(ORDER_QUEUE);
        let (news_sender, news) = mpsc::channel(HEARTBEAT_QUEUE);
        let (requests, requests_receiver) = mpsc::channel(HEARTBEAT_QUEUE);
        let rooms = Rooms::new(settings.clone(), identity.address(), events_sender.clone());
        let dialect = settings.gateway.dialect;
        let link = Link {
            settings,
            identity,
            requests: requests_receiver,
            events: events_sender.clone(),
            news: news_sender,
            topics: Topics::new(topics),
            place: None,
        };
        tokio::spawn(link.run());
        tokio::spawn(explore(rooms, orders, news, requests, events_sender));
        Self { handle: Handle { orders: orders_sender, topics: topics_sender, dialect }, events }
    }

    /// Another way to tell it what to do.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What happened next; `None` once it is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Handle {
    /// Says where it is, in metres, and which island it would like to be in: `None` keeps what it
    /// said before, an empty text clears it. The explorer says it again by itself: now and then, and
    /// whenever it has signed in.
    pub async fn heartbeat(&self, position: Position, desired_room: Option<String>) {
        let heartbeat = Heartbeat { position: Some(position.into()), desired_room };
        self.order(Order::Heartbeat(heartbeat)).await;
    }

    /// Says something (an RFC-4 packet) in every room that it is in, and gives in which.
    pub async fn say(&self, body: Bytes, unreliable: bool) -> Vec<RoomId> {
        let (answer, said) = oneshot::channel();
        self.order(Order::Say(Say { body, unreliable }, answer)).await;
        said.await.unwrap_or_default()
    }

    /// Says something to everybody who listens to `topic`, wherever they are, and waits until the
    /// gateway has taken it.
    ///
    /// # Errors
    /// Among others [`TopicsError::NotSignedIn`]: nothing is kept for later.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>) -> Result<(), TopicsError> {
        let topic = topic.parse()?;
        self.ask(|answer| topics::Order::Publish(topic, payload.into(), answer)).await
    }

    /// Listens to a topic, in which `*` stands for any one segment. It waits until the gateway has
    /// taken the subscription, however long that takes; what is published after that is heard, until
    /// the [`Subscription`] is dropped, over all sessions to come.
    pub async fn subscribe(&self, pattern: &str) -> Result<Subscription, TopicsError> {
        let pattern = pattern.parse()?;
        self.ask(|answer| topics::Order::Subscribe(pattern, answer)).await
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, TopicsError>>) -> topics::Order,
    ) -> Result<T, TopicsError> {
        if self.dialect == Dialect::Archipelago {
            return Err(TopicsError::NeedsRpc);
        }
        let (answer, answered) = oneshot::channel();
        self.topics.send(order(answer)).await.map_err(|_| TopicsError::Gone)?;
        answered.await.unwrap_or(Err(TopicsError::Gone))
    }

    /// Leaves its rooms and its gateway.
    pub async fn leave(&self) {
        self.order(Order::Leave).await;
    }

    async fn order(&self, order: Order) {
        // An explorer that is gone takes no orders; the end of its events says so.
        let _ = self.orders.send(order).await;
    }
}

/// The explorer's own loop: orders and news of islands in, rooms and heartbeats out.
async fn explore(
    mut rooms: Rooms,
    mut orders: mpsc::Receiver<Order>,
    mut news: mpsc::Receiver<IslandNews>,
    requests: mpsc::Sender<Request>,
    events: mpsc::Sender<Event>,
) {
    // Orders are taken even while nobody takes events: whoever gives them may be the one.
    let mut untold: Option<Event> = None;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Heartbeat(heartbeat)) => drop(requests.try_send(Request::Heartbeat(heartbeat))),
                // Whoever said it may not care where.
                Some(Order::Say(say, answer)) => drop(answer.send(rooms.say(&say))),
                Some(Order::Leave) | None => return,
            },
            news = news.recv(), if untold.is_none() => match news {
                Some(IslandNews::Changed(change)) => untold = rooms.follow(change),
                Some(IslandNews::Joined(island, address)) => {
                    untold = Some(Event::IslandJoined { island, address });
                }
                Some(IslandNews::Left(island, address)) => {
                    untold = Some(Event::IslandLeft { island, address });
                }
                None => return,
            },
            place = events.reserve(), if untold.is_some() => match (place, untold.take()) {
                (Ok(place), Some(event)) => place.send(event),
                _ => return,
            },
            progress = rooms.progress() => {
                if progress == Some(AskAgain) {
                    let _ = requests.try_send(Request::SignInAgain);
                }
            }
        }
    }
}
