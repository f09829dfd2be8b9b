//! The changes of the world since the last flush, for the next one to process.

use crate::{
    event::ReportedAssignment,
    ids::{IslandIndex, MoveIndex, PeerIndex},
    index_vec::{IndexVec, push_growing_by_eighth, recycle},
    point::Point,
};

/// An island has few movers if fewer than one in this many of its members moved.
const FEW_MOVERS_DIVISOR: u32 = 8;

/// Changes that the next flush processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Peers in the world that are in no island yet, in the order in which they arrived.
    pub(crate) joining: Vec<PeerIndex>,
    /// Peers that left the world and have not been removed from their island.
    pub(crate) leaving: Vec<PeerIndex>,
    /// Members of an island that were removed from their cluster.
    pub(crate) unclustered: Vec<PeerIndex>,
    /// Peers with a possible change of membership or assignment. The flush emits an output only for a
    /// real one.
    pub(crate) to_report: Vec<PeerIndex>,
    /// Peers with clients that did not receive their last assignment, and the one that they report.
    pub(crate) missed: Vec<(PeerIndex, ReportedAssignment)>,
    /// Members of islands that moved.
    pub(crate) moved: IndexVec<MoveIndex, PeerIndex>,
    /// Their positions before the move, recorded only while an island has few movers.
    pub(crate) move_origins: Vec<MoveOrigin>,
    /// Islands with a member that moved, joined or left.
    pub(crate) dirty: Vec<IslandIndex>,
    /// Islands with other members than after the last flush.
    pub(crate) changed: Vec<IslandIndex>,
    /// Islands that were closed in this flush and had an id.
    pub(crate) closed: Vec<IslandIndex>,
    /// The number of islands created in this flush.
    pub(crate) opened_count: u64,
    /// The values that are to be derived from the rules again.
    pub(crate) invalidated: Invalidated,
    /// The islands were restored from a snapshot.
    pub(crate) restored: bool,
}

/// The position of a member before it moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MoveOrigin {
    /// Identifies the peer.
    pub(crate) move_index: MoveIndex,
    pub(crate) island: IslandIndex,
    pub(crate) from: Point,
}

/// The parts of the state that the next flush derives again, from the rules and their conditions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Invalidated {
    /// The size limits: every island is evaluated.
    pub(crate) limits: bool,
    /// The enclosures: islands may hold members of different ones.
    pub(crate) enclosures: bool,
    /// The rule and the node of every island.
    pub(crate) placements: bool,
    /// A crowding condition changed, after the settling time: rules with one replace others at once.
    pub(crate) crowding: bool,
}

/// The changes that the present flush evaluates.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) joining: Vec<PeerIndex>,
    pub(crate) moved: IndexVec<MoveIndex, PeerIndex>,
    pub(crate) move_origins: Vec<MoveOrigin>,
    pub(crate) dirty: Vec<IslandIndex>,
}

impl Changes {
    /// Takes the lists that decide which islands are evaluated.
    pub(crate) fn take(&mut self) -> Evaluated {
        Evaluated {
            joining: std::mem::take(&mut self.joining),
            moved: std::mem::take(&mut self.moved),
            move_origins: std::mem::take(&mut self.move_origins),
            dirty: std::mem::take(&mut self.dirty),
        }
    }

    /// Clears all lists after a flush. They keep memory for up to twice as many entries.
    pub(super) fn clear(&mut self, evaluated: Evaluated) {
        // Islands that were marked during the flush have been evaluated by it.
        let Evaluated { joining, moved, move_origins, dirty } = evaluated;
        (self.joining, self.moved, self.move_origins, self.dirty) = (joining, moved, move_origins, dirty);
        recycle(&mut self.joining);
        recycle(&mut self.leaving);
        recycle(&mut self.move_origins);
        recycle(&mut self.dirty);
        recycle(&mut self.changed);
        self.moved.recycle();
    }

    /// Records a member that moved, and its former position if its island has few `movers`.
    pub(super) fn add_move(&mut self, peer: PeerIndex, island: IslandIndex, from: Point, is_few: bool) {
        let move_index = self.moved.push(peer);
        if is_few {
            push_growing_by_eighth(&mut self.move_origins, MoveOrigin { move_index, island, from });
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let peers = [&self.joining, &self.leaving, &self.unclustered, &self.to_report];
        let islands = [&self.dirty, &self.changed, &self.closed];
        peers.map(|list| list.capacity() * size_of::<PeerIndex>()).iter().sum::<usize>()
            + islands.map(|list| list.capacity() * size_of::<IslandIndex>()).iter().sum::<usize>()
            + self.moved.bytes()
            + self.move_origins.capacity() * size_of::<MoveOrigin>()
            + self.missed.capacity() * size_of::<(PeerIndex, ReportedAssignment)>()
    }
}

/// Whether fewer than one in [`FEW_MOVERS_DIVISOR`] of `members` moved.
pub(super) fn are_few_movers(movers: u32, members: u32) -> bool {
    movers.saturating_mul(FEW_MOVERS_DIVISOR) < members
}
