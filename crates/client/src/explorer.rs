use bytes::Bytes;
use identity::Identity;
use protocol::{
    Position,
    v3::{Heartbeat, IslandChangedMessage},
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Dialect, Event, RoomId, Settings, Subscription, TopicsError,
    link::{DesiredState, Link},
    room::OutgoingMessage,
    rooms::{Rooms, SignInNeeded},
    topics::{self, COMMAND_QUEUE, Topics},
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
    commands: mpsc::Sender<Command>,
    topics: mpsc::Sender<topics::Command>,
    dialect: Dialect,
}

#[derive(Debug)]
enum Command {
    Heartbeat(Heartbeat),
    Send(OutgoingMessage, oneshot::Sender<Vec<RoomId>>),
    Leave,
}

/// What the link tells.
#[derive(Debug)]
pub(crate) enum LinkEvent {
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
const LINK_QUEUE: usize = 4;

impl Explorer {
    /// Sends an explorer on its way, in tasks of the present Tokio runtime.
    pub fn start(settings: Settings, identity: Identity) -> Self {
        let (commands_sender, commands) = mpsc::channel(QUEUE);
        let (events_sender, events) = mpsc::channel(QUEUE);
        let (topics_sender, topics) = mpsc::channel(COMMAND_QUEUE);
        let (link_sender, link_events) = mpsc::channel(LINK_QUEUE);
        let (desired, desired_receiver) = watch::channel(DesiredState::default());
        let rooms = Rooms::new(settings.clone(), identity.clone(), events_sender.clone());
        let dialect = settings.gateway.dialect;
        let link = Link {
            settings,
            identity,
            desired: desired_receiver,
            events: link_sender,
            topics: Topics::new(topics),
            resume_secret: Bytes::new(),
        };
        tokio::spawn(link.run());
        tokio::spawn(run(rooms, commands, link_events, desired, events_sender));
        Self { handle: Handle { commands: commands_sender, topics: topics_sender, dialect }, events }
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
        self.send_command(Command::Heartbeat(heartbeat)).await;
    }

    /// Says something (an RFC-4 packet) in every room that it is in, and gives in which.
    pub async fn send(&self, body: Bytes, unreliable: bool) -> Vec<RoomId> {
        let (reply, rooms) = oneshot::channel();
        self.send_command(Command::Send(OutgoingMessage { body, unreliable }, reply)).await;
        rooms.await.unwrap_or_default()
    }

    /// Says something to everybody who listens to `topic`, wherever they are, and waits until the
    /// gateway has taken it.
    ///
    /// # Errors
    /// Among others [`TopicsError::NotSignedIn`]: nothing is kept for later.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>) -> Result<(), TopicsError> {
        let topic = topic.parse()?;
        self.request(|answer| topics::Command::Publish(topic, payload.into(), answer)).await
    }

    /// Listens to a topic, in which `*` stands for any one segment. It waits until the gateway has
    /// taken the subscription, however long that takes; what is published after that is heard, until
    /// the [`Subscription`] is dropped, over all sessions to come.
    pub async fn subscribe(&self, pattern: &str) -> Result<Subscription, TopicsError> {
        let pattern = pattern.parse()?;
        let (subscription, sink) = topics::subscription();
        // If nobody waits any more, the subscription is dropped, which the explorer hears.
        self.request(|answer| topics::Command::Subscribe(pattern, sink, answer)).await?;
        Ok(subscription)
    }

    async fn request(
        &self,
        command: impl FnOnce(topics::Reply) -> topics::Command,
    ) -> Result<(), TopicsError> {
        if self.dialect == Dialect::Archipelago {
            return Err(TopicsError::NeedsRpc);
        }
        let (reply, outcome) = oneshot::channel();
        self.topics.send(command(reply)).await.map_err(|_| TopicsError::ExplorerStopped)?;
        outcome.await.unwrap_or(Err(TopicsError::ExplorerStopped))
    }

    /// Leaves its rooms and its gateway.
    pub async fn leave(&self) {
        self.send_command(Command::Leave).await;
    }

    async fn send_command(&self, order: Command) {
        // An explorer that is gone takes no orders; the end of its events says so.
        let _ = self.commands.send(order).await;
    }
}

/// The explorer's own loop, and its goodbye.
async fn run(
    mut rooms: Rooms,
    commands: mpsc::Receiver<Command>,
    mut link_events: mpsc::Receiver<LinkEvent>,
    desired: watch::Sender<DesiredState>,
    events: mpsc::Sender<Event>,
) {
    run_loop(&mut rooms, commands, &mut link_events, &desired, &events).await;
    drop((rooms, desired));
    // The link says goodbye, too. Nobody listens any more when the explorer was dropped.
    while let Some(news) = link_events.recv().await {
        if let LinkEvent::Event(event) = news {
            let _ = events.send(event).await;
        }
    }
}

/// Orders and news of islands in, rooms and wishes out.
async fn run_loop(
    rooms: &mut Rooms,
    mut commands: mpsc::Receiver<Command>,
    link_events: &mut mpsc::Receiver<LinkEvent>,
    desired: &watch::Sender<DesiredState>,
    events: &mpsc::Sender<Event>,
) {
    // Orders are taken even while nobody takes events: whoever gives them may be the one.
    let mut pending: Option<Event> = None;
    loop {
        tokio::select! {
            // What is said on hearing of a room is said there: its progress comes first.
            biased;
            progress = rooms.progress() => {
                if progress == Some(SignInNeeded) {
                    desired.send_modify(|wishes| wishes.sign_in_requests += 1);
                }
            }
            order = commands.recv() => match order {
                Some(Command::Heartbeat(heartbeat)) => desired.send_modify(|wishes| wishes.set_heartbeat(heartbeat)),
                // Whoever said it may not care where.
                Some(Command::Send(say, answer)) => drop(answer.send(rooms.send(&say))),
                Some(Command::Leave) | None => return,
            },
            () = events.closed() => return,
            news = link_events.recv(), if pending.is_none() => match news {
                Some(LinkEvent::IslandChanged(change)) => pending = rooms.apply_assignment(change),
                Some(LinkEvent::SignedIn { keeps_room }) => {
                    rooms.signed_in(keeps_room);
                    pending = Some(Event::SignedIn);
                }
                Some(LinkEvent::Event(event)) => pending = Some(event),
                None => return,
            },
            place = events.reserve(), if pending.is_some() => match (place, pending.take()) {
                (Ok(place), Some(event)) => place.send(event),
                _ => return,
            },
        }
    }
}
