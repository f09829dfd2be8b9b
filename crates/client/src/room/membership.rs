//! The membership of a room of any kind: its events, and the deduplication of its messages.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use protocol::{Address, IslandId};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{Disconnect, Event, RoomId, connection::CLOSE_TIMEOUT, dedup::DedupRoom};

/// The progress of a connection.
#[derive(Debug)]
pub(crate) enum RoomProgress {
    /// The room has admitted the client.
    Entered,
    /// The connection has ended, or could not be established.
    Ended(Disconnect),
}

/// The end of a connection.
pub(super) struct Ended {
    pub(super) reason: Disconnect,
    /// Closes the connection if the client itself has left.
    pub(super) close: Option<BoxFuture<'static, ()>>,
}

/// A membership from the attempt to enter to its end. Its methods fail with [`Disconnect::Left`] if the client was
/// dropped.
pub(super) struct Membership {
    pub(super) room: RoomId,
    pub(super) dedup: DedupRoom,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) progress: mpsc::Sender<RoomProgress>,
    /// The addresses of the other members.
    pub(super) members: HashMap<u32, Address>,
}

/// The room has admitted the client.
pub(super) struct Welcome {
    pub(super) island: IslandId,
    /// The URL without the token.
    pub(super) url: String,
    /// The name of the transport.
    pub(super) transport: &'static str,
    /// The alias of the client.
    pub(super) alias: u32,
    /// The other members.
    pub(super) members: BTreeMap<u32, Address>,
}

impl Membership {
    /// The room has admitted the client.
    pub(super) async fn entered(&mut self, welcome: Welcome) -> Result<(), Disconnect> {
        // Sent before the event, so that a message in response to the event is accepted.
        let _ = self.progress.send(RoomProgress::Entered).await;
        let Welcome { island, url, transport, alias, members } = welcome;
        self.members = members.iter().map(|(&alias, &address)| (alias, address)).collect();
        self.emit(Event::RoomEntered { room: self.room, island, url, transport, alias, members }).await
    }

    pub(super) async fn peer_joined(&mut self, alias: u32, address: Address) -> Result<(), Disconnect> {
        self.members.insert(alias, address);
        self.emit(Event::PeerJoined { room: self.room, alias, address }).await
    }

    pub(super) async fn peer_left(&mut self, alias: u32) -> Result<(), Disconnect> {
        self.members.remove(&alias);
        self.emit(Event::PeerLeft { room: self.room, alias }).await
    }

    pub(super) async fn links_changed(&mut self, neighbours: BTreeSet<Address>) -> Result<(), Disconnect> {
        self.emit(Event::LinksChanged { room: self.room, neighbours }).await
    }

    /// A message was received. It is a duplicate if it arrived before, through another room.
    pub(super) async fn message(
        &mut self,
        alias: u32,
        sender: Option<Address>,
        body: Bytes,
    ) -> Result<(), Disconnect> {
        let room = self.room;
        let is_duplicate =
            sender.is_some_and(|sender| self.dedup.is_duplicate(sender, &body, Instant::now()));
        self.emit(match is_duplicate {
            false => Event::Message { room, alias, sender, body },
            true => Event::Duplicate { room, alias, body },
        })
        .await
    }

    /// Waits until the client has left the room.
    pub(super) async fn left(progress: mpsc::Sender<RoomProgress>) {
        progress.closed().await;
    }

    /// The same, and the time that queued messages have to be sent.
    pub(super) async fn left_and_sent(progress: mpsc::Sender<RoomProgress>) {
        progress.closed().await;
        sleep(CLOSE_TIMEOUT).await;
    }

    /// Reports the end of the membership.
    pub(super) async fn ended(self, reason: Disconnect) {
        drop(self.dedup);
        // Sending fails if the client was dropped.
        let _ = self.events.send(Event::RoomLeft { room: self.room, reason: reason.clone() }).await;
        let _ = self.progress.send(RoomProgress::Ended(reason)).await;
    }

    async fn emit(&self, event: Event) -> Result<(), Disconnect> {
        self.events.send(event).await.map_err(|_| Disconnect::Left)
    }
}
