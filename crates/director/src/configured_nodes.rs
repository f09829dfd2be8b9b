//! Nodes that do not announce themselves: they are listed in the configuration. The director announces them
//! to the engine and mints connection strings for them.

use std::{collections::HashMap, time::Duration};

use archipelago::{Input, Transport, TransportKind};
use protocol::NodeName;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TrySendError},
};
use transports::{
    Minter, external,
    livekit::{self, HealthWatch, Probe},
    p2p, ws_room,
};

use crate::metrics;

/// A node that does not announce itself.
#[derive(Debug, Clone)]
pub struct ConfiguredNode {
    /// Its name. An announcement on the bus under this name is refused.
    pub node: NodeName,
    /// The kind of its rooms, and how clients reach them.
    pub offer: TransportOffer,
    /// The largest number of peers in one of its rooms.
    pub max_island_size: u32,
    /// The largest number of peers on the node; `None`: no limit.
    pub max_users: Option<u32>,
    /// It is being drained: it accepts no more peers, and its islands move to other nodes when possible.
    pub draining: bool,
}

/// The transport of a configured node.
#[derive(Debug, Clone)]
pub enum TransportOffer {
    /// Rooms of a LiveKit server, while it is healthy.
    LiveKit {
        /// The URL for clients: `ws://host:port` or `wss://host`.
        url: String,
        /// The URL of its API: `http://host:port` or `https://host`.
        api_url: String,
        /// The API key and secret that the server accepts.
        keys: livekit::Keys,
        /// The lifetime of a token.
        token_ttl: Duration,
        /// Whether its health is probed; if not, it counts as healthy.
        probed: bool,
    },
    /// A peer-to-peer mesh, which needs no server and is always available.
    P2p(p2p::Minter),
    /// A transport described by a template. It cannot be probed and is always available.
    External(external::Template),
}

/// The minters of all nodes.
pub(crate) struct Minters {
    configured: HashMap<NodeName, Minter>,
    /// For all other nodes: only ws-room nodes announce themselves.
    rooms: Minter,
}

/// Probe results that can wait for the engine; when the queue is full the newest is dropped, and repeated a
/// second later.
const REPORT_QUEUE: usize = 64;

impl ConfiguredNode {
    /// Whether it is available without a probe.
    pub(crate) fn is_always_available(&self) -> bool {
        !matches!(self.offer, TransportOffer::LiveKit { probed: true, .. })
    }

    /// The announcement of this node with `users` peers on it.
    pub(crate) fn transport(&self, users: u32) -> Transport {
        let (kind, public_url) = match &self.offer {
            TransportOffer::LiveKit { url, .. } => (TransportKind::LiveKit, url.as_str().into()),
            TransportOffer::P2p(_) => (TransportKind::P2p, "".into()),
            TransportOffer::External(template) => (TransportKind::External, template.to_string().into()),
        };
        let capability = match &self.offer {
            TransportOffer::External(template) => template.protocol(),
            _ => kind.as_str(),
        };
        Transport {
            node: self.node.clone(),
            kind,
            capability: capability.into(),
            max_island_size: self.max_island_size,
            seats: self.max_users.map(|max| max.saturating_sub(users)),
            users,
            draining: self.draining,
            public_url,
            started_ms: 0,
        }
    }

    fn minter(&self) -> Minter {
        match &self.offer {
            TransportOffer::LiveKit { keys, token_ttl, .. } => {
                Minter::LiveKit(livekit::Minter::new(keys.clone(), *token_ttl))
            }
            TransportOffer::P2p(minter) => Minter::P2p(minter.clone()),
            TransportOffer::External(template) => Minter::External(template.clone()),
        }
    }

    fn set_health_gauge(&self, healthy: bool) {
        metrics::transport_healthy(&self.node).set(f64::from(u8::from(healthy)));
    }
}

impl Minters {
    pub(crate) fn new(rooms: ws_room::Minter, configured: &[ConfiguredNode]) -> Self {
        let minters = configured.iter().map(|configured| (configured.node.clone(), configured.minter()));
        Self { configured: minters.collect(), rooms: Minter::WsRoom(rooms) }
    }

    /// The minter for this node.
    pub(crate) fn for_node(&self, node: &NodeName) -> &Minter {
        self.configured.get(node).unwrap_or(&self.rooms)
    }
}

/// Starts a task on `runtime` for each LiveKit server, which probes it every second. Returns the resulting
/// inputs for the engine.
pub(crate) fn spawn_probes(configured: &[ConfiguredNode], runtime: &Handle) -> mpsc::Receiver<Input> {
    let (reports, receiver) = mpsc::channel(REPORT_QUEUE);
    for configured in configured {
        configured.set_health_gauge(configured.is_always_available());
        if let TransportOffer::LiveKit { api_url, keys, probed: true, .. } = &configured.offer {
            let probe = Probe::new(api_url, keys);
            runtime.spawn(forward_probe_reports(configured.clone(), probe, reports.clone()));
        }
    }
    receiver
}

/// Forwards the health of a LiveKit server, until the receiver is dropped.
async fn forward_probe_reports(configured: ConfiguredNode, probe: Probe, reports: mpsc::Sender<Input>) {
    let node = &configured.node;
    let mut watch = HealthWatch::new(probe);
    loop {
        let report = watch.next().await;
        configured.set_health_gauge(report.users.is_ok());
        match &report.users {
            Ok(users) if report.changed => tracing::info!(%node, users, "healthy"),
            Err(error) if report.changed => tracing::warn!(%node, %error, "unhealthy, not announced"),
            _ => {}
        }
        let input = match report.users {
            Ok(users) => Input::Transport(configured.transport(users)),
            Err(_) => Input::TransportGone { node: node.clone() },
        };
        if let Err(TrySendError::Closed(_)) = reports.try_send(input) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
