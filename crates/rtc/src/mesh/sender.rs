//! Sends messages to the members of the island.

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    error::SendError,
    packet::{MAX_PACKET_BYTES, largest_size},
};

/// Own reliable messages that wait. When it is full, [`SendError::QueueFull`].
pub(crate) const RELIABLE_QUEUE: usize = 256;
/// Own lossy messages that wait. When it is full, [`SendError::QueueFull`].
pub(crate) const LOSSY_QUEUE: usize = 64;

/// Sends messages to all members of the island. Cheap to clone. It never waits: each channel has a bounded queue, of
/// 256 reliable and 64 lossy messages. Before the first plan, messages stay in the queue.
#[derive(Debug, Clone)]
pub struct MeshSender {
    pub(crate) reliable: mpsc::Sender<Bytes>,
    pub(crate) lossy: mpsc::Sender<Bytes>,
}

impl MeshSender {
    /// Queues a message for the reliable channel. It waits while the links to many members are still being made, 3.5 s at
    /// most. See [`crate::mesh`] for the delivery.
    ///
    /// # Errors
    /// [`SendError`]. The queue is read while the links that the message takes have capacity.
    pub fn send_reliable(&self, payload: Bytes) -> Result<(), SendError> {
        send(&self.reliable, payload)
    }

    /// Queues a message for the lossy channel: it is sent once, and may be lost on every link.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_lossy(&self, payload: Bytes) -> Result<(), SendError> {
        send(&self.lossy, payload)
    }
}

fn send(queue: &mpsc::Sender<Bytes>, payload: Bytes) -> Result<(), SendError> {
    let bytes = largest_size(&payload);
    if bytes > MAX_PACKET_BYTES {
        return Err(SendError::TooLarge(bytes));
    }
    queue.try_send(payload).map_err(|error| match error {
        TrySendError::Full(_) => SendError::QueueFull,
        TrySendError::Closed(_) => SendError::Closed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_above_the_limit_is_refused_with_its_size() {
        let ((reliable, mut queue), (lossy, _lossy)) = (mpsc::channel(1), mpsc::channel(1));
        let sender = MeshSender { reliable, lossy };
        let envelope = largest_size(&vec![0; 60_000].into()) - 60_000;
        let largest = MAX_PACKET_BYTES - envelope;
        assert_eq!(sender.send_reliable(vec![0; largest].into()), Ok(()));
        assert_eq!(sender.send_reliable("a".into()), Err(SendError::QueueFull));
        let above = vec![0; largest + 1];
        assert_eq!(sender.send_lossy(above.into()), Err(SendError::TooLarge(MAX_PACKET_BYTES + 1)));
        queue.close();
        assert_eq!(sender.send_reliable("a".into()), Err(SendError::Closed));
    }
}
