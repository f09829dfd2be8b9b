//! The engine's shell: bus in, flush clock, mint, bus out.
//!
//! One task owns the engine: it takes in what gateways and nodes say, flushes on a clock, and waits
//! for nothing else. A second one, the messenger, mints connection strings and publishes what
//! changed; while it is behind, the engine goes on, and what changed waits.
//!
//! Of several directors on a bus one leads, and the others stand by: they hear who is there and what
//! everybody was told, and the next to lead has its engine go on from that.

mod admin;
mod assignment_retry;
mod configured_nodes;
mod decode;
mod election;
mod flush_batch;
mod jump_limiter;
mod leader;
mod leadership;
mod pausable_clock;
mod publisher;
mod standby;
mod task;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use archipelago::{Clustering, SettingsError, rules::Rules};
use bus::{Bus, Subscription};
use protocol::{PositionPrecision, subject, unix_ms};
use tokio::sync::mpsc;
use transports::ws_room;

pub use admin::{AdminError, AdminHandle, Assignment};
pub use configured_nodes::{ConfiguredNode, TransportOffer};
pub use leadership::Leadership;

use admin::AdminRequest;
use configured_nodes::Minters;
use election::Election;
use publisher::Publisher;
use task::DirectorTask;

/// What a director is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Distances, sizes and times of islands.
    pub engine: archipelago::Settings,
    /// The realm's name, if it has one: clusters of another realm are none here.
    pub realm: Option<String>,
    /// The engine's clock: how often what changed is told.
    pub flush_interval: Duration,
    /// How often all islands are reported.
    pub report_interval: Duration,
    /// How often the director says that it is there.
    pub discovery_interval: Duration,
    /// How far from the origin the world reaches on each axis, in metres.
    pub position_bound_m: f32,
    /// How exactly `island_changed` gives the positions of members.
    pub positions: PositionPrecision,
    /// The owners' rules, to begin with.
    pub rules: Arc<Rules>,
    /// Which build this is, for `engine.discovery`.
    pub commit_hash: Option<String>,
    /// Nodes that do not announce themselves, each with a name of its own.
    pub transports: Vec<ConfiguredNode>,
}

/// A director.
pub struct Director {
    settings: Settings,
    publisher: Publisher,
    bus: Bus,
    subscription: Subscription,
    admin: AdminHandle,
    admin_requests: mpsc::Receiver<AdminRequest>,
    leadership: Leadership,
}

/// Messages from the bus that may wait between two flushes; at the bound the newest is dropped and
/// counted. A heartbeat that is lost is repeated within seconds.
const BUS_QUEUE: usize = 262_144;
/// Errands that may wait for the messenger; at the bound, news wait with the clock.
const JOB_QUEUE: usize = 8;

impl Director {
    /// A director that listens from now on. `minter` mints for the nodes that announce themselves.
    pub fn new(settings: Settings, bus: Bus, minter: ws_room::Minter) -> Result<Self, SettingsError> {
        settings.engine.validate()?;
        let subscription =
            bus.subscribe("director", &subscribed_patterns(settings.engine.clustering), BUS_QUEUE);
        let messenger = Publisher::new(bus.clone(), Minters::new(minter, &settings.transports))
            .with_positions(settings.positions);
        let (console, queries) = AdminHandle::new();
        let leadership = Leadership::default();
        Ok(Self {
            settings,
            publisher: messenger,
            bus,
            subscription,
            admin: console,
            admin_requests: queries,
            leadership,
        })
    }

    /// Asks this director, and tells it things.
    pub fn admin(&self) -> AdminHandle {
        self.admin.clone()
    }

    /// Whether this director knows which director leads, from now on.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Directs, on the present task, with the messenger and the probes on others of the runtime
    /// `messengers`. Does not return while the bus is there.
    pub async fn run(self, messengers: tokio::runtime::Handle) {
        let (errands, errands_receiver) = mpsc::channel(JOB_QUEUE);
        messengers.spawn(self.publisher.run(errands_receiver));
        let probes = configured_nodes::spawn_probes(&self.settings.transports, &messengers);
        // Whoever may still ask has a console of its own.
        drop(self.admin);
        let office = Election::new(self.bus.clone(), messengers);
        let clock = DirectorTask::new(self.settings, self.bus, errands, self.leadership);
        clock.run(office, self.subscription, probes, self.admin_requests).await;
    }
}

/// What a director hears, whether it leads or stands by.
fn subscribed_patterns(clustering: Clustering) -> Vec<&'static str> {
    let mut patterns = vec![
        subject::PEER_CONNECTS,
        subject::PEER_HEARTBEATS,
        subject::PEER_DISCONNECTS,
        subject::TRANSPORT_ANNOUNCEMENTS,
        subject::ENGINE_DISCOVERY,
        subject::PEERS_WANTED,
    ];
    if clustering == Clustering::External {
        patterns.push(subject::PEER_CLUSTER_CHANGES);
    }
    patterns
}

/// When an engine starts, in milliseconds since the Unix epoch, as it stands in its islands' ids:
/// never the same twice in a process.
fn next_start_ms() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = unix_ms(SystemTime::now());
    let next = |last: u64| Some(now.max(last + 1));
    // The closure always gives a value, so that this is what was before.
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
    now.max(last + 1)
}

#[cfg(test)]
mod tests;
