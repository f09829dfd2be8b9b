use bytes::Bytes;
use identity::Identity;
use protocol::{
    Position,
    v3::{Heartbeat, IslandChangedMessage},
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Dialect, Event, RoomId, Settings, Subscription, TopicsError,
    link::{Link, Wishes},
    room::Say,
    rooms::{AskAgain, Rooms},
    topics::{self, ORDER_QUEUE, Topics},
};

/// An explorer at work. It leaves when told to, or when this is dropped.
///
/// Its events have to be taken: while 1,024 of them wait, it reads nothing more but topics.
#[derive(Debug)]
pub struct Explorer {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

/// Tells an explorer what to do, for as long as there is one. Cheap to clone.
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

/// What the link tells.
#[derive(Debug)]
pub(crate) enum LinkNews {
    /// The gateway knows the wallet now. Unless the explorer keeps its room, its next island makes it
    /// enter the room anew, even the one that it is in.
    SignedIn { keeps_room: bool },
    /// This is the explorer's island from now on.
    IslandChanged(IslandChangedMessage),
    /// Anything else.
    Event(Event),
}

/// Orders and events that may wait; at the bound, whoever adds one waits too.
const QUEUE: usize = 1024;
/// News of the link that may wait; at the bound the link keeps one more, and reads none.
const NEWS_QUEUE: usize = 4;

impl Explorer {
    /// Sends an explorer on its way, in tasks of the present Tokio runtime.
    pub fn start(settings: Settings, identity: Identity) -> Self {
        let (orders_sender, orders) = mpsc::channel(QUEUE);
        let (events_sender, events) = mpsc::channel(QUEUE);
        let (topics_sender, topics) = mpsc::channel(ORDER_QUEUE);
        let (news_sender, news) = mpsc::channel(NEWS_QUEUE);
        let (wishes, wishes_receiver) = watch::channel(Wishes::default());
        let rooms = Rooms::new(settings.clone(), identity.clone(), events_sender.clone());
        let dialect = settings.gateway.dialect;
        let link = Link {
            settings,
            identity,
            wishes: wishes_receiver,
            news: news_sender,
            topics: Topics::new(topics),
            resume_secret: Bytes::new(),
        };
        tokio::spawn(link.run());
        tokio::spawn(explore(rooms, orders, news, wishes, events_sender));
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
        let (subscription, listener) = topics::subscription();
        // If nobody waits any more, the subscription is dropped, which the explorer hears.
        self.ask(|answer| topics::Order::Subscribe(pattern, listener, answer)).await?;
        Ok(subscription)
    }

    async fn ask(&self, order: impl FnOnce(topics::Answer) -> topics::Order) -> Result<(), TopicsError> {
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

/// The explorer's own loop, and its goodbye.
async fn explore(
    mut rooms: Rooms,
    orders: mpsc::Receiver<Order>,
    mut news: mpsc::Receiver<LinkNews>,
    wishes: watch::Sender<Wishes>,
    events: mpsc::Sender<Event>,
) {
    rove(&mut rooms, orders, &mut news, &wishes, &events).await;
    drop((rooms, wishes));
    // The link says goodbye, too. Nobody listens any more when the explorer was dropped.
    while let Some(news) = news.recv().await {
        if let LinkNews::Event(event) = news {
            let _ = events.send(event).await;
        }
    }
}

/// Orders and news of islands in, rooms and wishes out.
async fn rove(
    rooms: &mut Rooms,
    mut orders: mpsc::Receiver<Order>,
    news: &mut mpsc::Receiver<LinkNews>,
    wishes: &watch::Sender<Wishes>,
    events: &mpsc::Sender<Event>,
) {
    // Orders are taken even while nobody takes events: whoever gives them may be the one.
    let mut untold: Option<Event> = None;
    loop {
        tokio::select! {
            // What is said on hearing of a room is said there: its progress comes first.
            biased;
            progress = rooms.progress() => {
                if progress == Some(AskAgain) {
                    wishes.send_modify(|wishes| wishes.sign_ins += 1);
                }
            }
            order = orders.recv() => match order {
                Some(Order::Heartbeat(heartbeat)) => wishes.send_modify(|wishes| wishes.stand(heartbeat)),
                // Whoever said it may not care where.
                Some(Order::Say(say, answer)) => drop(answer.send(rooms.say(&say))),
                Some(Order::Leave) | None => return,
            },
            () = events.closed() => return,
            news = news.recv(), if untold.is_none() => match news {
                Some(LinkNews::IslandChanged(change)) => untold = rooms.follow(change),
                Some(LinkNews::SignedIn { keeps_room }) => {
                    rooms.signed_in(keeps_room);
                    untold = Some(Event::SignedIn);
                }
                Some(LinkNews::Event(event)) => untold = Some(event),
                None => return,
            },
            place = events.reserve(), if untold.is_some() => match (place, untold.take()) {
                (Ok(place), Some(event)) => place.send(event),
                _ => return,
            },
        }
    }
}
