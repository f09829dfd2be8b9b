//! Records the events of a bot's client in the pool and in the bot's log.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use client::{Disconnect, Event, RoomId};
use parking_lot::Mutex;
use protocol::{Address, ConnectionString, IslandId};
use tokio::time::Instant;

use super::{log::RoomLog, pool::BotPool, position_packet};

/// When the heartbeat was sent for which the assignment is timed: the first of a session, or that of a
/// jump. `None`: no such heartbeat waits for an assignment.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingHeartbeat(Arc<Mutex<Option<Instant>>>);

impl PendingHeartbeat {
    /// Times the next assignment from now on.
    pub(crate) fn start(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn take(&self) -> Option<Instant> {
        self.0.lock().take()
    }
}

/// Records the events of one bot.
pub(crate) struct EventRecorder {
    pool: Arc<BotPool>,
    bot: usize,
    pending: PendingHeartbeat,
}

impl EventRecorder {
    pub(crate) fn new(pool: Arc<BotPool>, bot: usize, pending: PendingHeartbeat) -> Self {
        Self { pool, bot, pending }
    }

    pub(crate) fn record(&self, event: Event) {
        match event {
            Event::SignedIn => self.signed_in(),
            Event::Disconnected { reason, .. } => self.disconnected(&reason),
            Event::IslandChanged { island, connection, from, .. } => {
                self.island_changed(island, &connection, from.as_deref());
            }
            Event::RoomEntered { room, island, url, transport, members, .. } => {
                let room_log = RoomLog::new(self.bot, island, url, transport, Instant::now());
                self.room_entered(room, room_log, members);
            }
            Event::RoomLeft { room, reason } => self.room_left(room, &reason),
            Event::PeerJoined { room, alias, address } => self.peer_joined(room, alias, address),
            Event::LinksChanged { room, neighbours } => {
                if let Some(room_log) = self.pool.log(self.bot).room_logs.get_mut(&room) {
                    room_log.links = neighbours.len();
                }
            }
            Event::Message { room, alias, body, .. } => self.message(room, alias, body),
            Event::Duplicate { room, alias, body } => self.duplicate(room, alias, body),
            Event::PeerLeft { .. } | Event::IslandJoined { .. } | Event::IslandLeft { .. } => {}
        }
    }

    fn signed_in(&self) {
        self.pool.log(self.bot).sessions.signed_in(Instant::now());
        self.pool.signed_in.fetch_add(1, Relaxed);
    }

    fn disconnected(&self, reason: &Disconnect) {
        tracing::debug!(bot = self.bot, %reason, "disconnected");
        {
            let (mut log, now) = (self.pool.log(self.bot), Instant::now());
            log.sessions.session_ended(now, reason);
            log.assignments.disconnected(now);
        }
        self.pool.disconnects.fetch_add(1, Relaxed);
    }

    fn island_changed(&self, island: IslandId, connection: &ConnectionString, from: Option<&str>) {
        if let Some(sent_at) = self.pending.take() {
            self.pool.record_assignment(sent_at);
        }
        {
            let (mut log, now) = (self.pool.log(self.bot), Instant::now());
            log.sessions.assigned(now, &island);
            if log.assignments.assigned(now, island.clone(), connection, from) {
                log.entry_began = Some(now);
            }
        }
        self.pool.set_island(self.bot, island, client::is_joinable(connection));
    }

    fn room_entered(&self, room: RoomId, mut room_log: RoomLog, members: BTreeMap<u32, Address>) {
        let known = |(alias, address)| Some((alias, self.pool.index_of(address)?));
        room_log.members = members.into_iter().filter_map(known).collect();
        let mut log = self.pool.log(self.bot);
        let took = log.entry_began.take().map(|began| room_log.entered - began);
        log.entries.push((room_log.transport, took));
        log.room_logs.insert(room, room_log);
    }

    fn room_left(&self, room: RoomId, reason: &Disconnect) {
        tracing::debug!(bot = self.bot, ended = %reason, "left a room");
        let mut log = self.pool.log(self.bot);
        log.sessions.room_left(reason);
        if let Some(room_log) = log.room_logs.get_mut(&room) {
            room_log.left = Some(Instant::now());
        }
    }

    fn peer_joined(&self, room: RoomId, alias: u32, address: Address) {
        if let Some(room_log) = self.pool.log(self.bot).room_logs.get_mut(&room)
            && let Some(index) = self.pool.index_of(address)
        {
            room_log.members.insert(alias, index);
        }
    }

    fn message(&self, room: RoomId, alias: u32, body: Bytes) {
        let Some(position) = position_packet::decode(body) else { return };
        let sender = {
            let mut log = self.pool.log(self.bot);
            let Some(room_log) = log.room_logs.get_mut(&room) else { return };
            let Some(&sender) = room_log.members.get(&alias) else { return };
            let (delivery, number) = self.pool.numbering.of(position.index);
            room_log.record_receipt(sender, (delivery, number));
            if !log.received.entry((sender, delivery)).or_default().insert(number) {
                self.pool.delivered_twice.fetch_add(1, Relaxed);
            }
            sender
        };
        self.pool.record_receipt(self.bot, sender, position.index);
    }

    fn duplicate(&self, room: RoomId, alias: u32, body: Bytes) {
        self.pool.duplicates.fetch_add(1, Relaxed);
        if let Some(position) = position_packet::decode(body)
            && let Some(room_log) = self.pool.log(self.bot).room_logs.get_mut(&room)
            && let Some(&sender) = room_log.members.get(&alias)
        {
            room_log.record_receipt(sender, self.pool.numbering.of(position.index));
        }
    }
}
