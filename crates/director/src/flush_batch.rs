//! The changes of one flush, sorted for the publisher.

use std::{collections::HashMap, sync::Arc};

use archipelago::{AssignedIsland, Output, ReportedAssignment};
use protocol::{Address, IslandId, NodeName, SessionId};

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
    /// Islands that were closed.
    pub(crate) closed: Vec<IslandId>,
    /// Islands with other media grants from now on.
    pub(crate) media_changed: Vec<IslandId>,
    /// How many of the assignments are sent again, because the clients did not receive them.
    pub(crate) missed_count: u64,
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

impl FlushBatch {
    /// Takes the outputs of a flush.
    pub(crate) fn from_outputs(outputs: &mut Vec<Output>) -> Self {
        let mut batch = Self::default();
        let mut ended: HashMap<IslandId, Vec<Address>> = HashMap::new();
        let mut taken_over: HashMap<IslandId, Vec<Address>> = HashMap::new();
        for output in outputs.drain(..) {
            match output {
                Output::Assigned { peer, session, island, from } => {
                    batch.assigned.push(PeerAssignment { peer, session, from, island });
                }
                Output::AssignmentMissed { peer, reported } => {
                    let ReportedAssignment { island, node } = reported;
                    tracing::debug!(%peer, island, node, "the client lacks its assignment: sent again");
                    batch.missed_count += 1;
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
                Output::Closed { island } => {
                    tracing::debug!(%island, "closed");
                    batch.closed.push(island);
                }
                Output::MediaChanged { island, media } => {
                    tracing::info!(%island, ?media, "media changed");
                    batch.media_changed.push(island);
                }
                Output::Moved { island, from, to, members } => {
                    tracing::info!(%island, %from, %to, "moved");
                    batch.ended.push((island, Some(from), members));
                }
            }
        }
        batch.ended.extend(ended.into_iter().map(|(island, peers)| (island, None, peers)));
        batch.taken_over.extend(taken_over);
        batch
    }
}
