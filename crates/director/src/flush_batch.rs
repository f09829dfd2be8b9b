//! The changes of one flush, copied out of the engine so that they can be published without it.

use std::{collections::HashMap, sync::Arc};

use archipelago::{Engine, Output};
use protocol::{Address, IslandId, NodeName, Position, SessionId};

/// The changes of one flush, in the order in which they are published.
#[derive(Debug, Default)]
pub(crate) struct FlushBatch {
    /// Ended memberships: on one node, or on all (`None`).
    pub(crate) ended: Vec<(IslandId, Option<NodeName>, Vec<Address>)>,
    /// Members with a newer session that replaced one without resuming it.
    pub(crate) taken_over: Vec<(IslandId, Vec<Address>)>,
    pub(crate) joined: Vec<MemberChange>,
    pub(crate) assigned: Vec<PeerAssignment>,
    pub(crate) left: Vec<MemberChange>,
}

/// A peer that joined or left an island.
#[derive(Debug)]
pub(crate) struct MemberChange {
    pub(crate) island: IslandId,
    pub(crate) peer: Address,
    pub(crate) session: Option<SessionId>,
}

/// A client that gets a new assignment.
#[derive(Debug)]
pub(crate) struct PeerAssignment {
    pub(crate) peer: Address,
    pub(crate) session: Option<SessionId>,
    pub(crate) from: Option<IslandId>,
    pub(crate) island: Arc<AssignedIsland>,
}

/// The part of an assignment that all members of an island share.
#[derive(Debug)]
pub(crate) struct AssignedIsland {
    pub(crate) id: IslandId,
    /// The node that hosts its room.
    pub(crate) node: NodeName,
    pub(crate) node_url: Arc<str>,
    pub(crate) members: Vec<(Address, Position)>,
}

impl FlushBatch {
    /// Takes the outputs of a flush, with the data of the engine that they refer to.
    pub(crate) fn from_outputs(engine: &Engine, outputs: &mut Vec<Output>) -> Self {
        let mut batch = Self::default();
        let mut ended: HashMap<IslandId, Vec<Address>> = HashMap::new();
        let mut taken_over: HashMap<IslandId, Vec<Address>> = HashMap::new();
        let mut islands: HashMap<IslandId, Option<Arc<AssignedIsland>>> = HashMap::new();
        let urls: HashMap<&NodeName, &Arc<str>> =
            engine.transports().map(|view| (&view.transport.node, &view.transport.public_url)).collect();
        for output in outputs.drain(..) {
            match output {
                Output::Assigned { peer, session, island, transport, from } => {
                    let island = islands.entry(island).or_insert_with_key(|id| {
                        let node_url = Arc::clone(urls.get(&transport)?);
                        let members = engine.island(id).into_iter().flat_map(|view| view.members());
                        let (id, node) = (id.clone(), transport.clone());
                        Some(Arc::new(AssignedIsland { id, node, node_url, members: members.collect() }))
                    });
                    match island {
                        Some(island) => {
                            batch.assigned.push(PeerAssignment {
                                peer,
                                session,
                                from,
                                island: island.clone(),
                            });
                        }
                        None => {
                            tracing::warn!(%peer, node = %transport, "assigned to an unknown node")
                        }
                    }
                }
                Output::Joined { island, peer, session } => {
                    batch.joined.push(MemberChange { island, peer, session });
                }
                Output::Left { island, peer, session } => {
                    ended.entry(island.clone()).or_default().push(peer);
                    batch.left.push(MemberChange { island, peer, session });
                }
                Output::TakenOver { island, peer } => taken_over.entry(island).or_default().push(peer),
                Output::Opened { island } => tracing::debug!(%island, "opened"),
                Output::Closed { island } => tracing::debug!(%island, "closed"),
                Output::Moved { island, from, to } => {
                    tracing::info!(%island, %from, %to, "moved");
                    let members = engine.island(&island).into_iter().flat_map(|view| view.members());
                    let members = members.map(|(peer, _)| peer).collect();
                    batch.ended.push((island, Some(from), members));
                }
            }
        }
        batch.ended.extend(ended.into_iter().map(|(island, peers)| (island, None, peers)));
        batch.taken_over.extend(taken_over);
        batch
    }
}
