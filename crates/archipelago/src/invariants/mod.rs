//! Invariants that hold after every flush, checked without the engine's own data structures.
//!
//! A [`Partition`] is the islands that the engine shows; [`Partition::check`] checks one by itself. An
//! [`InvariantChecker`] follows all inputs and outputs and compares the outputs with the partitions. Both
//! are simple rather than fast, so that they can be trusted; they are fast enough for simulations of
//! thousands of peers.

mod checker;
mod history;

use std::collections::HashMap;

use protocol::{Address, IslandId, NodeName, Position};

pub use checker::InvariantChecker;

use crate::{Engine, Settings};

/// All islands with their members after a flush.
#[derive(Debug, Clone, Default)]
pub struct Partition {
    /// The islands, in no particular order.
    pub islands: Vec<IslandMembers>,
}

/// One island of a [`Partition`].
#[derive(Debug, Clone)]
pub struct IslandMembers {
    /// Island id.
    pub id: IslandId,
    /// Node that hosts its room; `None`: it waits for one.
    pub transport: Option<NodeName>,
    /// Its members and their positions.
    pub members: Vec<(Address, Position)>,
}

/// The limits and distances that islands are checked against.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Size limit of an island.
    pub limit: u32,
    /// See [`Settings::join_distance_m`].
    pub join_distance_m: f32,
    /// See [`Settings::leave_distance_m`].
    pub leave_distance_m: f32,
    /// Bounds that rules and client capabilities change, by peer; `None`: the same bounds apply to all peers.
    pub per_peer: Option<PerPeerBounds>,
}

/// Bounds that differ between peers, because of rules or client capabilities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PerPeerBounds {
    /// The bounds of each peer.
    pub peers: HashMap<Address, PeerBounds>,
    /// Size limit of an island, by zone and by the capabilities that all members have.
    pub limits: HashMap<(u32, u8), u32>,
}

/// The bounds of one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerBounds {
    /// The zone in effect for it: the ground that is in the same areas.
    pub zone: u32,
    /// Only peers with the same enclosure share islands.
    pub enclosure: u32,
    /// Its client's capabilities, one bit each.
    pub capabilities: u8,
    /// Join distance in metres; the smaller one of two peers applies.
    pub join_m: f32,
    /// Leave distance in metres; the smaller one of two peers applies.
    pub leave_m: f32,
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A peer is in two islands.
    #[error("{0} is in two islands")]
    TwoIslands(Address),
    /// The number of peers to be placed differs from the number of peers in islands.
    #[error("{present} peers are in the world and {placed} in islands")]
    PeerCountMismatch {
        /// Peers in the world that belong in an island.
        present: usize,
        /// Peers in islands.
        placed: usize,
    },
    /// An island has no members.
    #[error("{0} is empty")]
    Empty(IslandId),
    /// Two islands have the same id.
    #[error("two islands are {0}")]
    DuplicateId(IslandId),
    /// An island is larger than its limit.
    #[error("{0} has {1} members")]
    TooLarge(IslandId, usize),
    /// The members of an island are not connected at the leave distance.
    #[error("the members of {0} are not connected")]
    NotConnected(IslandId),
    /// Two islands are within the join distance and fit the limit together, but did not merge.
    #[error("{0} and {1} should have merged")]
    Unmerged(IslandId, IslandId),
    /// Former members of one island are still connected at the leave distance, but were split.
    #[error("{0} was split without need")]
    NeedlessSplit(IslandId),
    /// Members that did not share an island before were merged without a link at the join distance.
    #[error("{0} merged beyond the join distance")]
    JoinedTooFar(IslandId),
    /// An island is on a node that cannot host it, or on none, although a node that its rule names could.
    #[error("{0} could be on a node that has room for it")]
    BadlyPlaced(IslandId),
    /// A disconnected peer is in an island.
    #[error("{0} disconnected and is in an island")]
    StaleMember(Address),
    /// The smaller of two merged islands survived, or the younger of two with the same size.
    #[error("{survivor} survived instead of {ended}")]
    WrongSurvivor {
        /// The island that should have ended.
        survivor: IslandId,
        /// The island that should have survived.
        ended: IslandId,
    },
    /// A new island has an id that was used before.
    #[error("id {0} was reused")]
    ReusedId(IslandId),
    /// Outputs about islands and members do not match the partition.
    #[error("the outputs about {0} do not match the islands")]
    OutputMismatch(IslandId),
    /// A peer got the same assignment again, or two in one flush.
    #[error("{0} got a redundant assignment")]
    RedundantAssignment(Address),
    /// A peer was assigned to an island that it is not in.
    #[error("{0} was assigned to {1}, which it is not in")]
    WrongAssignment(Address, IslandId),
    /// An assignment names a former island other than that of the last assignment.
    #[error("the assignment of {0} names a wrong former island")]
    WrongFormerIsland(Address),
    /// The island or node of a peer changed, but it got no assignment.
    #[error("{0} got no assignment")]
    MissingAssignment(Address),
}

impl Bounds {
    /// The same bounds for all peers.
    pub fn uniform(limit: u32, join_distance_m: f32, leave_distance_m: f32) -> Self {
        Self { limit, join_distance_m, leave_distance_m, per_peer: None }
    }

    /// The bounds in effect in an engine.
    pub fn of(engine: &Engine) -> Self {
        let &Settings { join_distance_m, leave_distance_m, .. } = engine.settings();
        Self {
            per_peer: engine.per_peer_bounds(),
            ..Self::uniform(engine.open_zone_limit(), join_distance_m, leave_distance_m)
        }
    }

    /// Join distance of two peers, in metres; `None`: they may not share an island.
    pub fn join_m(&self, one: Address, other: Address) -> Option<f32> {
        self.smaller_of_pair(one, other, self.join_distance_m, |bounds| bounds.join_m)
    }

    /// Leave distance of two peers, in metres; `None`: they may not share an island.
    pub fn leave_m(&self, one: Address, other: Address) -> Option<f32> {
        self.smaller_of_pair(one, other, self.leave_distance_m, |bounds| bounds.leave_m)
    }

    fn smaller_of_pair(
        &self,
        one: Address,
        other: Address,
        uniform_m: f32,
        of_peer: impl Fn(&PeerBounds) -> f32,
    ) -> Option<f32> {
        let Some(PerPeerBounds { peers, .. }) = &self.per_peer else { return Some(uniform_m) };
        let (Some(one), Some(other)) = (peers.get(&one), peers.get(&other)) else { return Some(uniform_m) };
        (one.enclosure == other.enclosure).then(|| of_peer(one).min(of_peer(other)))
    }

    /// Size limit of an island with these members.
    pub fn limit_of(&self, members: impl IntoIterator<Item = Address>) -> u32 {
        let Some(PerPeerBounds { peers, limits }) = &self.per_peer else { return self.limit };
        let bounds: Vec<&PeerBounds> = members.into_iter().filter_map(|peer| peers.get(&peer)).collect();
        let capabilities = bounds.iter().fold(u8::MAX, |all, bounds| all & bounds.capabilities);
        let limit = |bounds: &&PeerBounds| limits.get(&(bounds.zone, capabilities)).copied();
        bounds.iter().filter_map(limit).min().unwrap_or(self.limit)
    }

    /// The enclosure of a peer; `None`: all peers have the same.
    pub(crate) fn enclosure(&self, peer: Address) -> Option<u32> {
        Some(self.per_peer.as_ref()?.peers.get(&peer)?.enclosure)
    }

    /// The greatest leave distance of any peer, in metres.
    fn max_leave_m(&self) -> f32 {
        let bounds = self.per_peer.iter().flat_map(|bounds| bounds.peers.values());
        bounds.map(|bounds| bounds.leave_m).fold(self.leave_distance_m, f32::max)
    }
}

impl Partition {
    /// The partition of an engine. If clusters are given, all members of a cluster have the position
    /// that the engine uses for the cluster.
    pub fn of(engine: &Engine) -> Self {
        let islands = engine.spatial_members().map(|(island, members)| IslandMembers {
            id: island.id(),
            transport: island.transport().cloned(),
            members,
        });
        Self { islands: islands.collect() }
    }

    /// Each peer with the index of its island in `islands`.
    fn peers(&self) -> impl Iterator<Item = (usize, Address, Position)> {
        let islands = self.islands.iter().enumerate();
        islands.flat_map(|(index, island)| island.members.iter().map(move |&(peer, at)| (index, peer, at)))
    }

    /// Checks that each peer is in one island, that no island is empty or above the limit, that the members
    /// of each are connected at the leave distance, and that no two islands should have merged.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn check(&self, bounds: &Bounds) -> Result<(), Violation> {
        let mut seen = HashMap::new();
        for (_, peer, _) in self.peers() {
            if seen.insert(peer, ()).is_some() {
                return Err(Violation::TwoIslands(peer));
            }
        }
        let mut ids = HashMap::new();
        for island in &self.islands {
            if ids.insert(&island.id, ()).is_some() {
                return Err(Violation::DuplicateId(island.id.clone()));
            }
            self.check_island(island, bounds)?;
        }
        self.check_merges(bounds)
    }

    fn check_island(&self, island: &IslandMembers, bounds: &Bounds) -> Result<(), Violation> {
        if island.members.is_empty() {
            return Err(Violation::Empty(island.id.clone()));
        }
        if island.members.len() > bounds.limit_of(island.members.iter().map(|&(peer, _)| peer)) as usize {
            return Err(Violation::TooLarge(island.id.clone(), island.members.len()));
        }
        if !is_connected(&island.members, bounds) {
            return Err(Violation::NotConnected(island.id.clone()));
        }
        Ok(())
    }

    fn check_merges(&self, bounds: &Bounds) -> Result<(), Violation> {
        let peers = |island: usize| self.islands[island].members.iter().map(|&(peer, _)| peer);
        let fit = |one: usize, other: usize| {
            let size = self.islands[one].members.len() + self.islands[other].members.len();
            size <= bounds.limit_of(peers(one).chain(peers(other))) as usize
        };
        let mut violation = None;
        for_each_pair(self.peers().collect(), bounds.max_leave_m(), |one, other| {
            let near = bounds
                .join_m(one.1, other.1)
                .is_some_and(|metres| one.2.ground_distance_squared(other.2) <= metres * metres);
            if one.0 != other.0 && near && fit(one.0, other.0) {
                violation = Some((one.0, other.0));
            }
        });
        match violation {
            Some((a, b)) => Err(Violation::Unmerged(self.islands[a].id.clone(), self.islands[b].id.clone())),
            None => Ok(()),
        }
    }
}

/// Calls `visit` with each pair of peers within a distance of each other: a sweep along x.
pub(crate) fn for_each_pair<T: Copy>(
    mut peers: Vec<(usize, T, Position)>,
    distance_m: f32,
    mut visit: impl FnMut((usize, T, Position), (usize, T, Position)),
) {
    peers.sort_by(|a, b| a.2.x.total_cmp(&b.2.x));
    for (index, &one) in peers.iter().enumerate() {
        // One metre more than needed, to allow for rounding of the difference.
        let near = peers[index + 1..].iter().take_while(|other| other.2.x - one.2.x <= distance_m + 1.0);
        for &other in near {
            if one.2.ground_distance_squared(other.2) <= distance_m * distance_m {
                visit(one, other);
            }
        }
    }
}

/// Whether hops of at most the leave distance connect these members.
pub(crate) fn is_connected(members: &[(Address, Position)], bounds: &Bounds) -> bool {
    let mut unseen = members.to_vec();
    let mut frontier: Vec<(Address, Position)> = unseen.pop().into_iter().collect();
    while let Some((peer, from)) = frontier.pop() {
        unseen.retain(|&(other, position)| {
            let near = bounds
                .leave_m(peer, other)
                .is_some_and(|metres| from.ground_distance_squared(position) <= metres * metres);
            if near {
                frontier.push((other, position));
            }
            !near
        });
    }
    unseen.is_empty()
}
