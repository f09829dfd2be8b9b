//! Who is where: presence, as the HTTP endpoints that sites and operators read.
//!
//! Listens to the bus and keeps the last word on each peer and island; what is not said again
//! expires.

mod answers;
mod presence;
mod router;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use bus::{Bus, Subscription};
use protocol::subject;

use presence::Presence;

/// What the role is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A peer that was not heard of for this long is not shown any more.
    pub peer_timeout: Duration,
    /// A report of islands older than this is not shown any more.
    pub report_timeout: Duration,
    /// The realm's name in `/hot-scenes`.
    pub realm_name: String,
    /// The realm's address in `/hot-scenes`.
    pub public_url: String,
    /// How many people the realm takes, in `/hot-scenes`.
    pub max_users: usize,
}

/// The presence of a realm. Cheap to clone.
#[derive(Clone)]
pub struct Stats(Arc<Shared>);

struct Shared {
    settings: Settings,
    presence: Mutex<Presence>,
}

/// Messages from the bus that may wait; at the bound the newest is dropped and counted.
const BUS_QUEUE: usize = 65_536;
/// How often what has expired is let go.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Stats {
    /// An empty presence.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared { settings, presence: Mutex::default() }))
    }

    /// The endpoints, each also under `/comms`.
    pub fn router(&self) -> Router {
        router::router(self.0.clone())
    }

    /// What there is to hear from now on, for [`Stats::run`].
    pub fn subscribe(&self, bus: &Bus) -> Subscription {
        let patterns = [
            subject::PEER_CONNECTS,
            subject::PEER_HEARTBEATS,
            subject::PEER_DISCONNECTS,
            subject::ENGINE_ISLANDS,
            subject::ENGINE_DISCOVERY,
        ];
        bus.subscribe("stats", &patterns, BUS_QUEUE)
    }

    /// Listens to the bus. Does not return.
    pub async fn run(&self, mut subscription: Subscription) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                envelope = subscription.next() => match envelope {
                    Some(envelope) => self.0.presence().hear(&envelope, Instant::now(), unix_ms()),
                    None => return,
                },
                _ = sweep.tick() => {
                    let Settings { peer_timeout, report_timeout, .. } = self.0.settings;
                    self.0.presence().sweep(peer_timeout, report_timeout, Instant::now());
                }
            }
        }
    }
}

impl Shared {
    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
