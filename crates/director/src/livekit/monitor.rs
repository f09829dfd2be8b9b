//! LiveKit servers as seen by the HTTP endpoints of the process: webhooks in, occupancy out.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use protocol::NodeName;
use tokio::sync::mpsc;
use transports::livekit::{
    occupancy::Occupancy,
    webhook::{Event, Receiver, WebhookError},
};

use crate::metrics;

/// The LiveKit servers of a director. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LiveKitServers(Arc<BTreeMap<NodeName, ServerMonitor>>);

/// One server: the sender of its events, and the state that its task keeps.
#[derive(Debug)]
pub(super) struct ServerMonitor {
    pub(super) receiver: Receiver,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) state: Arc<Mutex<ServerState>>,
}

/// The state of a server, as far as its task knows it.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    pub(super) healthy: bool,
    pub(super) webhooks: bool,
    pub(super) occupancy: Occupancy,
}

/// The state of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKitStatus {
    /// Its name.
    pub node: NodeName,
    /// Whether islands are assigned to it.
    pub healthy: bool,
    /// Whether it sends webhooks. If not, the participants are listed every two seconds, by the leading director
    /// alone.
    pub webhooks: bool,
    /// Participants of each room, without agents and hidden ones, by the name of the room.
    pub rooms: BTreeMap<String, usize>,
}

/// Why a webhook was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookRefusal {
    /// No server of this name is configured, or its API is not used.
    #[error("no LiveKit server of this name is configured")]
    UnknownNode,
    /// The request does not come from the server, or is malformed.
    #[error(transparent)]
    Invalid(#[from] WebhookError),
    /// Too many events wait.
    #[error("too many events wait")]
    Busy,
}

impl LiveKitServers {
    pub(super) fn new(servers: BTreeMap<NodeName, ServerMonitor>) -> Self {
        Self(Arc::new(servers))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a webhook of the server `node`: the header `Authorization` and the body as received. A repeated event
    /// is accepted and ignored.
    ///
    /// # Errors
    ///
    /// The webhook is refused, for the reason in [`WebhookRefusal`].
    pub fn receive(
        &self,
        node: &str,
        authorization: Option<&str>,
        body: &[u8],
    ) -> Result<(), WebhookRefusal> {
        let server = node.parse::<NodeName>().ok().and_then(|node| self.0.get_key_value(&node));
        let (node, server) = server.ok_or(WebhookRefusal::UnknownNode)?;
        let accepted = server
            .receiver
            .receive(authorization, body, SystemTime::now())
            .map_err(WebhookRefusal::from)
            .and_then(|event| server.events.try_send(event).map_err(|_| WebhookRefusal::Busy));
        let result = match &accepted {
            Ok(()) => "accepted",
            Err(WebhookRefusal::Busy) => "busy",
            Err(_) => "refused",
        };
        metrics::livekit_webhooks(node, result).increment(1);
        accepted
    }

    /// The state of each server, by name.
    pub fn status(&self) -> Vec<LiveKitStatus> {
        let status = |(node, server): (&NodeName, &ServerMonitor)| {
            let state = server.state.lock();
            let rooms = state.occupancy.rooms();
            let rooms = rooms.map(|room| (room.to_owned(), state.occupancy.room_count(room))).collect();
            LiveKitStatus { node: node.clone(), healthy: state.healthy, webhooks: state.webhooks, rooms }
        };
        self.0.iter().map(status).collect()
    }
}
