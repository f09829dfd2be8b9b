//! What may become of islands from one flush to the next.

use std::collections::{HashMap, HashSet};

use protocol::{Address, IslandId, Position};

use super::{Bounds, IslandMembers, Partition, Violation, for_each_pair, is_connected};

/// How things were after the flush before.
#[derive(Debug, Clone, Default)]
pub(super) struct PreviousFlush {
    /// Who was in which island.
    pub(super) members: HashMap<Address, IslandId>,
    /// The islands there were, and how many were opened before each.
    pub(super) ages: HashMap<IslandId, usize>,
    /// Who has ever been in an island: they may be put back where they were.
    pub(super) ever_placed: HashSet<Address>,
    /// To whose company each was kept.
    pub(super) enclosures: HashMap<Address, u32>,
    /// There may have been other rules since.
    pub(super) rules_changed: bool,
}

impl PreviousFlush {
    /// Checks that islands came together only at the join distance and parted only beyond the leave
    /// distance, and that of two that became one the right one survived.
    pub(super) fn check(&self, picture: &Partition, bounds: &Bounds) -> Result<(), Violation> {
        let now: HashMap<Address, usize> = picture.peers().map(|(index, peer, _)| (peer, index)).collect();
        let crowded = islands_in_crowds(picture, bounds);
        for (index, island) in picture.islands.iter().enumerate() {
            if !crowded.contains(&index) {
                self.check_joins(island, bounds)?;
            }
        }
        for (before, members) in self.members_by_island() {
            self.check_splits(before, &members, &now, &crowded, picture, bounds)?;
        }
        self.check_survivors(picture, &crowded, bounds)
    }

    fn members_by_island(&self) -> HashMap<&IslandId, Vec<Address>> {
        let mut islands: HashMap<&IslandId, Vec<Address>> = HashMap::new();
        for (peer, island) in &self.members {
            islands.entry(island).or_default().push(*peer);
        }
        islands
    }

    /// Whoever was not together before is so by a hop of the join distance.
    fn check_joins(&self, island: &IslandMembers, bounds: &Bounds) -> Result<(), Violation> {
        let returned = |peer: &Address| !self.members.contains_key(peer) && self.ever_placed.contains(peer);
        let hop_m = |a: &Address, b: &Address| {
            let together = self.members.contains_key(a) && self.members.get(a) == self.members.get(b);
            let far = together || returned(a) || returned(b);
            if far { bounds.leave_m(*a, *b) } else { bounds.join_m(*a, *b) }
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

    /// Whoever was together and still holds together is together, except in crowds.
    fn check_splits(
        &self,
        before: &IslandId,
        members: &[Address],
        now: &HashMap<Address, usize>,
        crowded: &HashSet<usize>,
        picture: &Partition,
        bounds: &Bounds,
    ) -> Result<(), Violation> {
        let mut islands: Vec<usize> = members.iter().filter_map(|peer| now.get(peer).copied()).collect();
        islands.sort_unstable();
        islands.dedup();
        if islands.len() < 2 || islands.iter().any(|island| crowded.contains(island)) {
            return Ok(());
        }
        let everybody = islands.iter().flat_map(|&island| &picture.islands[island].members);
        let still: Vec<(Address, Position)> =
            everybody.filter(|(peer, _)| self.members.get(peer) == Some(before)).copied().collect();
        if still.iter().any(|&(peer, _)| self.enclosure_changed(peer, bounds)) {
            return Ok(());
        }
        let limit = bounds.limit_of(still.iter().map(|&(peer, _)| peer));
        if still.len() <= limit as usize && is_connected(&still, bounds) {
            return Err(Violation::NeedlessSplit(before.clone()));
        }
        Ok(())
    }

    /// Whether a peer is kept to another company than before: who crosses a border may do so one
    /// after the other.
    fn enclosure_changed(&self, peer: Address, bounds: &Bounds) -> bool {
        self.rules_changed || self.enclosures.get(&peer).copied() != bounds.enclosure(peer)
    }

    /// An island that consists of just the members of two before, neither of which fell apart, goes
    /// on as the larger of them, and of two alike as the older.
    fn check_survivors(
        &self,
        picture: &Partition,
        crowded: &HashSet<usize>,
        bounds: &Bounds,
    ) -> Result<(), Violation> {
        let before = self.members_by_island();
        let islands = picture.islands.iter().enumerate();
        for (_, island) in islands.filter(|(index, _)| !crowded.contains(index)) {
            let former: HashSet<Option<&IslandId>> =
                island.members.iter().map(|(peer, _)| self.members.get(peer)).collect();
            let former: Vec<Option<&IslandId>> = former.into_iter().collect();
            let &[Some(one), Some(other)] = former.as_slice() else { continue };
            let whole = before[one].len() + before[other].len() == island.members.len();
            let held = |id: &IslandId| {
                let members = island.members.iter().filter(|(peer, _)| self.members.get(peer) == Some(id));
                let members: Vec<_> = members.copied().collect();
                // By itself it may be too large for what its members can join now.
                let limit = bounds.limit_of(members.iter().map(|&(peer, _)| peer));
                members.len() <= limit as usize && is_connected(&members, bounds)
            };
            if island.members.iter().any(|(peer, _)| self.enclosure_changed(*peer, bounds)) {
                continue;
            }
            let rank = |id: &IslandId| (before[id].len(), std::cmp::Reverse(self.ages.get(id)));
            let survivor = if rank(one) > rank(other) { one } else { other };
            if whole && held(one) && held(other) && *survivor != island.id {
                return Err(Violation::WrongSurvivor {
                    survivor: island.id.clone(),
                    ended: survivor.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The islands of people who, connected at the leave distance, are more than fit an island.
fn islands_in_crowds(picture: &Partition, bounds: &Bounds) -> HashSet<usize> {
    let mut groups = UnionFind((0..picture.islands.len()).collect());
    for_each_pair(picture.peers().collect(), bounds.max_leave_m(), |one, other| {
        let near = bounds
            .leave_m(one.1, other.1)
            .is_some_and(|metres| one.2.ground_distance_squared(other.2) <= metres * metres);
        if near {
            groups.join(one.0, other.0);
        }
    });
    let mut people: HashMap<usize, Vec<Address>> = HashMap::new();
    for (index, island) in picture.islands.iter().enumerate() {
        people.entry(groups.find(index)).or_default().extend(island.members.iter().map(|&(peer, _)| peer));
    }
    let above: HashSet<usize> = people
        .into_iter()
        .filter(|(_, people)| people.len() > bounds.limit_of(people.iter().copied()) as usize)
        .map(|(group, _)| group)
        .collect();
    (0..picture.islands.len()).filter(|&index| above.contains(&groups.find(index))).collect()
}

/// Which islands are connected: each names another of its group, or itself.
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
