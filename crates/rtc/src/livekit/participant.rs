//! The public handle of a participant.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::sync::{mpsc, oneshot};

use super::{
    error::JoinError,
    event::Event,
    options::Options,
    sender::{DataSender, LOSSY_QUEUE, RELIABLE_QUEUE, SharedState},
    task::Task,
};

/// Events that wait to be read.
const EVENT_QUEUE: usize = 1024;

/// A participant of a LiveKit room. It runs in tasks of its own, and leaves when this is dropped.
///
/// Events must be read with [`Participant::next`]. While 1,024 of them are queued, reliable messages wait, at last
/// at the server, which drops them for a reader that stays slow; lossy messages are dropped and counted; and
/// the signalling socket is read once fewer than 256 joins and leaves wait.
#[derive(Debug)]
pub struct Participant {
    events: mpsc::Receiver<Event>,
    sender: DataSender,
    /// The participant leaves when this is dropped.
    stop: Option<oneshot::Sender<()>>,
}

impl Participant {
    /// Joins the room of the token. Returns when the data channels are open. The first event is
    /// [`Event::Joined`]. If this future is dropped, the participant leaves.
    ///
    /// # Errors
    /// [`JoinError`], after [`Options::join_timeout`] at the latest.
    pub async fn join(options: Options) -> Result<Self, JoinError> {
        let (events_sender, events) = mpsc::channel(EVENT_QUEUE);
        let (reliable, reliable_queue) = mpsc::channel(RELIABLE_QUEUE);
        let (lossy, lossy_queue) = mpsc::channel(LOSSY_QUEUE);
        let (stop, stopped) = oneshot::channel();
        let (reply, joined) = oneshot::channel();
        let sender = DataSender { state: Arc::new(SharedState::default()), reliable, lossy };
        let task = Task::new(options, sender.clone(), [reliable_queue, lossy_queue], events_sender, reply)?;
        tokio::spawn(task.run(stopped));
        let participant = Self { events, sender, stop: Some(stop) };
        let ended = || JoinError::Signalling("the participant has stopped".to_owned());
        joined.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(participant)
    }

    /// A handle that sends messages.
    pub fn sender(&self) -> DataSender {
        self.sender.clone()
    }

    /// The next event; `None` after [`Event::Left`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The number of received lossy messages that were dropped because events were not read fast enough.
    pub fn lossy_dropped(&self) -> u64 {
        self.sender.state.lossy_dropped.load(Relaxed)
    }

    /// Leaves the room: queued reliable messages have one second to be sent, and the server is sent a Leave, so that
    /// it announces the leave at once. Events that were not read are discarded.
    pub async fn close(mut self) {
        self.stop = None;
        while self.events.recv().await.is_some() {}
    }
}
