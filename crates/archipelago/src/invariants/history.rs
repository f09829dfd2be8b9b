//! Invariants between two consecutive flushes: which islands may merge, split and survive.

use std::collections::{HashMap, HashSet};

use protocol::{Address, IslandId, Position};

use super::{
    bounds::Bounds,
    partition::{IslandMembers, Partition, for_each_pair, is_connected},
    violation::Violation,
};
use crate::ids::AreaIndex;

/// The state after the previous flush.
#[derive(Debug, Clone, Default)]
pub(super) struct PreviousFlush {
    /// The island of each peer.
    pub(super) members: HashMap<Address, IslandId>,
    /// The age of each island ever opened: how many were opened up to it.
    pub(super) ages: HashMap<IslandId, usize>,
    /// Peers that have ever been in an island: they may rejoin it at the leave distance.
    pub(super) ever_placed: HashSet<Address>,
    /// The enclosure of each peer, or that it is in none.
    pub(super) enclosures: HashMap<Address, Option<AreaIndex>>,
    /// Rules or time of day may have changed since, or another engine took over.
    pub(super) rules_changed: bool,
}

impl PreviousFlush {
    /// Checks that islands merged only at the join distance and split only beyond the leave distance, and
    /// that the right one of two merged islands survived. Crowds are exempt: they are split by position.
    pub(super) fn check(&self, partition: &Partition, bounds: &Bounds) -> Result<(), Violation> {
        let now: HashMap<Address, usize> = partition.peers().map(|(index, peer, _)| (peer, index)).collect();
        let crowded = islands_in_crowds(partition, bounds);
        for (index, island) in partition.islands.iter().enumerate() {
            if !crowded.contains(&index) {
                self.check_joins(island, bounds)?;
            }
        }
        for (former_island, members) in self.members_by_island() {
            self.check_splits(former_island, &members, &now, &crowded, partition, bounds)?;
        }
        self.check_survivors(partition, &crowded, bounds)
    }

    fn members_by_island(&self) -> HashMap<&IslandId, Vec<Address>> {
        let mut islands: HashMap<&IslandId, Vec<Address>> = HashMap::new();
        for (peer, island) in &self.members {
            islands.entry(island).or_default().push(*peer);
        }
        islands
    }

    /// Members that were not in one island before are linked by hops of the join distance.
    fn check_joins(&self, island: &IslandMembers, bounds: &Bounds) -> Result<(), Violation> {
        let returned = |peer: &Address| !self.members.contains_key(peer) && self.ever_placed.contains(peer);
        let hop_m = |a: &Address, b: &Address| {
            let together = self.members.contains_key(a) && self.members.get(a) == self.members.get(b);
            let linked_before = together || returned(a) || returned(b);
            if linked_before { bounds.leave_m(*a, *b) } else { bounds.join_m(*a, *b) }
        };
        let mut unseen = island.members.clone();
        let mut frontier: Vec<(Address, Position)> = unseen.pop().into_iter().collect();
        while let Some((peer, at)) = frontier.pop() {
            unseen.retain(|&(other, position)| {
                let near = hop_m(&peer, &other)
                    .is_some_and(|metres| at.ground_distance_squared(position) <= metres.powi(2));
                if near {
                    frontier.push((other, position));
                }
                !near
            });
        }
        if unseen.is_empty() { Ok(()) } else { Err(Violation::JoinedTooFar(island.id.clone())) }
    }

    /// Former members of one island that are still connected share an island, except in crowds.
    fn check_splits(
        &self,
        former_island: &IslandId,
        members: &[Address],
        now: &HashMap<Address, usize>,
        crowded: &HashSet<usize>,
        partition: &Partition,
        bounds: &Bounds,
    ) -> Result<(), Violation> {
        let mut islands: Vec<usize> = members.iter().filter_map(|peer| now.get(peer).copied()).collect();
        islands.sort_unstable();
        islands.dedup();
        if islands.len() < 2 || islands.iter().any(|island| crowded.contains(island)) {
            return Ok(());
        }
        let members_now = islands.iter().flat_map(|&island| &partition.islands[island].members);
        let remaining: Vec<(Address, Position)> =
            members_now.filter(|(peer, _)| self.members.get(peer) == Some(former_island)).copied().collect();
        if remaining.iter().any(|&(peer, _)| self.enclosure_changed(peer, bounds)) {
            return Ok(());
        }
        let limit = bounds.limit_of(remaining.iter().map(|&(peer, _)| peer));
        if remaining.len() <= limit as usize && is_connected(&remaining, bounds) {
            return Err(Violation::NeedlessSplit(former_island.clone()));
        }
        Ok(())
    }

    /// Whether a peer's enclosure may differ from that before: peers cross a border one after the other,
    /// which splits and merges islands at any distance.
    fn enclosure_changed(&self, peer: Address, bounds: &Bounds) -> bool {
        self.rules_changed || self.enclosures.get(&peer).copied() != bounds.enclosure(peer)
    }

    /// An island that consists of exactly the members of two former ones, neither of which had to split,
    /// keeps the id of the larger, or of the older if both had the same size.
    fn check_survivors(
        &self,
        partition: &Partition,
        crowded: &HashSet<usize>,
        bounds: &Bounds,
    ) -> Result<(), Violation> {
        let former_island = self.members_by_island();
        let islands = partition.islands.iter().enumerate();
        for (_, island) in islands.filter(|(index, _)| !crowded.contains(index)) {
            let former: HashSet<Option<&IslandId>> =
                island.members.iter().map(|(peer, _)| self.members.get(peer)).collect();
            let former: Vec<Option<&IslandId>> = former.into_iter().collect();
            let &[Some(one), Some(other)] = former.as_slice() else { continue };
            let is_union = former_island[one].len() + former_island[other].len() == island.members.len();
            let was_connected = |id: &IslandId| {
                let members = island.members.iter().filter(|(peer, _)| self.members.get(peer) == Some(id));
                let members: Vec<_> = members.copied().collect();
                // By itself it may exceed the limit for the transports that its members can join now.
                let limit = bounds.limit_of(members.iter().map(|&(peer, _)| peer));
                members.len() <= limit as usize && is_connected(&members, bounds)
            };
            if island.members.iter().any(|(peer, _)| self.enclosure_changed(*peer, bounds)) {
                continue;
            }
            let rank = |id: &IslandId| (former_island[id].len(), std::cmp::Reverse(self.ages.get(id)));
            let survivor = if rank(one) > rank(other) { one } else { other };
            if is_union && was_connected(one) && was_connected(other) && *survivor != island.id {
                return Err(Violation::WrongSurvivor {
                    survivor: island.id.clone(),
                    ended: survivor.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The islands that are part of a crowd: a group connected at the leave distance that exceeds the limit.
fn islands_in_crowds(partition: &Partition, bounds: &Bounds) -> HashSet<usize> {
    let mut groups = UnionFind((0..partition.islands.len()).collect());
    for_each_pair(partition.peers().collect(), bounds.max_leave_m(), |one, other| {
        let near = bounds
            .leave_m(one.1, other.1)
            .is_some_and(|metres| one.2.ground_distance_squared(other.2) <= metres * metres);
        if near {
            groups.join(one.0, other.0);
        }
    });
    let mut peers: HashMap<usize, Vec<Address>> = HashMap::new();
    for (index, island) in partition.islands.iter().enumerate() {
        peers.entry(groups.find(index)).or_default().extend(island.members.iter().map(|&(peer, _)| peer));
    }
    let above: HashSet<usize> = peers
        .into_iter()
        .filter(|(_, peers)| peers.len() > bounds.limit_of(peers.iter().copied()) as usize)
        .map(|(group, _)| group)
        .collect();
    (0..partition.islands.len()).filter(|&index| above.contains(&groups.find(index))).collect()
}

/// Disjoint sets of islands: each entry is another island of its set, or the root itself.
struct UnionFind(Vec<usize>);

impl UnionFind {
    fn find(&self, mut island: usize) -> usize {
        while self.0[island] != island {
            island = self.0[island];
        }
        island
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.find(one), self.find(other));
        self.0[one.max(other)] = one.min(other);
    }
}
