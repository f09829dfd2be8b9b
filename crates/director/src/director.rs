//! A director: its subscription to the bus, its publisher, and its task.

use archipelago::{Clustering, Input, SettingsError};
use bus::{Bus, Subscription};
use protocol::subject;
use tokio::sync::mpsc;
use transports::ws_room;

use crate::{
    admin::{AdminHandle, AdminRequest},
    configured_nodes::Minters,
    election::Election,
    leadership::Leadership,
    livekit::{self, LiveKitServers, ServerSeed},
    meshes::{MeshHandle, MeshTask, mesh_task},
    publisher::Publisher,
    room_gate::RoomGate,
    settings::Settings,
    task::DirectorTask,
};

/// A director.
pub struct Director {
    settings: Settings,
    publisher: Publisher,
    servers: Vec<ServerSeed>,
    livekit: LiveKitServers,
    mesh_task: Option<MeshTask>,
    meshes: MeshHandle,
    node_inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
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

/// Inputs of LiveKit servers that can wait for the engine; when the queue is full the newest is dropped. Health is
/// reported again a second later, and an unavailable room at the next attempt.
const NODE_INPUT_QUEUE: usize = 256;

impl Director {
    /// Creates a director and subscribes it to the bus. `minter` mints for the nodes that announce
    /// themselves. Fails if the engine's settings are invalid.
    pub fn new(settings: Settings, bus: Bus, minter: ws_room::Minter) -> Result<Self, SettingsError> {
        settings.engine.validate()?;
        let subscription =
            bus.subscribe("director", &subscribed_patterns(settings.engine.clustering), BUS_QUEUE);
        let node_inputs = mpsc::channel(NODE_INPUT_QUEUE);
        let (servers, seeds, livekit) = livekit::servers(&settings.transports);
        let (mesh_task, meshes) = mesh_task(&bus, &settings.transports, node_inputs.0.clone());
        let gate = RoomGate::new(servers, node_inputs.0.clone());
        let minters = Minters::new(minter, &settings.transports);
        let publisher = Publisher::new(bus.clone(), minters, gate).with_positions(settings.positions);
        let (admin, admin_requests) = AdminHandle::new();
        let leadership = Leadership::default();
        Ok(Self {
            settings,
            publisher,
            servers: seeds,
            livekit,
            mesh_task,
            meshes,
            node_inputs,
            bus,
            subscription,
            admin,
            admin_requests,
            leadership,
        })
    }

    /// A handle for administrative requests to this director.
    pub fn admin(&self) -> AdminHandle {
        self.admin.clone()
    }

    /// A handle that shows, from now on, whether this director knows the leader.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// The LiveKit servers, for the endpoints of the process.
    pub fn livekit(&self) -> LiveKitServers {
        self.livekit.clone()
    }

    /// Runs the director in the calling task, and the publisher and the probes in tasks of `runtime`. Returns
    /// only when the bus is closed or the publisher has ended.
    pub async fn run(self, runtime: tokio::runtime::Handle) {
        let (jobs, jobs_receiver) = mpsc::channel(JOB_QUEUE);
        runtime.spawn(self.publisher.run(jobs_receiver));
        for node in &self.settings.transports {
            node.set_health_gauge(node.is_always_available());
        }
        let (inputs, node_inputs) = self.node_inputs;
        let settling = self.settings.engine.settling;
        for server in self.servers {
            livekit::start(server, &runtime, settling, inputs.clone(), self.admin.clone());
        }
        // Requests can come only from the handles that were given out; without any, the channel closes.
        drop(self.admin);
        if let Some(task) = self.mesh_task {
            runtime.spawn(task.run());
        }
        let election = Election::new(self.bus.clone(), runtime);
        let task = DirectorTask::new(self.settings, self.bus, jobs, self.meshes, self.leadership);
        task.run(election, self.subscription, node_inputs, self.admin_requests).await;
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
