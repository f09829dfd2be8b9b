use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    time::Duration,
};

use admission::{Door, Verifier};
use bus::{Bus, Headers, Subscription};
use metrics::Counter;
use protocol::{
    IslandId, Message as _, Subject, Ulid,
    atoll_bus::{MembershipEnded, RoomSeats, TransportAnnouncement},
    v3::JoinIslandMessage,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use transports::ws_room;

use crate::{
    Settings,
    ending::Ending,
    outbox::Bounds,
    registry::{Limits, Registry},
    room::Room,
};

/// What all sockets of a node share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) tokens: Arc<ws_room::Verifier>,
    pub(crate) verifier: Verifier,
    pub(crate) door: Door,
    pub(crate) registry: Registry,
    pub(crate) counters: Counters,
    /// One clone a socket.
    pub(crate) sockets: Arc<()>,
    dirty: Mutex<Vec<Arc<Room>>>,
    dirtied: Notify,
}

/// Counters of the message path, looked up once.
pub(crate) struct Counters {
    pub(crate) in_messages: Counter,
    pub(crate) in_bytes: Counter,
    pub(crate) out_messages: Counter,
    pub(crate) out_bytes: Counter,
    pub(crate) unknown_messages: Counter,
}

/// How often a node says that it is there.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        tokens: Arc<ws_room::Verifier>,
        verifier: Verifier,
        aliases: Arc<AtomicU32>,
    ) -> Self {
        let all = settings.queue_bytes;
        let limits = Limits {
            max_room_size: settings.max_room_size,
            max_users: settings.max_users,
            bounds: Bounds { unreliable: all / 2, all },
            remember: settings.token_ttl,
        };
        let counters = Counters {
            in_messages: metrics::counter!("dcl_ws_rooms_in_messages"),
            in_bytes: metrics::counter!("dcl_ws_rooms_in_bytes"),
            out_messages: metrics::counter!("dcl_ws_rooms_out_messages"),
            out_bytes: metrics::counter!("dcl_ws_rooms_out_bytes"),
            unknown_messages: metrics::counter!("dcl_ws_rooms_unknown_sent_messages_total"),
        };
        Self {
            door: Door::new(settings.door),
            settings,
            tokens,
            verifier,
            registry: Registry::new(limits, aliases),
            counters,
            sockets: Arc::default(),
            dirty: Mutex::default(),
            dirtied: Notify::new(),
        }
    }

    /// Sends on what members say, announces the node, and ends memberships. Does not return.
    pub(crate) async fn run(&self, bus: Bus, ends: Subscription) {
        tokio::join!(self.flush_rooms(), self.announce(&bus), self.end_memberships(ends));
    }

    /// Stops letting people in. Those who are in stay, until the director has moved their islands.
    pub(crate) fn retire(&self, bus: &Bus) {
        self.door.close();
        self.registry.retire();
        self.announce_once(bus);
    }

    /// The same, and has those who are in come back elsewhere.
    pub(crate) fn drain(&self, bus: &Bus) {
        self.door.close();
        self.registry.drain();
        self.announce_once(bus);
    }

    pub(crate) fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.sockets) - 1
    }

    /// Has a room flushed at the next tick.
    pub(crate) fn mark_dirty(&self, room: &Arc<Room>) {
        if room.mark_dirty() {
            self.dirty.lock().unwrap_or_else(PoisonError::into_inner).push(room.clone());
            self.dirtied.notify_one();
        }
    }

    /// The tick: begins with the first message, so that a silent node sleeps.
    async fn flush_rooms(&self) {
        loop {
            self.dirtied.notified().await;
            time::sleep(self.settings.flush_interval).await;
            let rooms = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
            for room in rooms {
                room.flush();
            }
        }
    }

    async fn announce(&self, bus: &Bus) {
        let mut ticks = time::interval(ANNOUNCE_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.announce_once(bus);
        }
    }

    fn announce_once(&self, bus: &Bus) {
        let settings = &self.settings;
        let users = self.registry.users_count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let announcement = TransportAnnouncement {
            node: settings.node.to_string(),
            kind: "ws-room".to_owned(),
            public_url: format!("{}{}", settings.public_url, settings.path),
            max_island_size: settings.max_island_size,
            available_seats: i32::try_from(settings.max_users.saturating_sub(users)).unwrap_or(i32::MAX),
            users: count(users),
            draining: self.registry.is_draining(),
            rooms: settings.fixed_room.iter().map(|name| self.seats(name)).collect(),
        };
        let subject = Subject::TransportAnnounce(settings.node.clone());
        bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
    }

    fn seats(&self, name: &IslandId) -> RoomSeats {
        let members = self.registry.room(name).map_or(0, |room| room.members_count());
        let free = self.settings.max_room_size.saturating_sub(members);
        RoomSeats { room: name.to_string(), available_seats: u32::try_from(free).unwrap_or(u32::MAX) }
    }

    /// Closes the sockets of those who left an island, after the grace, unless they have come back to
    /// it by then. Silence ends nothing.
    async fn end_memberships(&self, mut ends: Subscription) {
        let mut ending = Ending::default();
        loop {
            let next = ending.next().unwrap_or_else(|| Instant::now() + ANNOUNCE_INTERVAL);
            tokio::select! {
                envelope = ends.next() => {
                    let Some(envelope) = envelope else { return };
                    match envelope.subject() {
                        Some(Subject::MembershipEnded(island)) => {
                            if let Ok(end) = MembershipEnded::decode(envelope.payload) {
                                self.end(&island, &end, &mut ending);
                            }
                        }
                        Some(Subject::IslandPeerJoin(island)) => {
                            let joined = JoinIslandMessage::decode(envelope.payload).unwrap_or_default();
                            if let Ok(address) = joined.peer_id.parse() {
                                ending.joined(island, address);
                            }
                        }
                        _ => {}
                    }
                }
                () = time::sleep_until(next) => {
                    while let Some((island, address, minted_before)) = ending.take_due(Instant::now()) {
                        if let Some(room) = self.registry.room(&island) {
                            room.end(address, minted_before);
                        }
                    }
                }
            }
        }
    }

    fn end(&self, island: &IslandId, end: &MembershipEnded, ending: &mut Ending) {
        let Ok(minted_before) = end.minted_before.parse::<Ulid>() else { return };
        // An island that moved is named with the node that it left.
        let moved = !end.node.is_empty();
        if moved && end.node != self.settings.node.as_str() {
            return;
        }
        let now = Instant::now();
        for address in end.peers.iter().filter_map(|peer| peer.parse().ok()) {
            self.registry.revoke(island, address, minted_before, now);
            ending.add(now + self.settings.grace, island, address, minted_before, moved);
        }
    }
}
