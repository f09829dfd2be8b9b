//! Reads data channels.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use webrtc::data_channel::{DataChannel, DataChannelEvent};

use crate::connection::{ConnectionEvent, ConnectionEventKind, Label, LabelTexts};

/// A message that arrived on a channel of the connection `source`.
pub(crate) struct Incoming<T> {
    pub(crate) source: T,
    pub(crate) label: Label,
    pub(crate) data: Bytes,
}

/// Reads channels. Cheap to clone.
///
/// When the queue of messages is full, a reliable channel is not read: the queue of the `webrtc` crate (256
/// messages) fills, then the receive window of SCTP, and then the sender waits. A message of a lossy channel is
/// dropped and counted.
#[derive(Clone)]
pub(crate) struct ChannelReader<T> {
    pub(crate) source: T,
    pub(crate) labels: LabelTexts,
    pub(crate) messages: mpsc::Sender<Incoming<T>>,
    pub(crate) events: mpsc::Sender<ConnectionEvent<T>>,
    pub(crate) lossy_dropped: Arc<AtomicU64>,
}

impl<T: Copy + Send + Sync + 'static> ChannelReader<T> {
    /// Reads a channel in a task of its own, until the channel is closed. Messages of a channel with another
    /// label are discarded: left unread, they would block the channels beside it.
    pub(crate) fn spawn(self, channel: Arc<dyn DataChannel>) {
        tokio::spawn(async move {
            let Ok(name) = channel.label().await else { return };
            let label = self.labels.parse(&name);
            while let Some(event) = channel.poll().await {
                let is_read = match (event, label) {
                    (DataChannelEvent::OnOpen, Some(label)) => {
                        self.emit(ConnectionEventKind::ChannelOpened(label)).await
                    }
                    (DataChannelEvent::OnMessage(message), Some(label)) => {
                        self.received(label, message.data.freeze()).await
                    }
                    (DataChannelEvent::OnClose, _) => break,
                    _ => true,
                };
                if !is_read {
                    return;
                }
            }
            if label.is_some() {
                self.emit(ConnectionEventKind::ChannelClosed).await;
            }
        });
    }

    /// Returns whether the participant still exists.
    async fn emit(&self, kind: ConnectionEventKind) -> bool {
        self.events.send(ConnectionEvent { source: self.source, kind }).await.is_ok()
    }

    /// Returns whether the participant still exists.
    async fn received(&self, label: Label, data: Bytes) -> bool {
        let incoming = Incoming { source: self.source, label, data };
        match label {
            Label::Reliable => self.messages.send(incoming).await.is_ok(),
            Label::Lossy => match self.messages.try_send(incoming) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.lossy_dropped.fetch_add(1, Relaxed);
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            },
        }
    }
}
