//! The state of the stats role.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::{Mutex, MutexGuard};
use protocol::{Address, Ulid, unix_ms};

use crate::{
    cached::{Answer, Cached, Draft, Version},
    content::Content,
    feed::{Feed, Limits},
    presence::{Changes, Presence, Timeouts},
    scenes::Scenes,
    settings::Settings,
};

/// The state that the endpoints and the tasks of the role share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) presence: Mutex<Presence>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) scenes: Mutex<Scenes>,
    pub(crate) content: Option<Content>,
    pub(crate) changes: Changes,
    pub(crate) bodies: Bodies,
}

/// The shared responses that cover the whole world.
pub(crate) struct Bodies {
    pub(crate) peers: Cached<Address>,
    /// By id, in lower case.
    pub(crate) islands: Cached<String>,
    pub(crate) parcels: Cached<()>,
    pub(crate) hot_scenes: Cached<()>,
}

impl Shared {
    /// A presence without peers.
    pub(crate) fn new(settings: Settings) -> Self {
        let content = settings.content_url.as_deref();
        let content = content.map(|url| Content::new(url, settings.content_timeout));
        let limits = Limits {
            events: settings.feed_events,
            readers: settings.max_feed_readers,
            readers_per_network: settings.max_feed_readers_per_network,
            keep_alive: settings.feed_keep_alive,
        };
        // If the system provides no randomness, the time alone distinguishes processes.
        let random = u128::from(admission::random().map_or(0, u64::from_le_bytes));
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

    /// The response in `cached`, one of [`Bodies`], with all changes that it must have. If it is outdated,
    /// `draft` makes a new one. `None` if that fails.
    pub(crate) async fn body<K: Ord + Send + Sync + 'static>(
        self: &Arc<Self>,
        cached: &Cached<K>,
        draft: impl Fn(&Self) -> Draft<K> + Clone + Send + 'static,
    ) -> Option<Arc<Answer<K>>> {
        let shared = self.clone();
        cached.get(self.required_version(), move || draft(&shared)).await
    }

    /// The version that a response must have: all changes so far (unless the cached response is younger than
    /// the encoding interval), and in any case every event that a reader of the feed has received.
    fn required_version(&self) -> Version {
        Version { changes: self.changes.count(), event: self.feed.delivered() }
    }

    /// The version of a copy of the presence, which is made while the lock is held.
    pub(crate) fn version(&self, _presence: &MutexGuard<'_, Presence>) -> Version {
        // Events are published under the lock of the presence, so the copy includes all events up to the
        // last.
        Version { changes: self.changes.count(), event: self.feed.last() }
    }

    /// Removes expired state and the readers of the feed that have stalled.
    pub(crate) fn sweep(&self, now: Instant) {
        let timeouts = Timeouts { peer: self.settings.peer_timeout, report: self.settings.report_timeout };
        let mut presence = self.presence.lock();
        self.feed.publish(&presence.sweep(timeouts, now, unix_ms(SystemTime::now())));
        drop(presence);
        self.feed.sweep(now);
    }
}
