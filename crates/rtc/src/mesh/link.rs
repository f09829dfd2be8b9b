//! The connection to one neighbour.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use webrtc::{
    data_channel::DataChannel,
    error::{Error, Result},
};

use super::{early::MAX_CANDIDATES, writer::SendQueue};
use crate::{
    channel::ChannelReader,
    connection::{Connection, ConnectionEvent, ConnectionSettings, Label, LabelTexts},
};

/// The data channels of a mesh.
pub(crate) const LABELS: LabelTexts = LabelTexts { reliable: "data", lossy: "lossy" };
/// The time without progress after which a link with waiting reliable packets counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// A connection and its send queues.
pub(crate) struct Link {
    /// Distinguishes it from older links to the same neighbour: their events may still be queued.
    pub(crate) number: u64,
    connection: Connection,
    settings: ConnectionSettings,
    /// By [`Label`].
    channels: [Option<Channel>; 2],
    /// The candidates of the other side since the last offer or answer.
    candidates: usize,
    /// The reliable packets that were written, and the time at which that was seen.
    progress: (u64, Instant),
}

struct Channel {
    queue: SendQueue,
    is_open: bool,
}

impl Link {
    /// Opens the sockets of a link.
    pub(crate) async fn open(
        number: u64,
        settings: ConnectionSettings,
        events: mpsc::Sender<ConnectionEvent<u64>>,
        now: Instant,
    ) -> Result<Self> {
        let connection = Connection::open(&settings, number, events).await?;
        Ok(Self { number, connection, settings, channels: [None, None], candidates: 0, progress: (0, now) })
    }

    /// Creates the channels, and returns the SDP of an offer.
    pub(crate) async fn offer(&mut self, reader: &ChannelReader<u64>) -> Result<String> {
        for label in Label::ALL {
            let channel = self.connection.create_channel(label, LABELS).await?;
            self.use_channel(label, channel, reader);
        }
        self.connection.offer(false).await.map(|sdp| self.permitted(sdp))
    }

    /// Returns the SDP of an offer that restarts ICE.
    pub(crate) async fn offer_restart(&mut self, settings: ConnectionSettings) -> Result<String> {
        self.use_settings(settings).await;
        self.connection.offer(true).await.map(|sdp| self.permitted(sdp))
    }

    /// Returns the SDP of an answer.
    pub(crate) async fn answer(&mut self, sdp: String) -> Result<String> {
        self.candidates = 0;
        self.connection.answer(sdp).await.map(|sdp| self.permitted(sdp))
    }

    /// Returns the SDP of an answer to an offer that restarts ICE.
    pub(crate) async fn answer_restart(
        &mut self,
        settings: ConnectionSettings,
        sdp: String,
    ) -> Result<String> {
        self.use_settings(settings).await;
        self.answer(sdp).await
    }

    pub(crate) async fn accept_answer(&mut self, sdp: String) -> Result<()> {
        self.connection.accept_answer(sdp).await
    }

    async fn use_settings(&mut self, settings: ConnectionSettings) {
        self.settings = settings;
        self.candidates = 0;
        self.connection.set_ice_servers(&self.settings).await;
    }

    /// Adds a candidate of the other side.
    pub(crate) async fn add_candidate(&mut self, json: &str) -> Result<()> {
        if self.candidates >= MAX_CANDIDATES {
            return Err(Error::Other("too many candidates".to_owned()));
        }
        self.candidates += 1;
        self.connection.add_candidate(json).await
    }

    /// Whether a local candidate may be sent to the other side.
    pub(crate) fn permits(&self, candidate: &str) -> bool {
        !self.settings.relay_only || candidate.contains(" typ relay")
    }

    /// The SDP without the candidates that may not be sent.
    fn permitted(&self, sdp: String) -> String {
        let is_permitted = |line: &&str| !line.starts_with("a=candidate:") || self.permits(line);
        sdp.split_inclusive('\n').filter(is_permitted).collect()
    }

    /// Uses a channel that the other side has created. Returns whether it is one of the two.
    pub(crate) async fn accept_channel(
        &mut self,
        channel: Arc<dyn DataChannel>,
        reader: &ChannelReader<u64>,
    ) -> bool {
        let label = channel.label().await.ok().and_then(|text| LABELS.parse(&text));
        let label = label.filter(|&label| self.channels[label as usize].is_none());
        if let Some(label) = label {
            self.use_channel(label, channel, reader);
        }
        label.is_some()
    }

    fn use_channel(&mut self, label: Label, channel: Arc<dyn DataChannel>, reader: &ChannelReader<u64>) {
        let queue = SendQueue::spawn(label, channel.clone());
        self.channels[label as usize] = Some(Channel { queue, is_open: false });
        ChannelReader { source: self.number, ..reader.clone() }.spawn(channel);
    }

    pub(crate) fn channel_opened(&mut self, label: Label) {
        if let Some(channel) = &mut self.channels[label as usize] {
            channel.is_open = true;
        }
    }

    /// Whether both channels are open.
    pub(crate) fn is_open(&self) -> bool {
        self.channels.iter().all(|channel| channel.as_ref().is_some_and(|channel| channel.is_open))
    }

    fn queue(&self, label: Label) -> Option<&SendQueue> {
        self.channels[label as usize].as_ref().map(|channel| &channel.queue)
    }

    /// Whether a reliable packet can be queued.
    pub(crate) fn has_capacity(&self) -> bool {
        self.queue(Label::Reliable).is_some_and(SendQueue::has_capacity)
    }

    /// Queues a packet. Returns whether there was capacity.
    pub(crate) fn send(&self, label: Label, packet: Bytes) -> bool {
        self.queue(label).is_some_and(|queue| queue.push(packet))
    }

    /// Whether reliable packets wait, and none was written for a while.
    pub(crate) fn is_stalled(&mut self, now: Instant) -> bool {
        let Some(queue) = self.queue(Label::Reliable) else { return false };
        let written = queue.written();
        if queue.is_empty() || written != self.progress.0 {
            self.progress = (written, now);
        }
        now - self.progress.1 >= STALLED_AFTER
    }

    /// Closes the connection. Packets that wait are discarded.
    pub(crate) fn close(self) {
        self.connection.close();
    }

    /// Closes the connection once all packets are acknowledged.
    pub(crate) async fn flush_and_close(self, timeout: Duration) {
        let queues = self.channels.into_iter().flatten().map(|channel| channel.queue.flush());
        let _ = tokio::time::timeout(timeout, futures_util::future::join_all(queues)).await;
        self.connection.close();
    }
}
