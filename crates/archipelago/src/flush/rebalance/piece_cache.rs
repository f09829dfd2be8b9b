//! A cache of the pieces that a rebalance phase works on: their members, bounding boxes and neighbours,
//! loaded when they are needed.

use std::ops::{Index, IndexMut};

use crate::{
    flush::{
        neighbours::IslandNeighbours,
        partition::{bounding_box, connected_components},
    },
    ids::{IslandIndex, PeerIndex, PieceIndex, TableIndex},
    index_vec::IndexVec,
    point::Point,
    world::{DistanceTable, Member, World},
};

/// The cached data of one piece.
#[derive(Debug, Clone)]
pub(super) struct CachedPiece {
    island: IslandIndex,
    pub(super) members: Vec<Member>,
    /// The islands near it: all with a member within the join distance of one of its own, and, after
    /// steps, possibly islands that are no longer near.
    pub(super) neighbours: Vec<IslandIndex>,
    /// Whether `neighbours` was loaded. That happens when they are first needed or are about to change.
    neighbours_loaded: bool,
    /// The corners of a rectangle that contains all members. It is not reduced when a member is
    /// removed.
    low: Point,
    high: Point,
    /// Whether this flush processes the piece: it may be queued again.
    pub(super) active: bool,
    /// Whether the piece is in the queue.
    pub(super) queued: bool,
}

/// The cached pieces. The entries up to `used` are valid; the others keep their memory for reuse.
#[derive(Debug, Clone, Default)]
pub(super) struct PieceCache {
    pieces: IndexVec<PieceIndex, CachedPiece>,
    used: usize,
    /// The piece of each island that is cached.
    by_island: IndexVec<IslandIndex, Option<PieceIndex>>,
}

impl PieceCache {
    pub(super) fn find(&self, island: IslandIndex) -> Option<PieceIndex> {
        self.by_island.get(island).copied().flatten()
    }

    pub(super) fn contains(&self, island: IslandIndex) -> bool {
        self.find(island).is_some()
    }

    /// The index of the piece of an island, with its neighbours loaded.
    pub(super) fn get_or_load(&mut self, world: &mut World, island: IslandIndex) -> PieceIndex {
        let index = self.get_or_load_members(world, island);
        self[index].load_neighbours(world);
        index
    }

    /// The index of the piece of an island, with its members loaded and possibly without neighbours.
    pub(super) fn get_or_load_members(&mut self, world: &World, island: IslandIndex) -> PieceIndex {
        if let Some(known) = self.find(island) {
            return known;
        }
        let index = self.add(island);
        self[index].load_members(world);
        index
    }

    /// Loads the neighbours of an island that is cached. It must be called before a step changes them.
    pub(super) fn load_neighbours(&mut self, world: &mut World, island: IslandIndex) {
        if let Some(index) = self.find(island) {
            self[index].load_neighbours(world);
        }
    }

    /// Loads an island, unless it has no neighbours. Lists that the neighbours phase recorded are
    /// reused if they are still valid.
    pub(super) fn load_unless_isolated(
        &mut self,
        world: &mut World,
        recorded: &IslandNeighbours,
        island: IslandIndex,
    ) -> Option<PieceIndex> {
        let index = self.add(island);
        let piece = &mut self[index];
        match recorded.get(world, island) {
            Some(known) => {
                let populated = known.iter().filter(|&&neighbour| world.islands.is_populated(neighbour));
                piece.neighbours.extend(populated);
                piece.neighbours_loaded = true;
            }
            None => piece.load_neighbours(world),
        }
        if piece.neighbours.is_empty() {
            self.used -= 1;
            self.by_island[island] = None;
            return None;
        }
        piece.load_members(world);
        Some(index)
    }

    fn add(&mut self, island: IslandIndex) -> PieceIndex {
        let index = PieceIndex::new(self.used);
        self.used += 1;
        match self.pieces.get_mut(index) {
            Some(piece) => piece.reset(island),
            None => _ = self.pieces.push(CachedPiece::new(island)),
        }
        *self.by_island.grow_to(island, None) = Some(index);
        index
    }

    /// Whether two pieces are within the join distance, not counting the member `excluding` of the
    /// first.
    pub(super) fn are_near(
        &mut self,
        world: &World,
        one: IslandIndex,
        other: IslandIndex,
        excluding: Option<PeerIndex>,
    ) -> bool {
        let one = self.get_or_load_members(world, one);
        let other = self.get_or_load_members(world, other);
        self[one].is_near(&self[other], &world.spatial.distances, excluding)
    }

    /// Removes all pieces from the cache. Their memory is kept.
    pub(super) fn clear(&mut self) {
        for piece in self.pieces.iter().take(self.used) {
            self.by_island[piece.island] = None;
        }
        self.used = 0;
    }

    /// Records that two islands are near each other.
    pub(super) fn connect(&mut self, one: IslandIndex, other: IslandIndex) {
        self.add_neighbour(one, other);
        self.add_neighbour(other, one);
    }

    /// Adds a neighbour to an island, if that is cached.
    pub(super) fn add_neighbour(&mut self, island: IslandIndex, neighbour: IslandIndex) {
        if let Some(index) = self.find(island)
            && !self[index].neighbours.contains(&neighbour)
        {
            self[index].neighbours.push(neighbour);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |piece: &CachedPiece| {
            piece.members.capacity() * size_of::<Member>()
                + piece.neighbours.capacity() * size_of::<IslandIndex>()
        };
        self.pieces.iter().map(bytes).sum::<usize>() + self.pieces.bytes() + self.by_island.bytes()
    }
}

impl Index<PieceIndex> for PieceCache {
    type Output = CachedPiece;

    fn index(&self, index: PieceIndex) -> &CachedPiece {
        &self.pieces[index]
    }
}

impl IndexMut<PieceIndex> for PieceCache {
    fn index_mut(&mut self, index: PieceIndex) -> &mut CachedPiece {
        &mut self.pieces[index]
    }
}

impl CachedPiece {
    fn new(island: IslandIndex) -> Self {
        Self {
            island,
            members: Vec::new(),
            neighbours: Vec::new(),
            neighbours_loaded: false,
            low: Point::default(),
            high: Point::default(),
            active: false,
            queued: false,
        }
    }

    /// Makes it an empty piece of another island. It keeps its memory.
    fn reset(&mut self, island: IslandIndex) {
        self.island = island;
        (self.active, self.queued, self.neighbours_loaded) = (false, false, false);
        self.neighbours.clear();
        self.members.clear();
    }

    fn load_neighbours(&mut self, world: &mut World) {
        if std::mem::replace(&mut self.neighbours_loaded, true) {
            return;
        }
        world.spatial.islands_near_island(self.island, u32::MAX, &mut self.neighbours);
    }

    fn load_members(&mut self, world: &World) {
        world.spatial.collect_members(self.island, &mut self.members);
        (self.low, self.high) = bounding_box(&self.members);
    }

    pub(super) fn add(&mut self, member: Member) {
        self.members.push(member);
        let Point { x, z } = member.at;
        self.low = Point { x: self.low.x.min(x), z: self.low.z.min(z) };
        self.high = Point { x: self.high.x.max(x), z: self.high.z.max(z) };
    }

    pub(super) fn remove(&mut self, peer: PeerIndex) {
        if let Some(index) = self.members.iter().position(|member| member.peer == peer) {
            self.members.swap_remove(index);
        }
    }

    /// Whether a member other than `excluding` is within the join distance of `candidate`.
    pub(super) fn is_near_member(
        &self,
        candidate: Member,
        distances: &DistanceTable,
        excluding: Option<PeerIndex>,
    ) -> bool {
        let Member { at, traits, .. } = candidate;
        self.members.iter().any(|member| {
            Some(member.peer) != excluding
                && member.at.distance_squared(at)
                    <= distances.join_squared(member.traits.zone(), traits.zone())
        })
    }

    /// Whether a member of this island other than `excluding` is within the join distance of a member
    /// of the other island.
    pub(super) fn is_near(
        &self,
        other: &Self,
        distances: &DistanceTable,
        excluding: Option<PeerIndex>,
    ) -> bool {
        let others = self.members.iter().filter(|member| Some(member.peer) != excluding);
        others.into_iter().any(|&member| other.is_near_member(member, distances, None))
    }

    /// Whether the members stay connected over hops of at most the leave distance when one of them is
    /// removed. Two sufficient conditions are tried before the search for components.
    pub(super) fn is_connected_without(
        &self,
        removed: Member,
        distances: &DistanceTable,
        rest: &mut Vec<Member>,
        ends: &mut Vec<usize>,
    ) -> bool {
        if self.fits_in_leave_distance(distances) || self.neighbours_share_hub(removed, distances) {
            return true;
        }
        rest.clear();
        rest.extend(self.members.iter().filter(|member| member.peer != removed.peer));
        ends.clear();
        connected_components(rest, distances, ends);
        ends.len() == 1
    }

    /// Whether no two members can be beyond the leave distance of each other.
    fn fits_in_leave_distance(&self, distances: &DistanceTable) -> bool {
        let across = self.low.distance_squared(self.high);
        if let Some(squared) = distances.uniform_leave_squared() {
            return across <= squared;
        }
        self.members.iter().all(|member| across <= distances.own_leave_squared(member))
    }

    /// Whether all neighbours of `removed` are neighbours of the nearest of them. Then `removed` is not
    /// a cut vertex: the rest stays connected without it.
    fn neighbours_share_hub(&self, removed: Member, distances: &DistanceTable) -> bool {
        let near = || {
            let others = self.members.iter().filter(|member| member.peer != removed.peer);
            others.filter(|member| distances.are_within_leave_distance(member, &removed))
        };
        let nearest = near().min_by(|a, b| {
            a.at.distance_squared(removed.at)
                .total_cmp(&b.at.distance_squared(removed.at))
                .then(a.peer.cmp(&b.peer))
        });
        nearest.is_some_and(|hub| near().all(|member| distances.are_within_leave_distance(member, hub)))
    }
}
