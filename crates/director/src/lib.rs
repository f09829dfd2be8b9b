//! Runs the engine as a service: bus messages in, flushes on a timer, assignments with connection strings
//! out.
//!
//! One task owns the engine. It processes the messages of gateways and nodes, flushes on a timer, and waits
//! for nothing else. A second task, the publisher, mints connection strings and publishes the changes. When
//! the publisher is behind, the engine continues and its batches are queued.
//!
//! When several directors share a bus, one leads. The others are standbys: they receive the same messages and
//! the leader's assignments, and the next leader's engine continues from that state.

mod admin;
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

/// The configuration of a director.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Distances, sizes and times of islands.
    pub engine: archipelago::Settings,
    /// The realm's name, if it has one: clusters of another realm are ignored.
    pub realm: Option<String>,
    /// The interval of flushes: how often changes are computed and published.
    pub flush_interval: Duration,
    /// How often all islands are reported.
    pub report_interval: Duration,
    /// How often the leader publishes `engine.discovery`.
    pub discovery_interval: Duration,
    /// The size of the world: the largest distance from the origin on each axis, in metres.
    pub position_bound_m: f32,
    /// The precision of member positions in `island_changed`.
    pub positions: PositionPrecision,
    /// The rules at the start.
    pub rules: Arc<Rules>,
    /// The build, for `engine.discovery`.
    pub commit_hash: Option<String>,
    /// Nodes that do not announce themselves, each with a unique name.
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

/// Messages from the bus that can wait between two flushes; when the queue is full the newest is dropped and
/// counted. A lost heartbeat is repeated within seconds.
const BUS_QUEUE: usize = 262_144;
/// Jobs that can wait for the publisher; when the queue is full, batches wait with the leader.
const JOB_QUEUE: usize = 8;

impl Director {
    /// Creates a director and subscribes it to the bus. `minter` mints for the nodes that announce
    /// themselves. Fails if the engine's settings are invalid.
    pub fn new(settings: Settings, bus: Bus, minter: ws_room::Minter) -> Result<Self, SettingsError> {
        settings.engine.validate()?;
        let subscription =
            bus.subscribe("director", &subscribed_patterns(settings.engine.clustering), BUS_QUEUE);
        let publisher = Publisher::new(bus.clone(), Minters::new(minter, &settings.transports))
            .with_positions(settings.positions);
        let (admin, admin_requests) = AdminHandle::new();
        let leadership = Leadership::default();
        Ok(Self { settings, publisher, bus, subscription, admin, admin_requests, leadership })
    }

    /// A handle for administrative requests to this director.
    pub fn admin(&self) -> AdminHandle {
        self.admin.clone()
    }

    /// A handle that shows, from now on, whether this director knows the leader.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Runs the director in the calling task, and the publisher and the probes in tasks of `runtime`. Returns
    /// only when the bus is closed or the publisher has ended.
    pub async fn run(self, runtime: tokio::runtime::Handle) {
        let (jobs, jobs_receiver) = mpsc::channel(JOB_QUEUE);
        runtime.spawn(self.publisher.run(jobs_receiver));
        let probes = configured_nodes::spawn_probes(&self.settings.transports, &runtime);
        // Requests can come only from the handles that were given out; without any, the channel closes.
        drop(self.admin);
        let election = Election::new(self.bus.clone(), runtime);
        let task = DirectorTask::new(self.settings, self.bus, jobs, self.leadership);
        task.run(election, self.subscription, probes, self.admin_requests).await;
    }
}

/// The subjects that a director receives, as a leader or a standby.
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

/// The start time of an engine, in milliseconds since the Unix epoch, which becomes part of its island ids:
/// unique within this process.
fn next_start_ms() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = unix_ms(SystemTime::now());
    let next = |last: u64| Some(now.max(last + 1));
    // The closure always returns `Some`, so this is the previous value.
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
    now.max(last + 1)
}

#[cfg(test)]
mod tests;
