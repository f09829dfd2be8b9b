//! The public client: the event loop of [`Explorer`], and its [`Handle`].

use bytes::Bytes;
use identity::Identity;
use protocol::{Position, v3::Heartbeat};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Dialect, Event, RoomId, Settings, Subscription, TopicsError,
    link::{DesiredState, Link},
    link_event::LinkEvent,
    mesh_link::MeshOutputs,
    room::OutgoingMessage,
    rooms::{Rooms, SignInNeeded},
    subscription,
    topics::{self, COMMAND_QUEUE, Topics},
};

/// A running client. It leaves its rooms and its gateway on [`Handle::leave`], or when this is dropped.
///
/// The events must be read with [`Explorer::next`]: while 1,024 of them are queued, the client reads only
/// topics.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use client::{Event, Explorer, Position, Settings};
///
/// let gateway = client::discover("http://127.0.0.1:5000", None).await?;
/// let mut explorer = Explorer::start(Settings::new(gateway), client::guest()?);
/// let handle = explorer.handle();
/// handle.heartbeat(Position::new(8.0, 0.0, 8.0), None).await;
/// while let Some(event) = explorer.next().await {
///     match event {
///         // The assigned island: the client enters its room by itself.
///         Event::IslandChanged { island, .. } => println!("assigned to {island}"),
///         Event::RoomEntered { island, .. } => {
///             println!("in the room of {island}");
///             handle.send("hello".into(), false).await;
///         }
///         Event::RoomLeft { reason, .. } => println!("left a room: {reason}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Explorer {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

/// Sends commands to a client. After the client has stopped, commands have no effect or return an error.
/// Cheap to clone.
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

/// The capacity of the queues of commands and of events. When one is full, its senders wait.
const QUEUE: usize = 1024;
/// The capacity of the queue of link events. When it is full, the link keeps one more and stops reading.
const LINK_QUEUE: usize = 4;

impl Explorer {
    /// Starts a client, in tasks of the current Tokio runtime.
    pub fn start(settings: Settings, identity: Identity) -> Self {
        let (commands_sender, commands) = mpsc::channel(QUEUE);
        let (events_sender, events) = mpsc::channel(QUEUE);
        let (topics_sender, topics) = mpsc::channel(COMMAND_QUEUE);
        let (link_sender, link_events) = mpsc::channel(LINK_QUEUE);
        let (desired, desired_receiver) = watch::channel(DesiredState::default());
        let (to_gateway, mesh) = MeshOutputs::channel();
        let rooms = Rooms::new(settings.clone(), identity.clone(), events_sender.clone(), to_gateway);
        let dialect = settings.gateway.dialect;
        let link = Link {
            settings,
            identity,
            desired: desired_receiver,
            events: link_sender,
            topics: Topics::new(topics),
            mesh,
            resume_secret: Bytes::new(),
        };
        tokio::spawn(link.run());
        tokio::spawn(run(rooms, commands, link_events, desired, events_sender));
        Self { handle: Handle { commands: commands_sender, topics: topics_sender, dialect }, events }
    }

    /// A handle that sends commands to this client.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The next event; `None` after the client has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Handle {
    /// Sets the position, in metres, and the preferred island. `None` keeps the previous preference, an empty
    /// text clears it. The client sends both in a heartbeat, and repeats it by itself: at
    /// [`Settings::heartbeat_interval`], and after each sign-in.
    pub async fn heartbeat(&self, position: Position, desired_room: Option<String>) {
        let heartbeat = Heartbeat { position: Some(position.into()), desired_room };
        self.send_command(Command::Heartbeat(heartbeat)).await;
    }

    /// Sends a message (an RFC-4 packet) in every room that the client is in. Returns the rooms. A room with
    /// a full queue is left out. An `unreliable` message may be dropped by the room for slow readers.
    pub async fn send(&self, body: Bytes, unreliable: bool) -> Vec<RoomId> {
        let (reply, rooms) = oneshot::channel();
        self.send_command(Command::Send(OutgoingMessage { body, unreliable }, reply)).await;
        rooms.await.unwrap_or_default()
    }

    /// Publishes a message to all subscribers of `topic`, in any island, and waits until the gateway has
    /// accepted it.
    ///
    /// # Errors
    /// Among others [`TopicsError::NotSignedIn`]: messages are not queued for a later session.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>) -> Result<(), TopicsError> {
        let topic = topic.parse()?;
        self.request(|reply| topics::Command::Publish(topic, payload.into(), reply)).await
    }

    /// Subscribes to a pattern of topics, in which `*` matches any one segment. Waits, without a timeout,
    /// until the gateway has accepted the subscription. From then on it receives the published messages,
    /// across all later sessions, until the [`Subscription`] is dropped.
    pub async fn subscribe(&self, pattern: &str) -> Result<Subscription, TopicsError> {
        let pattern = pattern.parse()?;
        let (subscription, sink) = subscription::channel();
        // If this future is dropped, the subscription is dropped with it, and `Topics` removes it.
        self.request(|reply| topics::Command::Subscribe(pattern, sink, reply)).await?;
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

    /// Makes the client leave its rooms and its gateway, and stop.
    pub async fn leave(&self) {
        self.send_command(Command::Leave).await;
    }

    async fn send_command(&self, command: Command) {
        // Fails only after the client has stopped, which the end of its events shows.
        let _ = self.commands.send(command).await;
    }
}

/// Runs the event loop, and then the shutdown.
async fn run(
    mut rooms: Rooms,
    commands: mpsc::Receiver<Command>,
    mut link_events: mpsc::Receiver<LinkEvent>,
    desired: watch::Sender<DesiredState>,
    events: mpsc::Sender<Event>,
) {
    run_loop(&mut rooms, commands, &mut link_events, &desired, &events).await;
    drop((rooms, desired));
    // Dropping `desired` makes the link close its session. Its last events are forwarded, unless the receiver
    // of the events was dropped.
    while let Some(event) = link_events.recv().await {
        if let LinkEvent::Event(event) = event {
            let _ = events.send(event).await;
        }
    }
}

/// The event loop: applies commands and link events to the rooms and to the desired state of the link.
async fn run_loop(
    rooms: &mut Rooms,
    mut commands: mpsc::Receiver<Command>,
    link_events: &mut mpsc::Receiver<LinkEvent>,
    desired: &watch::Sender<DesiredState>,
    events: &mpsc::Sender<Event>,
) {
    // An event that waits for capacity. Commands are processed meanwhile, because the task that sends them
    // may be the one that reads the events.
    let mut pending: Option<Event> = None;
    loop {
        tokio::select! {
            // Room progress has precedence: a message that is sent in response to `RoomEntered` reaches that
            // room.
            biased;
            progress = rooms.progress() => {
                if progress == Some(SignInNeeded) {
                    desired.send_modify(|desired| desired.sign_in_requests += 1);
                }
            }
            command = commands.recv() => match command {
                Some(Command::Heartbeat(heartbeat)) => {
                    desired.send_modify(|desired| desired.set_heartbeat(heartbeat));
                }
                // Fails if the sender does not wait for the list of rooms.
                Some(Command::Send(message, reply)) => drop(reply.send(rooms.send(&message))),
                Some(Command::Leave) | None => return,
            },
            () = events.closed() => return,
            event = link_events.recv(), if pending.is_none() => match event {
                Some(LinkEvent::IslandChanged(change)) => pending = rooms.apply_assignment(change),
                Some(LinkEvent::SignedIn { keeps_room }) => {
                    rooms.signed_in(keeps_room);
                    pending = Some(Event::SignedIn);
                }
                Some(LinkEvent::Mesh(message)) => rooms.mesh_message(message),
                Some(LinkEvent::Event(event)) => pending = Some(event),
                None => return,
            },
            permit = events.reserve(), if pending.is_some() => match (permit, pending.take()) {
                (Ok(permit), Some(event)) => permit.send(event),
                _ => return,
            },
        }
    }
}
