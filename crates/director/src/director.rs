//! A director: its subscription to the bus, its publisher, and its task.

use archipelago::{Clustering, SettingsError};
use bus::{Bus, Subscription};
use protocol::subject;
use tokio::sync::mpsc;
use transports::ws_room;

use crate::{
    admin::{AdminHandle, AdminRequest},
    configured_nodes::{self, Minters},
    election::Election,
    leadership::Leadership,
    publisher::Publisher,
    settings::Settings,
    task::DirectorTask,
};

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
pub(crate) const JOB_QUEUE: usize = 8;

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
pub(crate) fn subscribed_patterns(clustering: Clustering) -> Vec<&'static str> {
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
