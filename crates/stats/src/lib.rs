//! Who is where: presence, as the HTTP endpoints that sites and operators read.
//!
//! Listens to the bus and keeps the last word on each peer and island; what is not said again
//! expires. What changes is told in a live feed. What scenes are called, the content service knows.

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

/// What the role is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A peer that was not heard of for this long is not shown any more.
    pub peer_timeout: Duration,
    /// A report of islands older than this is not shown any more.
    pub report_timeout: Duration,
    /// Access to presence.
    pub access: Access,
    /// What is shown of where people are, in every answer and every event.
    pub positions: PositionPrecision,
    /// The realm's name in `/hot-scenes`.
    pub realm_name: String,
    /// The realm's address in `/hot-scenes`.
    pub public_url: String,
    /// How many people the realm takes, in `/hot-scenes`.
    pub max_users: usize,
    /// What an island is said to hold until the director has said it.
    pub max_island_size: u32,
    /// The content service, which knows what scenes are called: `http://…` or `https://…`.
    pub content_url: Option<String>,
    /// How long it may take to answer.
    pub content_timeout: Duration,
    /// How long it is not asked again for the same parcel.
    pub scene_ttl: Duration,
    /// Of how many parcels it is remembered what is on them, at least 1. Those where nobody has been
    /// for longest are forgotten first.
    pub max_scene_parcels: usize,
    /// How many events a reader of the feed may be behind, and still get all of them.
    pub feed_events: usize,
    /// Readers of the feed at a time.
    pub max_feed_readers: usize,
    /// Readers of the feed from one network at a time.
    pub max_feed_readers_per_network: usize,
    /// How often a reader of the feed to whom nothing happens is sent a comment.
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

/// The answers about the whole world.
struct Bodies {
    peers: Cached<Address>,
    /// By id, in lower case.
    islands: Cached<String>,
    parcels: Cached<()>,
    hot_scenes: Cached<()>,
}

/// Messages from the bus that may wait; at the bound the newest is dropped and counted.
const BUS_QUEUE: usize = 65_536;
/// How often what has expired is let go.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Stats {
    /// An empty presence. Fails when the content service cannot be asked at all.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared::new(settings)))
    }

    /// The endpoints, with their description.
    pub fn router(&self) -> OpenApiRouter {
        router::router(self.0.clone())
    }

    /// What there is to hear from now on, for [`Stats::run`].
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

    /// Listens to the bus, asks who is there, and asks what scenes are called. Does not return.
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

    /// How many readers the live feed has.
    pub fn feed_readers_count(&self) -> usize {
        self.0.feed.readers_count()
    }

    async fn apply_messages(&self, mut subscription: Subscription) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                envelope = subscription.next() => match envelope {
                    Some(envelope) => {
                        // Published under the lock: a reader that has an event and then reads the
                        // presence finds it there (`Shared::required_version`), and one that reads the presence
                        // first receives the event.
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

/// Asks what scenes are called, where there is somebody to ask.
async fn follow_scenes(shared: &Arc<Shared>) {
    match &shared.content {
        Some(content) => content::run(content, shared).await,
        None => future::pending().await,
    }
}

/// Asks who is there: now, and whenever the bus was away, as nobody heard what was said meanwhile.
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
        // Without randomness from the system, runs are told apart by the time.
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

    /// What an answer has to show: all changes so far, where it is not young, and in any case what readers
    /// of the feed may know.
    fn required_version(&self) -> Version {
        Version { changes: self.changes.count(), event: self.feed.delivered() }
    }

    /// What a copy of the presence shows.
    fn version(&self, _presence: &MutexGuard<'_, Presence>) -> Version {
        // Events are published under the lock of the presence, so that it holds all of these.
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
