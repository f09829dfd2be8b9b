//! Nodes that do not announce themselves: the configuration names them, and the director announces
//! them to the engine and mints for them.

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

/// A node that does not announce itself.
#[derive(Debug, Clone)]
pub struct ConfiguredNode {
    /// Its name. No node that announces itself on the bus is taken under it.
    pub node: NodeName,
    /// What its rooms are, and how clients find them.
    pub offer: TransportOffer,
    /// The most peers that one of its rooms holds.
    pub max_island_size: u32,
    /// The most peers on it; `None`: no limit.
    pub max_users: Option<u32>,
    /// It is about to leave: it takes no more peers, and its islands go elsewhere when they can.
    pub draining: bool,
}

/// What a configured node offers.
#[derive(Debug, Clone)]
pub enum TransportOffer {
    /// Rooms of a LiveKit server, while it is healthy.
    LiveKit {
        /// Where clients reach it: `ws://host:port` or `wss://host`.
        url: String,
        /// Where its API is: `http://host:port` or `https://host`.
        api_url: String,
        /// What it knows us by.
        keys: livekit::Keys,
        /// How long a token admits.
        token_ttl: Duration,
        /// Whether it is asked how it is; if not, it counts as healthy.
        probed: bool,
    },
    /// A mesh among the peers, which needs no server and is always on offer.
    P2p(p2p::Minter),
    /// What a template describes, which nobody can probe and is always on offer.
    External(external::Template),
}

/// Mints for every node.
pub(crate) struct Minters {
    configured: HashMap<NodeName, Minter>,
    /// For all others: only room nodes of this project announce themselves.
    rooms: Minter,
}

/// How often a node that is always on offer is announced.
pub(crate) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// What LiveKit servers are said to be that the engine has not heard yet; at the bound the newest is
/// dropped, and said again a second later.
const REPORT_QUEUE: usize = 64;

impl ConfiguredNode {
    /// Whether nothing has to be asked before it is offered.
    pub(crate) fn is_always_available(&self) -> bool {
        !matches!(self.offer, TransportOffer::LiveKit { probed: true, .. })
    }

    /// What it would announce with so many users.
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
        let healthy = f64::from(u8::from(healthy));
        metrics::gauge!("atoll_transport_healthy", "node" => self.node.to_string()).set(healthy);
    }
}

impl Minters {
    pub(crate) fn new(rooms: ws_room::Minter, configured: &[ConfiguredNode]) -> Self {
        let minters = configured.iter().map(|configured| (configured.node.clone(), configured.minter()));
        Self { configured: minters.collect(), rooms: Minter::WsRoom(rooms) }
    }

    /// The one for this node.
    pub(crate) fn for_node(&self, node: &NodeName) -> &Minter {
        self.configured.get(node).unwrap_or(&self.rooms)
    }
}

/// Has a task on `runtime` probe each LiveKit server, every second, and gives what follows for the
/// engine.
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

/// Tells how a LiveKit server is, until nobody listens.
async fn forward_probe_reports(configured: ConfiguredNode, probe: Probe, reports: mpsc::Sender<Input>) {
    let node = &configured.node;
    let mut watch = HealthWatch::new(probe);
    loop {
        let report = watch.next().await;
        configured.set_health_gauge(report.users.is_ok());
        match &report.users {
            Ok(users) if report.changed => tracing::info!(%node, users, "healthy"),
            Err(error) if report.changed => tracing::warn!(%node, %error, "unhealthy, and not on offer"),
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
