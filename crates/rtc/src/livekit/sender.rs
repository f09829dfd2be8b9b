//! Sends messages into the room.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use livekit_protocol::{DataPacket, UserPacket, data_packet};
use prost::Message as _;
use tokio::sync::mpsc;

use super::error::SendError;

/// The most bytes of a packet with its envelope.
pub const MAX_PACKET_BYTES: usize = 64_000;
/// Above so many bytes with its envelope, a lossy message is sent in fragments, and is lost with any of them.
pub const LOSSY_RELIABLE_BYTES: usize = 1_300;

/// Reliable messages that wait to be sent. When it is full, [`SendError::QueueFull`].
pub(crate) const RELIABLE_QUEUE: usize = 256;
/// Lossy messages that wait to be sent. When it is full, [`SendError::QueueFull`].
pub(crate) const LOSSY_QUEUE: usize = 64;

/// Sends messages to all participants of the room. Cheap to clone. It never waits: each channel has a bounded queue,
/// of 256 reliable and 64 lossy messages.
#[derive(Debug, Clone)]
pub struct DataSender {
    pub(crate) state: Arc<SharedState>,
    pub(crate) reliable: mpsc::Sender<QueueItem>,
    pub(crate) lossy: mpsc::Sender<QueueItem>,
}

/// An item of a send queue.
#[derive(Debug)]
pub(crate) enum QueueItem {
    /// A packet without its number.
    Packet(Box<DataPacket>),
    /// A request to report when the server has acknowledged everything before it.
    Flush(tokio::sync::oneshot::Sender<()>),
}

/// The state that the task of the participant shares with its handles.
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    phase: AtomicU8,
    may_publish: AtomicBool,
    /// Received lossy messages that were dropped because the events were not read fast enough.
    pub(crate) lossy_dropped: Arc<AtomicU64>,
}

/// Which messages a participant accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceptance {
    None = 0,
    /// While it reconnects: reliable messages are queued, lossy ones would be outdated.
    Reliable = 1,
    All = 2,
}

impl SharedState {
    pub(crate) fn accept(&self, acceptance: Acceptance) {
        self.phase.store(acceptance as u8, Relaxed);
    }

    pub(crate) fn set_may_publish(&self, may_publish: bool) {
        self.may_publish.store(may_publish, Relaxed);
    }

    fn accepts(&self, reliable: bool) -> Result<(), SendError> {
        let needed = if reliable { Acceptance::Reliable } else { Acceptance::All };
        match self.phase.load(Relaxed) >= needed as u8 {
            false => Err(SendError::NotConnected),
            true if !self.may_publish.load(Relaxed) => Err(SendError::NotPermitted),
            true => Ok(()),
        }
    }
}

impl DataSender {
    /// Queues a message for the reliable channel: it arrives in order, also after a resumed connection.
    ///
    /// # Errors
    /// [`SendError`]. While the participant reconnects, messages are queued.
    pub fn send_reliable(&self, payload: Bytes, topic: Option<&str>) -> Result<(), SendError> {
        self.send(true, payload, topic)
    }

    /// Queues a message for the lossy channel: it is sent once, and may be lost. Keep it below
    /// [`LOSSY_RELIABLE_BYTES`].
    ///
    /// # Errors
    /// [`SendError`]. While the participant reconnects, [`SendError::NotConnected`].
    pub fn send_lossy(&self, payload: Bytes, topic: Option<&str>) -> Result<(), SendError> {
        self.send(false, payload, topic)
    }

    fn send(&self, reliable: bool, payload: Bytes, topic: Option<&str>) -> Result<(), SendError> {
        self.state.accepts(reliable)?;
        let user =
            UserPacket { payload: payload.into(), topic: topic.map(str::to_owned), ..UserPacket::default() };
        // With the longest number, so that the limit does not depend on it.
        let packet = Box::new(envelope(user, u32::MAX));
        let bytes = packet.encoded_len();
        if bytes > MAX_PACKET_BYTES {
            return Err(SendError::TooLarge(bytes));
        }
        let queue = if reliable { &self.reliable } else { &self.lossy };
        queue.try_send(QueueItem::Packet(packet)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
        })
    }
}

/// The packet of a message. `sequence` numbers the reliable messages of a participant from 1 on; 0: not numbered.
fn envelope(user: UserPacket, sequence: u32) -> DataPacket {
    DataPacket { value: Some(data_packet::Value::User(user)), sequence, ..DataPacket::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(queue: usize) -> (DataSender, mpsc::Receiver<QueueItem>, mpsc::Receiver<QueueItem>) {
        let (reliable, reliable_queue) = mpsc::channel(queue);
        let (lossy, lossy_queue) = mpsc::channel(queue);
        let state = Arc::new(SharedState::default());
        state.accept(Acceptance::All);
        state.set_may_publish(true);
        (DataSender { state, reliable, lossy }, reliable_queue, lossy_queue)
    }

    #[test]
    fn packet_above_the_limit_is_refused_with_its_size() {
        let (sender, _reliable, _lossy) = sender(4);
        let largest = (0..MAX_PACKET_BYTES)
            .rev()
            .find(|&bytes| sender.send_reliable(vec![0; bytes].into(), None).is_ok())
            .unwrap();
        assert!(largest > MAX_PACKET_BYTES - 32, "{largest}");
        let refused = sender.send_reliable(vec![0; largest + 1].into(), None);
        assert_eq!(refused, Err(SendError::TooLarge(MAX_PACKET_BYTES + 1)));
        assert!(matches!(sender.send_lossy(vec![0; largest].into(), Some("t")), Err(SendError::TooLarge(_))));
    }

    #[test]
    fn full_queue_refuses_only_its_own_channel() {
        let (sender, mut reliable, _lossy) = sender(1);
        let send = |sender: &DataSender| sender.send_reliable("a".into(), None);
        assert_eq!(send(&sender), Ok(()));
        assert_eq!(send(&sender), Err(SendError::QueueFull));
        assert_eq!(sender.send_lossy("a".into(), None), Ok(()));
        reliable.try_recv().unwrap();
        assert_eq!(send(&sender), Ok(()));
    }

    #[test]
    fn acceptance_and_permission_decide() {
        let (sender, _reliable, _lossy) = sender(4);
        let results = || [sender.send_reliable("a".into(), None), sender.send_lossy("a".into(), None)];
        sender.state.accept(Acceptance::Reliable);
        assert_eq!(results(), [Ok(()), Err(SendError::NotConnected)]);
        sender.state.accept(Acceptance::None);
        assert_eq!(results(), [Err(SendError::NotConnected); 2]);
        sender.state.accept(Acceptance::All);
        sender.state.set_may_publish(false);
        assert_eq!(results(), [Err(SendError::NotPermitted); 2]);
    }
}
