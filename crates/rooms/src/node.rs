//! One room node: its shards, its announcements, and the evictions that the director requests.

use std::{
    iter,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::SystemTime,
};

use admission::{ConnectionLimiter, Rate, Verifier};
use bus::{Bus, Headers, Subscription};
use protocol::{
    IslandId, Message as _, RoomName, Subject, Ulid,
    atoll_bus::{MembershipEnded, RoomSeats, TransportAnnouncement},
    is_far_ahead, subject,
    timing::NODE_ANNOUNCE_INTERVAL,
    unix_ms,
    v3::JoinIslandMessage,
};
use tokio::{
    task::{self, JoinSet},
    time::{self, Instant},
};
use transports::ws_room;

use crate::{
    egress::EgressLimits,
    evictions::PendingEvictions,
    metrics::{self, MessageCounters},
    node_name::{NameTaken, NodeNameGuard},
    registry::{NodeLimits, Registry},
    send_queue::QueueLimits,
    settings::Settings,
    shard::Shard,
    shard_handle::ShardHandle,
};

/// One room node: the state that all its sockets share.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) tokens: Arc<ws_room::Verifier>,
    pub(crate) verifier: Verifier,
    pub(crate) handshakes: ConnectionLimiter,
    pub(crate) registry: Registry,
    pub(crate) counters: MessageCounters,
    /// Reference count of the open sockets: each holds a clone.
    pub(crate) sockets: Arc<()>,
    /// Start time, in milliseconds since the Unix epoch.
    started_ms: u64,
    /// Whether the node has announced itself.
    announced: AtomicBool,
}

/// The subscriptions of a node.
pub(crate) struct NodeSubscriptions {
    /// Ended memberships and joins of islands.
    pub(crate) membership_events: Subscription,
    /// Detects another process with the same node name; `None` on a bus within the process.
    pub(crate) name_guard: Option<NodeNameGuard>,
}

/// Ended memberships, joins of islands, and announcements of the leading director. The bus uses the latter to
/// discard messages of an earlier leader.
const SUBSCRIBED_SUBJECTS: [&str; 3] =
    [subject::MEMBERSHIP_ENDS, subject::ISLAND_PEER_JOINS, subject::ENGINE_DISCOVERY];
/// Ended memberships and joins that may be queued. On overflow the newest is dropped. A lost end leaves a
/// socket open; a lost join closes the socket of a peer that rejoined, and the client connects again.
const MEMBERSHIP_QUEUE: usize = 65_536;

impl Node {
    pub(crate) fn new(
        settings: Settings,
        tokens: Arc<ws_room::Verifier>,
        verifier: Verifier,
        next_alias: Arc<AtomicU32>,
    ) -> Self {
        let close_above = settings.queue_bytes;
        let limits = NodeLimits {
            max_room_size: settings.max_room_size,
            max_users: settings.max_users,
            queue_limits: QueueLimits { drop_unreliable_above: close_above / 2, close_above },
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
        let shards = thread::available_parallelism().map_or(1, NonZero::get);
        let shards = iter::repeat_with(Arc::<ShardHandle>::default).take(shards).collect();
        Self {
            handshakes: ConnectionLimiter::new("rooms", settings.handshakes),
            settings,
            tokens,
            verifier,
            registry: Registry::new(limits, next_alias, shards),
            counters: MessageCounters::new(),
            sockets: Arc::default(),
            started_ms: unix_ms(SystemTime::now()),
            announced: AtomicBool::default(),
        }
    }

    /// Subscribes to the messages that [`Node::run`] needs.
    pub(crate) fn subscribe(&self, bus: &Bus) -> NodeSubscriptions {
        let name_guard = || NodeNameGuard::new(bus, self.settings.node.clone(), self.settings.node_url());
        NodeSubscriptions {
            membership_events: bus.subscribe("rooms", &SUBSCRIBED_SUBJECTS, MEMBERSHIP_QUEUE),
            name_guard: bus.is_shared().then(name_guard),
        }
    }

    /// Serves the members, announces the node once its name is known to be free, and handles membership
    /// events. Returns an error if another process has the name; otherwise it returns only if a shard panics or
    /// cannot be created.
    pub(crate) async fn run(
        self: Arc<Self>,
        bus: Bus,
        NodeSubscriptions { membership_events: events, mut name_guard }: NodeSubscriptions,
    ) -> Result<(), NameTaken> {
        let announced = async {
            if let Some(name_guard) = &mut name_guard {
                name_guard.ensure_unique().await?;
            }
            let watching = async {
                if let Some(name_guard) = &mut name_guard {
                    name_guard.watch_conflicts().await;
                }
            };
            tokio::join!(self.announce_periodically(&bus), watching);
            Ok(())
        };
        let mut shards = JoinSet::new();
        for handle in self.registry.shards() {
            match Shard::new(handle.clone(), self.settings.flush_interval) {
                // A shard yields by itself, after bounded work.
                Ok(shard) => drop(shards.spawn(task::unconstrained(shard.run()))),
                Err(error) => {
                    tracing::error!(%error, "no shard could be created");
                    return Ok(());
                }
            }
        }
        let handled = async {
            self.handle_membership_events(events).await;
            Ok(())
        };
        tokio::select! {
            result = async { tokio::try_join!(announced, handled) } => result.map(drop),
            _ = shards.join_next() => Ok(()),
        }
    }

    /// Rejects new handshakes and members. Existing members stay until the director has moved their islands.
    pub(crate) fn stop_accepting(&self, bus: &Bus) {
        self.handshakes.close();
        self.registry.stop_accepting();
        self.announce_change(bus);
    }

    /// Rejects new handshakes and members, and closes all sockets with a code that lets clients reconnect to
    /// another node.
    pub(crate) fn drain(&self, bus: &Bus) {
        self.handshakes.close();
        self.registry.drain();
        self.announce_change(bus);
    }

    /// Whether the node has announced itself, so that the director may assign islands to it.
    pub(crate) fn has_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    pub(crate) fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.sockets) - 1
    }

    async fn announce_periodically(&self, bus: &Bus) {
        let mut ticks = time::interval(NODE_ANNOUNCE_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.announce_once(bus);
            self.announced.store(true, Ordering::Relaxed);
        }
    }

    /// Announces a change immediately. Does nothing before the first announcement, because the name may
    /// belong to another node.
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

    /// Closes the sockets of peers that left an island, after the grace, unless they rejoined it by then. The
    /// absence of messages closes no socket.
    async fn handle_membership_events(&self, mut events: Subscription) {
        let mut evictions = PendingEvictions::default();
        loop {
            let next = evictions.next_due().unwrap_or_else(|| Instant::now() + NODE_ANNOUNCE_INTERVAL);
            tokio::select! {
                envelope = events.next() => {
                    let Some(envelope) = envelope else { return };
                    match envelope.subject() {
                        Some(Subject::MembershipEnded(island)) => {
                            if let Ok(end) = MembershipEnded::decode(envelope.payload) {
                                self.on_membership_ended(&island, &end, &mut evictions);
                            }
                        }
                        Some(Subject::IslandPeerJoin(island)) => {
                            let joined = JoinIslandMessage::decode(envelope.payload).unwrap_or_default();
                            if let Ok(address) = joined.peer_id.parse() {
                                evictions.cancel_on_join(island, address);
                            }
                        }
                        _ => {}
                    }
                }
                () = time::sleep_until(next) => {
                    while let Some((island, address, minted_before)) = evictions.pop_due(Instant::now()) {
                        if let Some(room) = self.registry.room(&(&island).into()) {
                            room.evict(address, minted_before);
                        }
                    }
                }
            }
        }
    }

    fn on_membership_ended(
        &self,
        island: &IslandId,
        end: &MembershipEnded,
        evictions: &mut PendingEvictions,
    ) {
        let minted_before = end.minted_before.parse::<Ulid>().ok();
        // A ULID far in the future would revoke tokens that are minted long after this message.
        let is_plausible = |ulid: &Ulid| !is_far_ahead(ulid.timestamp_ms(), unix_ms(SystemTime::now()));
        let Some(minted_before) = minted_before.filter(is_plausible) else {
            metrics::ends_refused().increment(1);
            return;
        };
        // When an island moved to another node, the message names the node that it left.
        let moved = !end.node.is_empty();
        if moved && end.node != self.settings.node.as_str() {
            return;
        }
        let (room, now) = (island.into(), Instant::now());
        let due = now + self.settings.grace;
        for address in end.peers.iter().filter_map(|peer| peer.parse().ok()) {
            self.registry.revoke(&room, address, minted_before, now);
            if end.taken_over {
                evictions.schedule_takeover(due, island, address, minted_before);
            } else {
                evictions.schedule(due, island, address, minted_before, moved);
            }
        }
    }
}
