//! The interface of a server's task: the publisher's end, and the changes that it reports.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use archipelago::Input;
use protocol::{Address, IslandId, NodeName};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use transports::livekit::{ApiError, RoomOptions};

use super::{settings::LiveKitSettings, task::ServerTask};
use crate::{
    admin::AdminHandle,
    configured_nodes::{ConfiguredNode, TransportOffer},
    metrics,
};

/// The publisher's end of a server's task. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) node: NodeName,
    pub(crate) settings: Arc<LiveKitSettings>,
    max_island_size: u32,
    commands: mpsc::Sender<Command>,
}

/// The task of a server before it is started.
pub(crate) struct ServerSeed {
    configured: ConfiguredNode,
    settings: Arc<LiveKitSettings>,
    commands: mpsc::Receiver<Command>,
}

/// A command to the task of a server.
#[derive(Debug)]
pub(super) enum Command {
    /// Create the room of an island.
    Open { island: IslandId, options: RoomOptions, reply: oneshot::Sender<Result<(), ApiError>> },
    /// Memberships or islands ended.
    Ended(Arc<MembershipChanges>),
}

/// The memberships and islands that ended in one flush.
#[derive(Debug)]
pub(crate) struct MembershipChanges {
    /// Ended memberships: on one node, from which the island moved away, or on all (`None`).
    pub(crate) ended: Vec<(IslandId, Option<NodeName>, Vec<Address>)>,
    /// Members with a newer session that replaced one without resuming it.
    pub(crate) taken_over: Vec<(IslandId, Vec<Address>)>,
    /// Islands that were closed.
    pub(crate) closed: Vec<IslandId>,
    /// When they were published.
    pub(crate) published_at: SystemTime,
}

/// Commands that can wait for the task. When the queue is full, a room is created later, and ended memberships
/// are found by the next reconciliation.
const COMMAND_QUEUE: usize = 1_024;

/// The two ends of the task of each configured server whose API the director uses.
pub(crate) fn servers(configured: &[ConfiguredNode]) -> Vec<(Server, ServerSeed)> {
    let server_of = |configured: &ConfiguredNode| match &configured.offer {
        TransportOffer::LiveKit(settings) if settings.probed => Some(server(configured, settings)),
        _ => None,
    };
    configured.iter().filter_map(server_of).collect()
}

fn server(configured: &ConfiguredNode, settings: &Arc<LiveKitSettings>) -> (Server, ServerSeed) {
    let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let server = Server {
        node: configured.node.clone(),
        settings: settings.clone(),
        max_island_size: configured.max_island_size,
        commands: sender,
    };
    (server, ServerSeed { configured: configured.clone(), settings: settings.clone(), commands })
}

impl Server {
    /// The options of the room of an island under this rule.
    pub(crate) fn room_options(&self, island: &IslandId, rule: Option<&str>) -> RoomOptions {
        self.settings.room_options(&self.node, self.max_island_size, island, rule)
    }

    /// Creates the room of an island. Succeeds if it exists already.
    pub(crate) async fn open_room(&self, island: IslandId, options: RoomOptions) -> Result<(), ApiError> {
        let (reply, result) = oneshot::channel();
        let gone = || ApiError::Unreachable("the director stops".to_owned());
        self.commands.send(Command::Open { island, options, reply }).await.map_err(|_| gone())?;
        result.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Reports ended memberships.
    pub(crate) fn report_ended(&self, changes: Arc<MembershipChanges>) {
        if self.commands.try_send(Command::Ended(changes)).is_err() {
            metrics::livekit_reports_dropped(&self.node).increment(1);
        }
    }
}

impl ServerSeed {
    /// Starts the task on `runtime`. It reports the server's health as inputs of the engine, and learns from the
    /// director which peers are members.
    pub(crate) fn start(
        self,
        runtime: &Handle,
        settling: Duration,
        inputs: mpsc::Sender<Input>,
        director: AdminHandle,
    ) {
        let Self { configured, settings, commands } = self;
        runtime.spawn(async move {
            ServerTask::new(configured, settings, settling, commands, inputs, director).run().await;
        });
    }
}
