use std::time::Duration;

use bytes::Bytes;
use identity::Identity;
use protocol::{
    Position,
    v3::{Heartbeat, IslandChangedMessage},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Event, RoomId,
    link::{Link, Request},
    room::Say,
    rooms::{AskAgain, Rooms},
};

/// How an explorer behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The archipelago socket; [`crate::discover`] finds it.
    pub socket_url: String,
    /// What it tells the gateway that it can join; empty: nothing is said, and the gateway assumes.
    pub transports: Vec<String>,
    /// How long any server may take to answer.
    pub deadline: Duration,
    /// How long it stays in the old room once the new one has welcomed it; `None`: it leaves the old
    /// room before it enters the new one.
    pub overlap: Option<Duration>,
    /// The longest pause before it tries again.
    pub longest_pause: Duration,
}

impl Settings {
    /// The usual behaviour, at this socket.
    pub fn new(socket_url: impl Into<String>) -> Self {
        Self {
            socket_url: socket_url.into(),
            transports: Vec::new(),
            deadline: Duration::from_secs(10),
            overlap: Some(Duration::from_secs(2)),
            longest_pause: Duration::from_secs(10),
        }
    }

    /// The behaviour of stock clients, which break before they make: as soon as they are told of
    /// another room they leave the one that they are in.
    pub fn stock(socket_url: impl Into<String>) -> Self {
        Self { overlap: None, ..Self::new(socket_url) }
    }
}

/// An explorer at work. It leaves when told to, or when this and all its [`Handle`]s are dropped.
#[derive(Debug)]
pub struct Explorer {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

/// Tells an explorer what to do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Order>);

#[derive(Debug)]
enum Order {
    Heartbeat(Heartbeat),
    Say(Say, oneshot::Sender<Vec<RoomId>>),
    Leave,
}

/// Orders and events that may wait; at the bound, whoever adds one waits too.
const QUEUE: usize = 1024;
/// Requests that may wait for the gateway; at the bound, the newest is not sent.
const HEARTBEAT_QUEUE: usize = 4;

impl Explorer {
    /// Sends an explorer on its way.
    pub fn start(settings: Settings, identity: Identity) -> Self {
        let (orders_sender, orders) = mpsc::channel(QUEUE);
        let (events_sender, events) = mpsc::channel(QUEUE);
        let (changes_sender, changes) = mpsc::channel(HEARTBEAT_QUEUE);
        let (requests, requests_receiver) = mpsc::channel(HEARTBEAT_QUEUE);
        let rooms = Rooms::new(settings.clone(), identity.address(), events_sender.clone());
        let link = Link {
            settings,
            identity,
            requests: requests_receiver,
            events: events_sender.clone(),
            changes: changes_sender,
            unsent: None,
        };
        tokio::spawn(link.run());
        tokio::spawn(explore(rooms, orders, changes, requests, events_sender));
        Self { handle: Handle(orders_sender), events }
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
    /// said before, an empty text clears it. While it is not signed in the last one is kept, and
    /// sent as soon as it is.
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

    /// Leaves its rooms and its gateway.
    pub async fn leave(&self) {
        self.order(Order::Leave).await;
    }

    async fn order(&self, order: Order) {
        // An explorer that is gone takes no orders; the end of its events says so.
        let _ = self.0.send(order).await;
    }
}

/// The explorer's own loop: orders and changes of island in, rooms and heartbeats out.
async fn explore(
    mut rooms: Rooms,
    mut orders: mpsc::Receiver<Order>,
    mut changes: mpsc::Receiver<IslandChangedMessage>,
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
            change = changes.recv(), if untold.is_none() => match change {
                Some(change) => untold = rooms.follow(change),
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
