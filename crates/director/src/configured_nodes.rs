//! Nodes that do not announce themselves: they are listed in the configuration. The director announces them
//! to the engine and mints connection strings for them.

use std::{collections::HashMap, sync::Arc};

use archipelago::{Transport, TransportKind};
use protocol::NodeName;
use transports::{Minter, external, livekit, p2p, ws_room};

use crate::{livekit::LiveKitSettings, metrics};

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
    LiveKit(Arc<LiveKitSettings>),
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

impl ConfiguredNode {
    /// Whether it is available without a probe.
    pub(crate) fn is_always_available(&self) -> bool {
        !matches!(&self.offer, TransportOffer::LiveKit(settings) if settings.probed)
    }

    /// The announcement of this node with `users` peers on it.
    pub(crate) fn transport(&self, users: u32) -> Transport {
        let (kind, public_url) = match &self.offer {
            TransportOffer::LiveKit(settings) => (TransportKind::LiveKit, settings.url.as_str().into()),
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
            note: None,
        }
    }

    fn minter(&self) -> Minter {
        match &self.offer {
            TransportOffer::LiveKit(settings) => {
                Minter::LiveKit(livekit::Minter::new(settings.keys.clone(), settings.token_ttl))
            }
            TransportOffer::P2p(minter) => Minter::P2p(minter.clone()),
            TransportOffer::External(template) => Minter::External(template.clone()),
        }
    }

    pub(crate) fn set_health_gauge(&self, healthy: bool) {
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

#[cfg(test)]
mod tests;
