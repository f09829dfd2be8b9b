//! Writes the messages of a send queue to a data channel.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::BytesMut;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use webrtc::data_channel::DataChannel;

use super::sender::QueueItem;
use crate::connection::Label;

/// Commands to a writer. Dropping it ends the writer.
#[derive(Debug, Clone)]
pub(crate) struct WriterHandle(mpsc::Sender<Command>);

enum Command {
    Attach(Arc<dyn DataChannel>),
    Detach(oneshot::Sender<usize>),
}

/// The task of one channel. It outlives sessions: while it has no channel, reliable messages wait in the queue.
struct Writer {
    label: Label,
    queue: mpsc::Receiver<QueueItem>,
    channel: Option<Arc<dyn DataChannel>>,
    /// The next message, which waits until the channel accepts it.
    next: Option<QueueItem>,
    sequence: u32,
    unconfirmed: Unconfirmed,
}

/// The sizes of the sent messages that the server has not acknowledged, oldest first. They are bounded by the send
/// buffer of the connection.
#[derive(Debug, Default)]
struct Unconfirmed {
    sizes: VecDeque<usize>,
    bytes: usize,
}

/// The interval in which a flush looks whether everything is acknowledged.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

impl WriterHandle {
    pub(crate) fn spawn(label: Label, queue: mpsc::Receiver<QueueItem>) -> Self {
        // Each command is answered before the next one, or follows at the time of another session.
        let (commands, received) = mpsc::channel(4);
        let (channel, next, unconfirmed) = (None, None, Unconfirmed::default());
        tokio::spawn(Writer { label, queue, channel, next, sequence: 0, unconfirmed }.run(received));
        Self(commands)
    }

    /// Writes to this channel from now on.
    pub(crate) async fn attach(&self, channel: Arc<dyn DataChannel>) {
        let _ = self.0.send(Command::Attach(channel)).await;
    }

    /// Writes to no channel from now on. Returns how many messages the server has not acknowledged.
    pub(crate) async fn detach(&self) -> usize {
        let (reply, unconfirmed) = oneshot::channel();
        let _ = self.0.send(Command::Detach(reply)).await;
        unconfirmed.await.unwrap_or_default()
    }
}

impl Writer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let channel = self.channel.clone();
            let writable = async {
                match &channel {
                    Some(channel) => channel.writable().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.apply(command).await,
                    None => return,
                },
                writable = writable, if self.next.is_some() => match writable {
                    Ok(()) => self.write().await,
                    Err(_) => self.channel = None,
                },
                item = self.queue.recv(), if self.next.is_none() && self.channel.is_some() => match item {
                    Some(item) => self.next = Some(item),
                    None => return,
                },
            }
        }
    }

    async fn apply(&mut self, command: Command) {
        match command {
            Command::Attach(channel) => {
                self.channel = Some(channel);
                if self.label == Label::Lossy {
                    // Messages from before the connection was lost are outdated.
                    self.next = None;
                    while self.queue.try_recv().is_ok() {}
                }
            }
            Command::Detach(reply) => {
                if let Some(channel) = self.channel.take()
                    && let Ok(outstanding) = channel.outstanding_bytes().await
                {
                    self.unconfirmed.keep_last(outstanding);
                }
                let unconfirmed = std::mem::take(&mut self.unconfirmed);
                // Fails if the participant has ended.
                let _ = reply.send(unconfirmed.sizes.len());
            }
        }
    }

    /// Writes the next message, for which the channel has capacity. A message that the channel rejects is kept for
    /// the next channel.
    async fn write(&mut self) {
        let (Some(channel), Some(item)) = (self.channel.clone(), self.next.take()) else { return };
        match item {
            QueueItem::Packet(mut packet) => {
                let sequence = self.sequence.wrapping_add(1);
                // Only reliable messages are numbered: the server drops a number that is not above the last one.
                packet.sequence = if self.label == Label::Reliable { sequence } else { 0 };
                let size = packet.encoded_len();
                let mut bytes = BytesMut::with_capacity(size);
                packet.encode_raw(&mut bytes);
                if channel.send(bytes).await.is_err() {
                    (self.channel, self.next) = (None, Some(QueueItem::Packet(packet)));
                    return;
                }
                self.sequence = sequence;
                if self.label == Label::Reliable {
                    self.unconfirmed.push(size);
                    self.unconfirmed.keep_last(channel.outstanding_bytes().await.unwrap_or(usize::MAX));
                }
            }
            QueueItem::Flush(reply) => {
                // The requester limits the time, and drops the other end then.
                while !reply.is_closed() && channel.outstanding_bytes().await.is_ok_and(|bytes| bytes > 0) {
                    sleep(FLUSH_INTERVAL).await;
                }
                let _ = reply.send(());
            }
        }
    }
}

impl Unconfirmed {
    fn push(&mut self, bytes: usize) {
        self.sizes.push_back(bytes);
        self.bytes += bytes;
    }

    /// Removes the messages before the last `outstanding` bytes: they are acknowledged, because acknowledgements
    /// come in order.
    fn keep_last(&mut self, outstanding: usize) {
        while let Some(first) = self.sizes.front()
            && self.bytes - first >= outstanding
        {
            self.bytes -= first;
            self.sizes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_messages_are_removed_in_order() {
        let mut unconfirmed = Unconfirmed::default();
        for bytes in [10, 20, 30] {
            unconfirmed.push(bytes);
        }
        let mut count = |outstanding| {
            unconfirmed.keep_last(outstanding);
            unconfirmed.sizes.len()
        };
        assert_eq!(count(60), 3);
        assert_eq!(count(51), 3, "a part of the first message is not acknowledged");
        assert_eq!(count(50), 2);
        assert_eq!(count(1), 1);
        assert_eq!(count(0), 0);
    }
}
