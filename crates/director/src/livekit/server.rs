//! The interface of a server's task: the publisher's end, and the changes that it reports.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use protocol::{IslandId, NodeName};
use tokio::sync::{mpsc, oneshot};
use transports::livekit::{
    ApiError, RoomOptions,
    webhook::{Event, Receiver},
};

use super::{
    command::{Command, OpenRequest, RoomChanges},
    monitor::{LiveKitServers, ServerMonitor, ServerState},
    settings::LiveKitSettings,
};
use crate::{
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
    state: Arc<Mutex<ServerState>>,
}

/// The task of a server before it is started.
pub(crate) struct ServerSeed {
    pub(super) configured: ConfiguredNode,
    pub(super) settings: Arc<LiveKitSettings>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) state: Arc<Mutex<ServerState>>,
}

/// Commands that can wait for the task. When the queue is full, a room is created later, and ended memberships
/// are found by the next reconciliation.
const COMMAND_QUEUE: usize = 1_024;

/// Events of webhooks that can wait for the task; a server has at most 200 in its own queue. When the queue is full,
/// the webhook is answered with 503.
const EVENT_QUEUE: usize = 1_024;

/// The configured servers with an API that the director uses: the publisher's ends, the tasks, and the ends for the
/// process's endpoints.
pub(crate) fn servers(configured: &[ConfiguredNode]) -> (Vec<Server>, Vec<ServerSeed>, LiveKitServers) {
    let (mut servers, mut seeds, mut monitors) = (Vec::new(), Vec::new(), BTreeMap::new());
    for configured in configured {
        let TransportOffer::LiveKit(settings) = &configured.offer else { continue };
        if settings.probed {
            let (server, seed, monitor) = server(configured, settings);
            monitors.insert(configured.node.clone(), monitor);
            servers.push(server);
            seeds.push(seed);
        }
    }
    (servers, seeds, LiveKitServers::new(monitors))
}

fn server(
    configured: &ConfiguredNode,
    settings: &Arc<LiveKitSettings>,
) -> (Server, ServerSeed, ServerMonitor) {
    let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
    let state = Arc::<Mutex<ServerState>>::default();
    let server = Server {
        node: configured.node.clone(),
        settings: settings.clone(),
        max_island_size: configured.max_island_size,
        commands: command_sender,
        state: state.clone(),
    };
    let receiver = Receiver::new(&settings.keys);
    let monitor = ServerMonitor { receiver, events: event_sender, state: state.clone() };
    let configured = configured.clone();
    (server, ServerSeed { configured, settings: settings.clone(), commands, events, state }, monitor)
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
        self.commands
            .send(Command::Open(OpenRequest { island, options, reply }))
            .await
            .map_err(|_| gone())?;
        result.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The participants in the room of an island, without agents and hidden ones.
    pub(crate) fn room_count(&self, island: &IslandId) -> usize {
        self.state.lock().occupancy.room_count(island.as_str())
    }

    /// Reports changes.
    pub(crate) fn report(&self, changes: Arc<RoomChanges>) {
        if self.commands.try_send(Command::Apply(changes)).is_err() {
            metrics::livekit_reports_dropped(&self.node).increment(1);
        }
    }
}
