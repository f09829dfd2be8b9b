//! A cache of the pieces that a rebalance phase works on: their members, bounding boxes and neighbours,
//! loaded when they are needed.

use std::ops::{Index, IndexMut};

use crate::{
    engine::Engine,
    flush::split::{bounding_box, connected_components},
    slab::NONE,
    spatial::{DistanceTable, Member, Point},
};

/// The cached data of one piece.
#[derive(Debug, Clone, Default)]
pub(super) struct CachedPiece {
    island: u32,
    pub(super) members: Vec<Member>,
    /// The islands near it: all with a member within the join distance of one of its own, and, after
    /// steps, possibly islands that are no longer near.
    pub(super) neighbours: Vec<u32>,
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
    pieces: Vec<CachedPiece>,
    used: u32,
    /// The index of the piece of each island, or `NONE`.
    by_island: Vec<u32>,
}

impl PieceCache {
    pub(super) fn find(&self, island: u32) -> u32 {
        self.by_island.get(island as usize).copied().unwrap_or(NONE)
    }

    pub(super) fn contains(&self, island: u32) -> bool {
        self.find(island) != NONE
    }

    /// The index of the piece of an island, with its neighbours loaded.
    pub(super) fn get_or_load(&mut self, engine: &mut Engine, island: u32) -> u32 {
        let index = self.get_or_load_members(engine, island);
        self[index].load_neighbours(engine);
        index
    }

    /// The index of the piece of an island, with its members loaded and possibly without neighbours.
    pub(super) fn get_or_load_members(&mut self, engine: &Engine, island: u32) -> u32 {
        let known = self.find(island);
        if known != NONE {
            return known;
        }
        let index = self.add(island);
        self[index].load_members(engine);
        index
    }

    /// Loads the neighbours of an island that is cached. It must be called before a step changes them.
    pub(super) fn load_neighbours(&mut self, engine: &mut Engine, island: u32) {
        let index = self.find(island);
        if index != NONE {
            self[index].load_neighbours(engine);
        }
    }

    /// Loads an island, unless it has no neighbours. Lists that the neighbours phase recorded are
    /// reused if they are still valid.
    pub(super) fn load_unless_isolated(&mut self, engine: &mut Engine, island: u32) -> Option<u32> {
        let index = self.add(island);
        let piece = &mut self[index];
        match engine.scratch.neighbours.get(island) {
            Some(known) if !engine.islands[island].members_changed => {
                let populated = known.iter().filter(|&&neighbour| engine.islands.is_populated(neighbour));
                piece.neighbours.extend(populated);
                piece.neighbours_loaded = true;
            }
            _ => piece.load_neighbours(engine),
        }
        if piece.neighbours.is_empty() {
            self.used -= 1;
            self.by_island[island as usize] = NONE;
            return None;
        }
        piece.load_members(engine);
        Some(index)
    }

    fn add(&mut self, island: u32) -> u32 {
        let index = self.used;
        self.used += 1;
        if index as usize == self.pieces.len() {
            self.pieces.push(CachedPiece::default());
        }
        if self.by_island.len() <= island as usize {
            self.by_island.resize(island as usize + 1, NONE);
        }
        self.by_island[island as usize] = index;
        self[index].clear(island);
        index
    }

    /// Removes all pieces from the cache. Their memory is kept.
    pub(super) fn clear(&mut self) {
        for piece in &self.pieces[..self.used as usize] {
            self.by_island[piece.island as usize] = NONE;
        }
        self.used = 0;
    }

    /// Records that two islands are near each other.
    pub(super) fn connect(&mut self, one: u32, other: u32) {
        self.add_neighbour(one, other);
        self.add_neighbour(other, one);
    }

    /// Adds a neighbour to an island, if that is cached.
    pub(super) fn add_neighbour(&mut self, island: u32, neighbour: u32) {
        let index = self.find(island);
        if index != NONE && !self[index].neighbours.contains(&neighbour) {
            self[index].neighbours.push(neighbour);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |piece: &CachedPiece| {
            piece.members.capacity() * size_of::<Member>() + piece.neighbours.capacity() * size_of::<u32>()
        };
        self.pieces.iter().map(bytes).sum::<usize>()
            + self.pieces.capacity() * size_of::<CachedPiece>()
            + self.by_island.capacity() * size_of::<u32>()
    }
}

impl Index<u32> for PieceCache {
    type Output = CachedPiece;

    fn index(&self, index: u32) -> &CachedPiece {
        &self.pieces[index as usize]
    }
}

impl IndexMut<u32> for PieceCache {
    fn index_mut(&mut self, index: u32) -> &mut CachedPiece {
        &mut self.pieces[index as usize]
    }
}

impl CachedPiece {
    fn clear(&mut self, island: u32) {
        self.island = island;
        (self.active, self.queued, self.neighbours_loaded) = (false, false, false);
        self.neighbours.clear();
        self.members.clear();
    }

    fn load_neighbours(&mut self, engine: &mut Engine) {
        if std::mem::replace(&mut self.neighbours_loaded, true) {
            return;
        }
        engine.spatial.islands_near_island(self.island, u32::MAX, &mut self.neighbours);
    }

    fn load_members(&mut self, engine: &Engine) {
        engine.spatial.collect_members(self.island, &mut self.members);
        (self.low, self.high) = bounding_box(&self.members);
    }

    pub(super) fn add(&mut self, member: Member) {
        self.members.push(member);
        let Point { x, z } = member.at;
        self.low = Point { x: self.low.x.min(x), z: self.low.z.min(z) };
        self.high = Point { x: self.high.x.max(x), z: self.high.z.max(z) };
    }

    pub(super) fn remove(&mut self, peer: u32) {
        if let Some(index) = self.members.iter().position(|member| member.peer == peer) {
            self.members.swap_remove(index);
        }
    }

    /// Whether a member other than `excluding` is within the join distance of `candidate`.
    pub(super) fn is_near_member(
        &self,
        candidate: Member,
        distances: &DistanceTable,
        excluding: u32,
    ) -> bool {
        let Member { at, traits, .. } = candidate;
        self.members.iter().any(|member| {
            member.peer != excluding
                && member.at.distance_squared(at)
                    <= distances.join_squared(member.traits.zone(), traits.zone())
        })
    }

    /// Whether a member of this island other than `excluding` is within the join distance of a member
    /// of the other island.
    pub(super) fn is_near(&self, other: &Self, distances: &DistanceTable, excluding: u32) -> bool {
        let others = self.members.iter().filter(|member| member.peer != excluding);
        others.into_iter().any(|&member| other.is_near_member(member, distances, NONE))
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
