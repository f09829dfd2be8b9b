//! The send queue of one channel of a link.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use webrtc::data_channel::DataChannel;

use crate::connection::Label;

/// Reliable packets that wait for one link.
const RELIABLE_QUEUE: usize = 256;
/// Lossy packets that wait for one link.
const LOSSY_QUEUE: usize = 64;
/// The bytes that wait for one channel. A packet is queued while fewer wait.
const MAX_BYTES: usize = 1024 * 1024;
/// The interval in which the end of a writer looks whether everything is acknowledged.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// The queue, which a task of its own writes to the channel.
pub(crate) struct SendQueue {
    packets: mpsc::Sender<Bytes>,
    state: Arc<QueueState>,
    writer: JoinHandle<()>,
}

#[derive(Default)]
struct QueueState {
    bytes: AtomicUsize,
    /// The packets that were written so far.
    written: AtomicU64,
}

impl SendQueue {
    pub(crate) fn spawn(label: Label, channel: Arc<dyn DataChannel>) -> Self {
        let capacity = if label == Label::Reliable { RELIABLE_QUEUE } else { LOSSY_QUEUE };
        let (packets, queue) = mpsc::channel(capacity);
        let state = Arc::new(QueueState::default());
        let writer = tokio::spawn(write(channel, queue, state.clone()));
        Self { packets, state, writer }
    }

    /// Whether a packet can be queued.
    pub(crate) fn has_capacity(&self) -> bool {
        self.packets.capacity() > 0 && self.state.bytes.load(Relaxed) < MAX_BYTES
    }

    /// Queues a packet. Returns whether there was capacity.
    pub(crate) fn push(&self, packet: Bytes) -> bool {
        let bytes = packet.len();
        if !self.has_capacity() {
            return false;
        }
        // Before the writer can subtract them.
        self.state.bytes.fetch_add(bytes, Relaxed);
        let is_queued = self.packets.try_send(packet).is_ok();
        if !is_queued {
            self.state.bytes.fetch_sub(bytes, Relaxed);
        }
        is_queued
    }

    /// Whether no packet waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.packets.capacity() == self.packets.max_capacity()
    }

    /// The packets that were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.state.written.load(Relaxed)
    }

    /// Waits until all packets are written and acknowledged, or the channel is closed.
    pub(crate) async fn flush(self) {
        drop(self.packets);
        // Fails if the writer panicked.
        let _ = self.writer.await;
    }
}

async fn write(channel: Arc<dyn DataChannel>, mut queue: mpsc::Receiver<Bytes>, state: Arc<QueueState>) {
    while let Some(packet) = queue.recv().await {
        let is_written =
            channel.writable().await.is_ok() && channel.send(BytesMut::from(&packet[..])).await.is_ok();
        state.bytes.fetch_sub(packet.len(), Relaxed);
        if !is_written {
            return;
        }
        state.written.fetch_add(1, Relaxed);
    }
    while channel.outstanding_bytes().await.is_ok_and(|bytes| bytes > 0) {
        sleep(FLUSH_INTERVAL).await;
    }
}
