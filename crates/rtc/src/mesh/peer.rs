//! The public handles of a mesh peer.

use std::sync::Arc;

use protocol::mesh::{Plan, Signal};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    counters::{Counters, LiveCounters},
    error::InputError,
    event::Event,
    ice_servers::IceServers,
    options::Options,
    sender::{LOSSY_QUEUE, MeshSender, RELIABLE_QUEUE},
    task::{Input, Task},
};

/// Inputs that wait.
const INPUTS: usize = 256;
/// Events that wait between the task and its reader, besides those that the task itself keeps.
const EVENTS: usize = 16;

/// A member of the mesh of an island. It runs in tasks of its own, and closes its links when this is dropped.
///
/// Events must be read with [`MeshPeer::next`]. While 1,024 received messages or 512 signals are queued, the newest
/// is dropped and counted; negotiating and forwarding for others continues.
#[derive(Debug)]
pub struct MeshPeer {
    events: mpsc::Receiver<Event>,
    inputs: MeshInputs,
    sender: MeshSender,
    counters: Arc<LiveCounters>,
    /// The peer is closed when this is dropped.
    stop: Option<oneshot::Sender<()>>,
}

/// Passes the messages of the gateway to a peer. Cheap to clone. It never waits: the queue has 256 inputs.
#[derive(Debug, Clone)]
pub struct MeshInputs(mpsc::Sender<Input>);

impl MeshPeer {
    /// Starts a peer, which opens no socket before its first plan. Requires a Tokio runtime.
    pub fn start(options: Options) -> Self {
        let (event_sender, events) = mpsc::channel(EVENTS);
        let (inputs, input_queue) = mpsc::channel(INPUTS);
        let (reliable, reliable_queue) = mpsc::channel(RELIABLE_QUEUE);
        let (lossy, lossy_queue) = mpsc::channel(LOSSY_QUEUE);
        let (stop, stopped) = oneshot::channel();
        let counters = Arc::new(LiveCounters::default());
        let queues = [reliable_queue, lossy_queue];
        let task = Task::new(options, input_queue, queues, event_sender, counters.clone());
        tokio::spawn(task.run(stopped));
        let (inputs, sender) = (MeshInputs(inputs), MeshSender { reliable, lossy });
        Self { events, inputs, sender, counters, stop: Some(stop) }
    }

    /// A handle for the messages of the gateway.
    pub fn inputs(&self) -> MeshInputs {
        self.inputs.clone()
    }

    /// A handle that sends messages.
    pub fn sender(&self) -> MeshSender {
        self.sender.clone()
    }

    /// The next event; `None` after the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters.snapshot()
    }

    /// Closes all links: queued messages have one second to be sent. Events that were not read are discarded.
    pub async fn close(mut self) {
        self.stop = None;
        while self.events.recv().await.is_some() {}
    }
}

impl MeshInputs {
    /// A plan of the director. One that is malformed, of another island or not newer is counted and ignored.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn plan(&self, plan: Plan) -> Result<(), InputError> {
        self.push(Input::Plan(plan))
    }

    /// A signal of another member: `peer` is its sender, which the gateway has authenticated. One that is not expected
    /// is counted and ignored.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn signal(&self, signal: Signal) -> Result<(), InputError> {
        self.push(Input::Signal(signal))
    }

    /// ICE servers with fresh credentials. They are used from the next negotiation or ICE restart on; existing links are
    /// not touched.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn ice_servers(&self, servers: IceServers) -> Result<(), InputError> {
        self.push(Input::IceServers(servers))
    }

    fn push(&self, input: Input) -> Result<(), InputError> {
        self.0.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => InputError::QueueFull,
            TrySendError::Closed(_) => InputError::Closed,
        })
    }
}
