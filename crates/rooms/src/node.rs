use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use admission::{ConnectionLimiter, Rate, Verifier};
use bus::{Bus, Headers, Subscription};
use metrics::Counter;
use protocol::{
    IslandId, Message as _, RoomName, Subject, Ulid,
    atoll_bus::{MembershipEnded, RoomSeats, TransportAnnouncement},
    is_far_ahead, subject, unix_ms,
    v3::JoinIslandMessage,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use transports::ws_room;

use crate::{
    Settings,
    egress::EgressLimits,
    evictions::PendingEvictions,
    node_name::{NameTaken, NodeNameGuard},
    registry::{NodeLimits, Registry},
    room::Room,
    send_queue::QueueLimits,
};

/// What all sockets of a node share.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) tokens: Arc<ws_room::Verifier>,
    pub(crate) verifier: Verifier,
    pub(crate) handshakes: ConnectionLimiter,
    pub(crate) registry: Registry,
    pub(crate) counters: Counters,
    /// One clone a socket.
    pub(crate) sockets: Arc<()>,
    /// When it began, in milliseconds since the Unix epoch.
    started_ms: u64,
    /// It has announced itself.
    announced: AtomicBool,
    dirty_rooms: Mutex<Vec<Arc<Room>>>,
    dirty_notify: Notify,
}

/// Counters of the message path, looked up once.
pub(crate) struct Counters {
    pub(crate) in_messages: Counter,
    pub(crate) in_bytes: Counter,
    pub(crate) out_messages: Counter,
    pub(crate) out_bytes: Counter,
    pub(crate) unknown_messages: Counter,
    pub(crate) ingress_dropped: Counter,
}

/// What a node has to hear.
pub(crate) struct NodeSubscriptions {
    /// Whose membership ends, and who comes back.
    pub(crate) membership_events: Subscription,
    /// Where other processes may have its name.
    pub(crate) name_guard: Option<NodeNameGuard>,
}

/// Whose membership ends, and who comes back; and which director leads, so that the bus knows whose
/// word still counts.
const SUBSCRIBED_SUBJECTS: [&str; 3] =
    [subject::MEMBERSHIP_ENDS, subject::ISLAND_PEER_JOINS, subject::ENGINE_DISCOVERY];
/// Membership ends and joins that may wait; above it the newest is dropped, and the sockets stay, or are
/// closed, and their owners come back.
const MEMBERSHIP_QUEUE: usize = 65_536;
/// How often a node says that it is there.
pub(crate) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

impl Node {
    pub(crate) fn new(
        settings: Settings,
        tokens: Arc<ws_room::Verifier>,
        verifier: Verifier,
        aliases: Arc<AtomicU32>,
    ) -> Self {
        let all = settings.queue_bytes;
        let limits = NodeLimits {
            max_room_size: settings.max_room_size,
            max_users: settings.max_users,
            queue_limits: QueueLimits { drop_unreliable_above: all / 2, close_above: all },
            revocation_ttl: settings.token_ttl,
            entry_rate: Rate::per_minute(
                settings.entries_per_minute,
                settings.entries_per_minute.div_ceil(3),
            ),
            egress: EgressLimits {
                room: settings.max_room_egress_bytes_per_second,
                node: settings.max_node_egress_bytes_per_second,
            },
        };
        let counters = Counters {
            in_messages: metrics::counter!("dcl_ws_rooms_in_messages"),
            in_bytes: metrics::counter!("dcl_ws_rooms_in_bytes"),
            out_messages: metrics::counter!("dcl_ws_rooms_out_messages"),
            out_bytes: metrics::counter!("dcl_ws_rooms_out_bytes"),
            ingress_dropped: metrics::counter!("atoll_rooms_ingress_dropped_total"),
            unknown_messages: metrics::counter!("dcl_ws_rooms_unknown_sent_messages_total"),
        };
        Self {
            handshakes: ConnectionLimiter::new("rooms", settings.handshakes),
            settings,
            tokens,
            verifier,
            registry: Registry::new(limits, aliases),
            counters,
            sockets: Arc::default(),
            started_ms: unix_ms(SystemTime::now()),
            announced: AtomicBool::default(),
            dirty_rooms: Mutex::default(),
            dirty_notify: Notify::new(),
        }
    }

    /// What the node has to hear from now on, for [`Node::run`].
    pub(crate) fn subscribe(&self, bus: &Bus) -> NodeSubscriptions {
        let claim = || NodeNameGuard::new(bus, self.settings.node.clone(), self.settings.node_url());
        NodeSubscriptions {
            membership_events: bus.subscribe("rooms", &SUBSCRIBED_SUBJECTS, MEMBERSHIP_QUEUE),
            name_guard: bus.is_shared().then(claim),
        }
    }

    /// Sends on what members say, announces the node once its name is known to be free, and ends
    /// memberships. Returns only if it is not.
    pub(crate) async fn run(
        &self,
        bus: Bus,
        NodeSubscriptions { membership_events: ends, name_guard: mut claim }: NodeSubscriptions,
    ) -> Result<(), NameTaken> {
        let announced = async {
            if let Some(claim) = &mut claim {
                claim.ensure_unique().await?;
            }
            let watched = async {
                if let Some(claim) = &mut claim {
                    claim.watch_conflicts().await;
                }
            };
            tokio::join!(self.announce_periodically(&bus), watched);
            Ok(())
        };
        let served = async { Ok(tokio::join!(self.flush_rooms(), self.handle_membership_events(ends))) };
        tokio::try_join!(announced, served).map(drop)
    }

    /// Stops letting people in. Those who are in stay, until the director has moved their islands.
    pub(crate) fn stop_accepting(&self, bus: &Bus) {
        self.handshakes.close();
        self.registry.stop_accepting();
        self.announce_change(bus);
    }

    /// The same, and has those who are in come back elsewhere.
    pub(crate) fn drain(&self, bus: &Bus) {
        self.handshakes.close();
        self.registry.drain();
        self.announce_change(bus);
    }

    /// Whether it has announced itself, so that people may be sent here.
    pub(crate) fn has_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    pub(crate) fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.sockets) - 1
    }

    /// Has a room flushed at the next tick.
    pub(crate) fn mark_dirty(&self, room: &Arc<Room>) {
        if room.mark_dirty() {
            self.dirty_rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room.clone());
            self.dirty_notify.notify_one();
        }
    }

    /// The tick: begins with the first message, so that a silent node sleeps.
    async fn flush_rooms(&self) {
        loop {
            self.dirty_notify.notified().await;
            time::sleep(self.settings.flush_interval).await;
            let rooms = std::mem::take(&mut *self.dirty_rooms.lock().unwrap_or_else(PoisonError::into_inner));
            for room in rooms {
                room.flush();
            }
        }
    }

    async fn announce_periodically(&self, bus: &Bus) {
        let mut ticks = time::interval(ANNOUNCE_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.announce_once(bus);
            self.announced.store(true, Ordering::Relaxed);
        }
    }

    /// Says at once what has changed. Whose name may be another's says nothing.
    fn announce_change(&self, bus: &Bus) {
        if self.has_announced() {
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
            public_url: settings.node_url(),
            max_island_size: settings.max_island_size,
            available_seats: i32::try_from(settings.max_users.saturating_sub(users)).unwrap_or(i32::MAX),
            users: count(users),
            draining: self.registry.is_draining(),
            rooms: settings.fixed_room.iter().map(|name| self.seats(name)).collect(),
            started_ms: self.started_ms,
        };
        let subject = Subject::TransportAnnounce(settings.node.clone());
        bus.publish(&subject, Headers::default(), announcement.encode_to_vec());
    }

    fn seats(&self, name: &RoomName) -> RoomSeats {
        let members = self.registry.room(name).map_or(0, |room| room.members_count());
        let free = self.settings.max_room_size.saturating_sub(members);
        RoomSeats { room: name.to_string(), available_seats: u32::try_from(free).unwrap_or(u32::MAX) }
    }

    /// Closes the sockets of those who left an island, after the grace, unless they have come back to
    /// it by then. Silence ends nothing.
    async fn handle_membership_events(&self, mut ends: Subscription) {
        let mut ending = PendingEvictions::default();
        loop {
            let next = ending.next_due().unwrap_or_else(|| Instant::now() + ANNOUNCE_INTERVAL);
            tokio::select! {
                envelope = ends.next() => {
                    let Some(envelope) = envelope else { return };
                    match envelope.subject() {
                        Some(Subject::MembershipEnded(island)) => {
                            if let Ok(end) = MembershipEnded::decode(envelope.payload) {
                                self.on_membership_ended(&island, &end, &mut ending);
                            }
                        }
                        Some(Subject::IslandPeerJoin(island)) => {
                            let joined = JoinIslandMessage::decode(envelope.payload).unwrap_or_default();
                            if let Ok(address) = joined.peer_id.parse() {
                                ending.cancel_on_join(island, address);
                            }
                        }
                        _ => {}
                    }
                }
                () = time::sleep_until(next) => {
                    while let Some((island, address, minted_before)) = ending.pop_due(Instant::now()) {
                        if let Some(room) = self.registry.room(&(&island).into()) {
                            room.evict(address, minted_before);
                        }
                    }
                }
            }
        }
    }

    fn on_membership_ended(&self, island: &IslandId, end: &MembershipEnded, ending: &mut PendingEvictions) {
        let minted_before = end.minted_before.parse::<Ulid>().ok();
        // A later time would void tokens that are minted long after this message.
        let believed = |ulid: &Ulid| !is_far_ahead(ulid.timestamp_ms(), unix_ms(SystemTime::now()));
        let Some(minted_before) = minted_before.filter(believed) else {
            metrics::counter!("atoll_rooms_ends_refused_total").increment(1);
            return;
        };
        // An island that moved is named with the node that it left.
        let moved = !end.node.is_empty();
        if moved && end.node != self.settings.node.as_str() {
            return;
        }
        let (room, now) = (island.into(), Instant::now());
        let due = now + self.settings.grace;
        for address in end.peers.iter().filter_map(|peer| peer.parse().ok()) {
            self.registry.revoke(&room, address, minted_before, now);
            if end.taken_over {
                ending.schedule_takeover(due, island, address, minted_before);
            } else {
                ending.schedule(due, island, address, minted_before, moved);
            }
        }
    }
}
