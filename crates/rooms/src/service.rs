use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use admission::{Door, Verifier};
use axum::Router;
use bus::{Bus, Headers, Subscription};
use metrics::Counter;
use protocol::{
    Address, IslandId, Message as _, Subject, Ulid,
    atoll_bus::{MembershipEnded, TransportAnnouncement},
    subject,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use transports::ws_room;

use crate::{
    Settings,
    outbox::Bounds,
    registry::{Limits, Registry},
    room::Room,
    router,
};

/// A room node. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Shared>);

/// What all sockets of a node share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) tokens: ws_room::Verifier,
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
/// Membership ends that may wait; above it the newest is dropped, and the sockets stay.
const MEMBERSHIP_QUEUE: usize = 65_536;

impl Rooms {
    /// A node with these settings, which takes tokens of `tokens` and chains of `verifier`.
    pub fn new(settings: Settings, tokens: ws_room::Verifier, verifier: Verifier) -> Self {
        let all = settings.queue_bytes;
        let registry = Registry::new(Limits {
            max_room_size: settings.max_room_size,
            max_users: settings.max_users,
            bounds: Bounds { unreliable: all / 2, all },
            remember: settings.token_ttl,
        });
        let counters = Counters {
            in_messages: metrics::counter!("dcl_ws_rooms_in_messages"),
            in_bytes: metrics::counter!("dcl_ws_rooms_in_bytes"),
            out_messages: metrics::counter!("dcl_ws_rooms_out_messages"),
            out_bytes: metrics::counter!("dcl_ws_rooms_out_bytes"),
            unknown_messages: metrics::counter!("dcl_ws_rooms_unknown_sent_messages_total"),
        };
        let door = Door::new(settings.door);
        Self(Arc::new(Shared {
            settings,
            tokens,
            verifier,
            door,
            registry,
            counters,
            sockets: Arc::default(),
            dirty: Mutex::default(),
            dirtied: Notify::new(),
        }))
    }

    /// The endpoints: `/rooms/{room}` and `/rooms/status`, the latter under `/comms` too.
    pub fn router(&self) -> Router {
        router::router(self.0.clone())
    }

    /// What the node has to hear from now on, for [`Rooms::run`].
    pub fn subscribe(&self, bus: &Bus) -> Subscription {
        bus.subscribe("rooms", &[subject::MEMBERSHIP_ENDS], MEMBERSHIP_QUEUE)
    }

    /// Sends on what members say, announces the node, and ends memberships. Does not return.
    pub async fn run(&self, bus: Bus, ends: Subscription) {
        tokio::join!(self.0.flush_rooms(), self.0.announce(&bus), self.0.end_memberships(ends));
    }

    /// Stops letting people in, tells those who are in to come back elsewhere, and says so on the
    /// bus. Their sockets close as soon as what is queued has been written.
    pub fn drain(&self, bus: &Bus) {
        self.0.door.close();
        self.0.registry.drain();
        self.0.announce_once(bus);
    }

    /// How many sockets are open: in a room, on their way in, or on their way out.
    pub fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.0.sockets) - 1
    }

    /// Sets the gauges to what holds now.
    pub fn observe(&self) {
        let registry = &self.0.registry;
        metrics::gauge!("dcl_ws_rooms_count").set(registry.sizes().len() as f64);
        metrics::gauge!("dcl_ws_rooms_connections").set(registry.users_count() as f64);
        metrics::gauge!("atoll_rooms_sockets").set(self.sockets_count() as f64);
    }
}

impl Shared {
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
            public_url: settings.public_url.clone(),
            max_island_size: settings.max_island_size,
            available_seats: i32::try_from(settings.max_users.saturating_sub(users)).unwrap_or(i32::MAX),
            users: count(users),
            draining: self.registry.is_draining(),
        };
        let subject = Subject::TransportAnnounce(settings.node.clone());
        bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
    }

    /// Closes the sockets of those who left an island, after the grace. Silence ends nothing.
    async fn end_memberships(&self, mut ends: Subscription) {
        let mut due: VecDeque<(Instant, IslandId, Address, Ulid)> = VecDeque::new();
        loop {
            let next = due.front().map_or_else(|| Instant::now() + ANNOUNCE_INTERVAL, |end| end.0);
            tokio::select! {
                envelope = ends.next() => {
                    let Some(envelope) = envelope else { return };
                    let Some(Subject::MembershipEnded(island)) = envelope.subject() else { continue };
                    let Ok(end) = MembershipEnded::decode(envelope.payload) else { continue };
                    let Ok(minted_before) = end.minted_before.parse::<Ulid>() else { continue };
                    if !(end.node.is_empty() || end.node == self.settings.node.as_str()) {
                        continue;
                    }
                    let now = Instant::now();
                    for address in end.peers.iter().filter_map(|peer| peer.parse().ok()) {
                        self.registry.revoke(&island, address, minted_before, now);
                        due.push_back((now + self.settings.grace, island.clone(), address, minted_before));
                    }
                }
                () = time::sleep_until(next) => {
                    while let Some((at, ..)) = due.front() && *at <= Instant::now() {
                        let Some((_, island, address, minted_before)) = due.pop_front() else { break };
                        if let Some(room) = self.registry.room(&island) {
                            room.end(address, minted_before);
                        }
                    }
                }
            }
        }
    }
}
