//! The islands of an engine, and the invariants that hold for them at any time.

use std::collections::HashMap;

use protocol::{Address, IslandId, NodeName, Position};

use super::{bounds::Bounds, violation::Violation};
use crate::{engine::Engine, world::Member};

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

impl Partition {
    /// The partition of an engine. If clusters are given, all members of a cluster have the position
    /// that the engine uses for the cluster.
    pub fn of(engine: &Engine) -> Self {
        let world = &engine.world;
        let islands = engine.islands().map(|view| {
            let members = world
                .spatial
                .members(view.island)
                .map(|Member { peer, at, .. }| (world.peers[peer].address, Position::new(at.x, 0.0, at.z)));
            IslandMembers { id: view.id(), transport: view.transport().cloned(), members: members.collect() }
        });
        Self { islands: islands.collect() }
    }

    /// Each peer with the index of its island in `islands`.
    pub(super) fn peers(&self) -> impl Iterator<Item = (usize, Address, Position)> {
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
pub(super) fn for_each_pair<T: Copy>(
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
pub(super) fn is_connected(members: &[(Address, Position)], bounds: &Bounds) -> bool {
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
