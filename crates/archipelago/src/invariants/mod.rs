//! What must be true after every flush, checked without the engine's own structures.
//!
//! A [`Partition`] is what the engine shows; [`Partition::check`] looks at one by itself. A [`InvariantChecker`]
//! hears all inputs and outputs and holds what was announced against what it sees. Both are plain
//! and slow enough to be trusted, and fast enough for simulations of thousands.

mod checker;
mod history;

use std::collections::HashMap;

use protocol::{Address, IslandId, NodeName, Position};

pub use checker::InvariantChecker;

use crate::{Engine, Settings};

/// All islands after a flush.
#[derive(Debug, Clone, Default)]
pub struct Partition {
    /// In no order that means anything.
    pub islands: Vec<IslandMembers>,
}

/// One island of a [`Partition`].
#[derive(Debug, Clone)]
pub struct IslandMembers {
    /// Its id.
    pub id: IslandId,
    /// The node that holds its room.
    pub transport: Option<NodeName>,
    /// Its members and where they stand.
    pub members: Vec<(Address, Position)>,
}

/// What the islands are held against.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// The most members of an island.
    pub limit: u32,
    /// See [`InvalidSettings::join_distance_m`].
    pub join_distance_m: f32,
    /// See [`InvalidSettings::leave_distance_m`].
    pub leave_distance_m: f32,
    /// What rules and clients make of that; `None`: nothing.
    pub per_peer: Option<PerPeerBounds>,
}

/// What holds for each peer, where not the same holds for all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PerPeerBounds {
    /// By peer.
    pub peers: HashMap<Address, PeerBounds>,
    /// The most members of an island, by zone and by what all members can join.
    pub limits: HashMap<(u32, u8), u32>,
}

/// What holds for one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerBounds {
    /// The ground that it is counted to: all that is in the same areas.
    pub zone: u32,
    /// Only those with the same are together.
    pub enclosure: u32,
    /// What its client can join, a bit for each.
    pub capabilities: u8,
    /// Up to here it comes together with others, if they do too.
    pub join_m: f32,
    /// Beyond this it parts.
    pub leave_m: f32,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A peer is in two islands at once.
    #[error("{0} is in two islands")]
    TwoIslands(Address),
    /// Peers in the world and peers in islands are not the same number.
    #[error("{present} peers are in the world and {placed} in islands")]
    PeerCountMismatch {
        /// Peers in the world.
        present: usize,
        /// Peers in islands.
        placed: usize,
    },
    /// An island has nobody in it.
    #[error("{0} is empty")]
    Empty(IslandId),
    /// Two islands have the same id.
    #[error("two islands are {0}")]
    DuplicateId(IslandId),
    /// An island is larger than its limit.
    #[error("{0} has {1} members")]
    TooLarge(IslandId, usize),
    /// An island does not hold together at the leave distance.
    #[error("{0} falls apart")]
    NotConnected(IslandId),
    /// Two islands are within the join distance, fit together, and are two.
    #[error("{0} and {1} should be one")]
    Unmerged(IslandId, IslandId),
    /// Members of an island are still held together by the leave distance and are not together.
    #[error("{0} was parted without need")]
    NeedlessSplit(IslandId),
    /// Members of an island are together who were not, and are not within the join distance.
    #[error("{0} was put together from afar")]
    JoinedTooFar(IslandId),
    /// An island is on a node that cannot hold it, or on none, while one that its rule names could.
    #[error("{0} could be where all of it has room")]
    BadlyPlaced(IslandId),
    /// Somebody who disconnected is in an island.
    #[error("{0} has left and is in an island")]
    StaleMember(Address),
    /// Of two islands that merged, the smaller survived, or the younger of two alike.
    #[error("{survivor} survived {ended}")]
    WrongSurvivor {
        /// The island that should have ended.
        survivor: IslandId,
        /// The island that should have survived.
        ended: IslandId,
    },
    /// An id that had been used was used again.
    #[error("{0} was opened again")]
    ReusedId(IslandId),
    /// What was announced of islands and members is not what is.
    #[error("the announcements do not add up at {0}")]
    OutputMismatch(IslandId),
    /// A peer was told what it had been told, or was told twice in a flush.
    #[error("{0} was told for nothing")]
    RedundantAssignment(Address),
    /// A peer was told something that is not so.
    #[error("{0} was told of {1}, which it is not in")]
    WrongAssignment(Address, IslandId),
    /// A peer was told that it came from an island that it was not last told of.
    #[error("{0} was told of a wrong former island")]
    WrongFormerIsland(Address),
    /// A peer whose island or transport changed was not told.
    #[error("{0} was not told")]
    MissingAssignment(Address),
}

impl Bounds {
    /// The same for everybody.
    pub fn uniform(limit: u32, join_distance_m: f32, leave_distance_m: f32) -> Self {
        Self { limit, join_distance_m, leave_distance_m, per_peer: None }
    }

    /// The bounds that an engine works within at present.
    pub fn of(engine: &Engine) -> Self {
        let &Settings { join_distance_m, leave_distance_m, .. } = engine.settings();
        Self {
            per_peer: engine.per_peer_bounds(),
            ..Self::uniform(engine.open_zone_limit(), join_distance_m, leave_distance_m)
        }
    }

    /// Up to where two come together; `None`: they never do.
    pub fn join_m(&self, one: Address, other: Address) -> Option<f32> {
        self.smaller_of_pair(one, other, self.join_distance_m, |terms| terms.join_m)
    }

    /// Beyond where two part; `None`: they are never together.
    pub fn leave_m(&self, one: Address, other: Address) -> Option<f32> {
        self.smaller_of_pair(one, other, self.leave_distance_m, |terms| terms.leave_m)
    }

    fn smaller_of_pair(
        &self,
        one: Address,
        other: Address,
        plain_m: f32,
        own: impl Fn(&PeerBounds) -> f32,
    ) -> Option<f32> {
        let Some(PerPeerBounds { peers, .. }) = &self.per_peer else { return Some(plain_m) };
        let (Some(one), Some(other)) = (peers.get(&one), peers.get(&other)) else { return Some(plain_m) };
        (one.enclosure == other.enclosure).then(|| own(one).min(own(other)))
    }

    /// The most members that an island of these may have.
    pub fn limit_of(&self, members: impl IntoIterator<Item = Address>) -> u32 {
        let Some(PerPeerBounds { peers, limits }) = &self.per_peer else { return self.limit };
        let terms: Vec<&PeerBounds> = members.into_iter().filter_map(|peer| peers.get(&peer)).collect();
        let capabilities = terms.iter().fold(u8::MAX, |all, terms| all & terms.capabilities);
        let limit = |terms: &&PeerBounds| limits.get(&(terms.zone, capabilities)).copied();
        terms.iter().filter_map(limit).min().unwrap_or(self.limit)
    }

    /// To whose company a peer is kept.
    pub(crate) fn enclosure(&self, peer: Address) -> Option<u32> {
        Some(self.per_peer.as_ref()?.peers.get(&peer)?.enclosure)
    }

    /// The greatest distance at which anybody parts.
    fn max_leave_m(&self) -> f32 {
        let terms = self.per_peer.iter().flat_map(|terms| terms.peers.values());
        terms.map(|terms| terms.leave_m).fold(self.leave_distance_m, f32::max)
    }
}

impl Partition {
    /// What an engine shows: where somebody else says who is together, with the spot of each cluster
    /// for the places of its members.
    pub fn of(engine: &Engine) -> Self {
        let islands = engine.spatial_members().map(|(island, members)| IslandMembers {
            id: island.id(),
            transport: island.transport().cloned(),
            members,
        });
        Self { islands: islands.collect() }
    }

    /// Each peer with the place of its island in `islands`.
    fn peers(&self) -> impl Iterator<Item = (usize, Address, Position)> {
        let islands = self.islands.iter().enumerate();
        islands.flat_map(|(index, island)| island.members.iter().map(move |&(peer, at)| (index, peer, at)))
    }

    /// Checks that each peer is in one island, that no island is above the limit, that the members
    /// of each are connected at the leave distance, and that no two islands should be one.
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

/// Calls `visit` with each two that are within a distance of each other.
pub(crate) fn for_each_pair<T: Copy>(
    mut peers: Vec<(usize, T, Position)>,
    distance_m: f32,
    mut visit: impl FnMut((usize, T, Position), (usize, T, Position)),
) {
    peers.sort_by(|a, b| a.2.x.total_cmp(&b.2.x));
    for (index, &one) in peers.iter().enumerate() {
        // One metre more than needed, for whatever rounding does to the difference.
        let near = peers[index + 1..].iter().take_while(|other| other.2.x - one.2.x <= distance_m + 1.0);
        for &other in near {
            if one.2.ground_distance_squared(other.2) <= distance_m * distance_m {
                visit(one, other);
            }
        }
    }
}

/// Whether these are connected through hops of at most the leave distance.
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
