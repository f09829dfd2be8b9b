//! The connection to a room of any kind. Each connection is a task of its own.

mod address;
mod destination;
#[cfg(feature = "webrtc")]
mod livekit;
mod membership;
#[cfg(feature = "webrtc")]
mod mesh;
mod ws_room;

use std::collections::HashMap;

use protocol::IslandId;
use tokio::sync::mpsc;

use crate::{
    Disconnect, Event, RoomId,
    dedup::Dedup,
    mesh_link::{MESH_QUEUE, MeshMessage},
};

pub(crate) use address::RoomAddress;
pub use address::is_joinable;
pub(crate) use destination::{Destination, OutgoingMessage};
pub(crate) use membership::RoomProgress;
use membership::{Ended, Membership};

/// A connection to a room, or the attempt at one. Dropping it leaves the room.
#[derive(Debug)]
pub(crate) struct RoomConnection {
    id: RoomId,
    outgoing: mpsc::Sender<OutgoingMessage>,
    progress: mpsc::Receiver<RoomProgress>,
    /// The island, if the room is a mesh, and the messages of the gateway for it.
    mesh_of: Option<IslandId>,
    mesh: mpsc::Sender<MeshMessage>,
    entered: bool,
    send_mode: SendMode,
}

/// The time from which messages may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendMode {
    /// From the beginning: messages are queued until the welcome.
    QueueUntilWelcome,
    /// After the welcome: earlier messages are not sent in this room.
    AfterWelcome,
    /// Never: messages are not sent in this room any more.
    Never,
}

/// The capacity of the queue of outgoing messages. When it is full, the newest message is dropped.
const OUTGOING_QUEUE: usize = 256;

impl RoomConnection {
    /// Enters a room in a task of its own.
    pub(crate) fn open(
        id: RoomId,
        destination: Destination,
        dedup: &Dedup,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (outgoing, queued) = mpsc::channel(OUTGOING_QUEUE);
        let (mesh, from_gateway) = mpsc::channel(MESH_QUEUE);
        // The task reports at most one `Entered` and one `Ended`.
        let (progress_sender, progress) = mpsc::channel(2);
        let mut membership = Membership {
            room: id,
            dedup: dedup.register(id),
            events,
            progress: progress_sender,
            members: HashMap::new(),
        };
        let mesh_of = destination.address.is_mesh().then(|| destination.island.clone());
        #[cfg(not(feature = "webrtc"))]
        drop(from_gateway);
        tokio::spawn(async move {
            let Ended { reason, close } = match &destination.address {
                RoomAddress::WsRoom { url, url_with_token } => {
                    ws_room::run(&destination, &mut membership, queued, (url, url_with_token)).await
                }
                #[cfg(feature = "webrtc")]
                RoomAddress::LiveKit { url, token } => {
                    livekit::run(&destination, &mut membership, queued, (url, token)).await
                }
                #[cfg(feature = "webrtc")]
                RoomAddress::Mesh { ice, relay_only, .. } => {
                    let ice = (ice.as_deref(), *relay_only);
                    mesh::run(&destination, &mut membership, queued, from_gateway, ice).await
                }
            };
            let has_left = reason == Disconnect::Left;
            membership.ended(reason).await;
            if let Some(close) = close.filter(|_| has_left) {
                close.await;
            }
        });
        Self { id, outgoing, progress, mesh_of, mesh, entered: false, send_mode: SendMode::AfterWelcome }
    }

    /// The same connection, which queues messages until the welcome instead of discarding them.
    pub(crate) fn queue_until_welcome(self) -> Self {
        Self { send_mode: SendMode::QueueUntilWelcome, ..self }
    }

    /// The same connection, which sends no more messages.
    pub(crate) fn without_sending(self) -> Self {
        Self { send_mode: SendMode::Never, ..self }
    }

    /// The island, if the room is a mesh.
    pub(crate) fn mesh_of(&self) -> Option<&IslandId> {
        self.mesh_of.as_ref()
    }

    /// Passes a message of the gateway to a mesh. When its queue is full, the message is dropped.
    pub(crate) fn mesh_message(&self, message: MeshMessage) {
        if self.mesh.try_send(message).is_err() {
            tracing::debug!("a message of the gateway to a mesh was dropped");
        }
    }

    /// The next progress. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> RoomProgress {
        let progress = self.progress.recv().await.unwrap_or(RoomProgress::Ended(Disconnect::Left));
        self.entered |= matches!(progress, RoomProgress::Entered);
        progress
    }

    /// Whether the room has admitted the client.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered
    }

    /// Sends a message, and returns the id of this connection; `None` if the room has not admitted the
    /// client, or if the queue is full.
    pub(crate) fn send(&self, message: &OutgoingMessage) -> Option<RoomId> {
        let may_send = match self.send_mode {
            SendMode::QueueUntilWelcome => true,
            SendMode::AfterWelcome => self.entered,
            SendMode::Never => false,
        };
        (may_send && self.outgoing.try_send(message.clone()).is_ok()).then_some(self.id)
    }
}
