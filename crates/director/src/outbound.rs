//! From the engine's outputs to the bus.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use archipelago::{Engine, Output};
use bus::{Bus, Headers};
use protocol::{
    Address, ConnectionString, IslandId, Message as _, NodeName, Subject, Ulid, UlidClock,
    atoll_bus::MembershipEnded,
    v3::{IslandChangedMessage, IslandData, IslandStatusMessage, JoinIslandMessage, LeftIslandMessage},
};
use transports::ws_room;

/// Mints connection strings and publishes what changed.
pub(crate) struct Outbound {
    bus: Bus,
    minter: ws_room::Minter,
    /// Tells tokens of before a peer left an island from those of after it came back.
    minted: UlidClock,
}

impl Outbound {
    pub(crate) fn new(bus: Bus, minter: ws_room::Minter) -> Self {
        Self { bus, minter, minted: UlidClock::default() }
    }

    /// Publishes the outputs of a flush, and empties them.
    pub(crate) fn tell(&mut self, engine: &Engine, outputs: &mut Vec<Output>) {
        if outputs.is_empty() {
            return;
        }
        // Memberships end before others begin, so that tokens minted below are newer.
        let mut ended: HashMap<IslandId, Vec<String>> = HashMap::new();
        for output in outputs.iter() {
            if let Output::Left { island, peer } = output {
                ended.entry(island.clone()).or_default().push(peer.to_string());
            }
        }
        for (island, peers) in ended {
            self.end_membership(island, peers, None);
        }
        for output in outputs.iter() {
            if let Output::Moved { island, from, .. } = output {
                let members = engine.island(island).into_iter().flat_map(|view| view.members());
                let peers = members.map(|(peer, _)| peer.to_string()).collect();
                self.end_membership(island.clone(), peers, Some(from));
            }
        }
        let mut members = Members::default();
        for output in outputs.drain(..) {
            match output {
                Output::Assigned { peer, session, island, transport, from } => {
                    let connection = self.connection(engine, peer, &island, &transport);
                    let Some(connection) = connection else { continue };
                    tracing::debug!(%peer, %island, node = %transport, ?from, "assigned");
                    let own = IslandChangedMessage {
                        conn_str: connection.to_string(),
                        from_island_id: from.map(|island| island.to_string()),
                        ..IslandChangedMessage::default()
                    };
                    // Encoded messages put one after the other decode as one: what all members are
                    // told alike is encoded once.
                    let payload = [members.of(engine, &island), &own.encode_to_vec()].concat();
                    self.bus.publish(&Subject::PeerIslandChanged(peer), Headers { session }, payload);
                    metrics::counter!("atoll_director_assignments_total").increment(1);
                }
                Output::Joined { island, peer } => {
                    let message =
                        JoinIslandMessage { island_id: island.to_string(), peer_id: peer.to_string() };
                    let subject = Subject::IslandPeerJoin(island);
                    self.bus.publish(&subject, Headers::default(), message.encode_to_vec());
                }
                Output::Left { island, peer } => {
                    let message =
                        LeftIslandMessage { island_id: island.to_string(), peer_id: peer.to_string() };
                    let subject = Subject::IslandPeerLeft(island);
                    self.bus.publish(&subject, Headers::default(), message.encode_to_vec());
                }
                Output::Opened { island } => tracing::debug!(%island, "opened"),
                Output::Closed { island } => tracing::debug!(%island, "closed"),
                Output::Moved { island, from, to } => tracing::info!(%island, %from, %to, "moved"),
            }
        }
    }

    fn end_membership(&mut self, island: IslandId, peers: Vec<String>, node: Option<&NodeName>) {
        let minted_before = self.next_ulid().to_string();
        let node = node.map(NodeName::to_string).unwrap_or_default();
        let ended = MembershipEnded { peers, minted_before, node };
        self.bus.publish(&Subject::MembershipEnded(island), Headers::default(), ended.encode_to_vec());
    }

    /// The string by which `peer` finds its island's room on `node`.
    fn connection(
        &mut self,
        engine: &Engine,
        peer: Address,
        island: &IslandId,
        node: &NodeName,
    ) -> Option<ConnectionString> {
        let transport =
            engine.transports().map(|view| view.transport).find(|transport| transport.node == *node);
        let Some(transport) = transport else {
            tracing::warn!(%island, %node, "an island is on a node that nobody knows");
            return None;
        };
        let minted = self.next_ulid();
        let now = SystemTime::now();
        let connection = self.minter.connection(&transport.public_url, island, peer, minted, now);
        connection
            .inspect_err(|error| tracing::warn!(%peer, %island, %error, "no token could be minted"))
            .ok()
    }

    fn next_ulid(&mut self) -> Ulid {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Without randomness from the system they are still in order, and tokens are signed.
        let random = admission::random::<16>().unwrap_or_default();
        self.minted.mint(u64::try_from(unix_ms).unwrap_or(u64::MAX), u128::from_le_bytes(random))
    }

    /// Publishes where everybody is.
    pub(crate) fn report(&self, engine: &Engine) {
        let data = engine.islands().map(|island| IslandData {
            id: island.id().to_string(),
            peers: island.members().map(|(peer, _)| peer.to_string()).collect(),
            max_peers: island.max_peers(),
            center: Some(island.center().into()),
            radius: f64::from(island.radius()),
        });
        let report = IslandStatusMessage { data: data.collect() };
        self.bus.publish(&Subject::EngineIslands, Headers::default(), report.encode_to_vec());
    }
}

/// What all members of an island are told alike, encoded once a flush.
#[derive(Default)]
struct Members(HashMap<IslandId, Vec<u8>>);

impl Members {
    fn of(&mut self, engine: &Engine, island: &IslandId) -> &[u8] {
        self.0.entry(island.clone()).or_insert_with(|| {
            let members = engine.island(island).into_iter().flat_map(|view| view.members());
            let peers = members.map(|(peer, at)| (peer.to_string(), at.into())).collect();
            let island_id = island.to_string();
            IslandChangedMessage { island_id, peers, ..IslandChangedMessage::default() }.encode_to_vec()
        })
    }
}
