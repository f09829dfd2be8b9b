//! The stats role: presence (which peers and islands are where) as HTTP endpoints for sites and operators.
//!
//! It subscribes to the bus and keeps the last state of each peer and island; state that is not refreshed
//! expires. Changes are published in a live feed. The names of scenes come from the content service.

mod access;
mod answers;
mod cached;
mod content;
mod encoded;
mod event;
mod feed;
mod islands;
mod presence;
mod router;
mod scenes;

use std::{
    future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bus::{Bus, Headers, Subscription};
use protocol::{Address, PositionPrecision, Subject, Ulid, subject, unix_ms};
use utoipa_axum::router::OpenApiRouter;

pub use access::{Access, TokenDigest};
pub use encoded::Encoded;
pub use router::AGE;

use cached::{Cached, Version};
use content::Content;
use feed::{Feed, Limits};
use presence::{Changes, Presence, Timeouts};
use scenes::Scenes;

/// The settings of the role.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A peer without a heartbeat for this long is removed.
    pub peer_timeout: Duration,
    /// All islands are removed if no report and no other message about islands arrives for this long.
    pub report_timeout: Duration,
    /// Access to the endpoints that name peers.
    pub access: Access,
    /// The precision of positions in every response and every event.
    pub positions: PositionPrecision,
    /// The realm's name in `/hot-scenes`.
    pub realm_name: String,
    /// The realm's address in `/hot-scenes`.
    pub public_url: String,
    /// The capacity of the realm in peers, in `/hot-scenes`.
    pub max_users: usize,
    /// The `maxPeers` of an island until the director has reported it.
    pub max_island_size: u32,
    /// The content service, which knows the names of scenes: `http://…` or `https://…`. `None`: scenes have
    /// no names.
    pub content_url: Option<String>,
    /// The timeout of a request to the content service.
    pub content_timeout: Duration,
    /// The time for which the scene of a parcel is not requested again.
    pub scene_ttl: Duration,
    /// The number of parcels in the cache of scenes, at least 1. The parcels that have been unoccupied for
    /// longest are removed first.
    pub max_scene_parcels: usize,
    /// The number of events by which a reader of the feed may be behind without missing any.
    pub feed_events: usize,
    /// The limit of readers of the feed at a time.
    pub max_feed_readers: usize,
    /// The limit of readers of the feed from one client network at a time.
    pub max_feed_readers_per_network: usize,
    /// The interval in which a reader of the feed receives a comment while there are no events.
    pub feed_keep_alive: Duration,
}

/// The presence of a realm. Cheap to clone.
#[derive(Clone)]
pub struct Stats(Arc<Shared>);

struct Shared {
    settings: Settings,
    presence: Mutex<Presence>,
    feed: Arc<Feed>,
    scenes: Mutex<Scenes>,
    content: Option<Content>,
    changes: Changes,
    bodies: Bodies,
}

/// The shared responses that cover the whole world.
struct Bodies {
    peers: Cached<Address>,
    /// By id, in lower case.
    islands: Cached<String>,
    parcels: Cached<()>,
    hot_scenes: Cached<()>,
}

/// The capacity of the queue of bus messages. When it is full, the newest message is dropped and counted.
const BUS_QUEUE: usize = 65_536;
/// The interval in which expired state is removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Stats {
    /// A presence without peers.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared::new(settings)))
    }

    /// The endpoints, with their OpenAPI description.
    pub fn router(&self) -> OpenApiRouter {
        router::router(self.0.clone())
    }

    /// Subscribes to the bus, for [`Stats::run`]. Messages are queued from now on.
    pub fn subscribe(&self, bus: &Bus) -> Subscription {
        let patterns = [
            subject::PEER_CONNECTS,
            subject::PEER_HEARTBEATS,
            subject::PEER_DISCONNECTS,
            subject::PEER_ISLAND_CHANGES,
            subject::ISLAND_PEER_JOINS,
            subject::ISLAND_PEER_LEAVES,
            subject::ENGINE_ISLANDS,
            subject::ENGINE_DISCOVERY,
        ];
        bus.subscribe("stats", &patterns, BUS_QUEUE)
    }

    /// Applies the messages of the bus, requests the present peers from the gateways, and fetches the names
    /// of scenes. Returns only when the bus has ended.
    pub async fn run(&self, bus: Bus, subscription: Subscription) {
        tokio::select! {
            () = self.apply_messages(subscription) => {}
            () = follow_scenes(&self.0) => {}
            () = request_presence(&bus) => {}
        }
    }

    /// Ends the live feed.
    pub fn drain(&self) {
        self.0.feed.close();
    }

    /// The number of readers of the live feed.
    pub fn feed_readers_count(&self) -> usize {
        self.0.feed.readers_count()
    }

    async fn apply_messages(&self, mut subscription: Subscription) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                envelope = subscription.next() => match envelope {
                    Some(envelope) => {
                        // Events are published under the lock. So a reader that has received an event and
                        // then reads the presence finds it there (`Shared::required_version`), and a reader
                        // that reads the presence first receives the event afterwards.
                        let mut presence = self.0.presence();
                        self.0.feed.publish(&presence.apply(&envelope, Instant::now(), unix_ms(SystemTime::now())));
                    }
                    None => return,
                },
                _ = sweep.tick() => self.0.sweep(Instant::now()),
            }
        }
    }
}

/// Keeps the names of scenes up to date, if there is a content service.
async fn follow_scenes(shared: &Arc<Shared>) {
    match &shared.content {
        Some(content) => content::run(content, shared).await,
        None => future::pending().await,
    }
}

/// Requests a heartbeat of every peer from the gateways: at start, and after each reconnect of the bus,
/// because messages published while it was disconnected were lost.
async fn request_presence(bus: &Bus) {
    let mut returns = bus.reconnects();
    loop {
        bus.publish(&Subject::PeersWanted, Headers::default(), Vec::new());
        if returns.changed().await.is_err() {
            // The bus has ended.
            return future::pending().await;
        }
    }
}

impl Shared {
    fn new(settings: Settings) -> Self {
        let content = settings.content_url.as_deref();
        let content = content.map(|url| Content::new(url, settings.content_timeout));
        let limits = Limits {
            events: settings.feed_events,
            readers: settings.max_feed_readers,
            readers_per_network: settings.max_feed_readers_per_network,
            keep_alive: settings.feed_keep_alive,
        };
        // If the system provides no randomness, the time alone distinguishes processes.
        let random = u128::from(getrandom::u64().unwrap_or_default());
        let changes = Changes::default();
        Self {
            presence: Mutex::new(Presence::new(settings.positions, changes.clone())),
            feed: Arc::new(Feed::new(Ulid::from_parts(unix_ms(SystemTime::now()), random), limits)),
            scenes: Mutex::new(Scenes::new(settings.scene_ttl, settings.max_scene_parcels)),
            content,
            changes,
            bodies: Bodies {
                peers: Cached::new("/peers"),
                islands: Cached::new("/islands"),
                parcels: Cached::new("/parcels"),
                hot_scenes: Cached::new("/hot-scenes"),
            },
            settings,
        }
    }

    /// The version that a response must have: all changes so far (unless the cached response is younger than
    /// the encoding interval), and in any case every event that a reader of the feed has received.
    fn required_version(&self) -> Version {
        Version { changes: self.changes.count(), event: self.feed.delivered() }
    }

    /// The version of a copy of the presence, which is made while the lock is held.
    fn version(&self, _presence: &MutexGuard<'_, Presence>) -> Version {
        // Events are published under the lock of the presence, so the copy includes all events up to the
        // last.
        Version { changes: self.changes.count(), event: self.feed.last() }
    }

    fn sweep(&self, now: Instant) {
        let timeouts = Timeouts { peer: self.settings.peer_timeout, report: self.settings.report_timeout };
        let mut presence = self.presence();
        self.feed.publish(&presence.sweep(timeouts, now, unix_ms(SystemTime::now())));
        drop(presence);
        self.feed.sweep(now);
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scenes(&self) -> MutexGuard<'_, Scenes> {
        self.scenes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn for_tests() -> Self {
        let settings = Settings {
            peer_timeout: Duration::from_secs(20),
            report_timeout: Duration::from_secs(10),
            access: Access::Public,
            positions: PositionPrecision::Exact,
            realm_name: String::new(),
            public_url: String::new(),
            max_users: 1,
            max_island_size: 1,
            content_url: None,
            content_timeout: Duration::from_secs(2),
            scene_ttl: Duration::from_secs(300),
            max_scene_parcels: 1,
            feed_events: 1,
            max_feed_readers: 1,
            max_feed_readers_per_network: 1,
            feed_keep_alive: Duration::from_secs(15),
        };
        Self::new(settings)
    }
}
