use std::ops::{Index, IndexMut};

use crate::{
    engine::Engine,
    flush::split::{bounding_box, connected_components},
    slab::NONE,
    spatial::{DistanceTable, Member, Point},
};

/// What a refinement knows of a piece.
#[derive(Debug, Clone, Default)]
pub(super) struct CachedPiece {
    island: u32,
    pub(super) members: Vec<Member>,
    /// The islands near it: all that have a member within the join distance of one of its own, and,
    /// once members have come or gone, perhaps some that had.
    pub(super) neighbours: Vec<u32>,
    /// The contacts were sought. Until they are needed, or would change, they are not.
    neighbours_loaded: bool,
    /// The corners of a rectangle around all members.
    low: Point,
    high: Point,
    /// The flush is about it: it may be looked at again.
    pub(super) active: bool,
    /// It is in line to be looked at.
    pub(super) queued: bool,
}

/// The sheets of a refinement, opened as they are needed.
#[derive(Debug, Clone, Default)]
pub(super) struct PieceCache {
    pieces: Vec<CachedPiece>,
    used: u32,
    /// By island.
    by_island: Vec<u32>,
}

impl PieceCache {
    pub(super) fn find(&self, island: u32) -> u32 {
        self.by_island.get(island as usize).copied().unwrap_or(NONE)
    }

    pub(super) fn contains(&self, island: u32) -> bool {
        self.find(island) != NONE
    }

    /// The sheet of an island, a new one if need be.
    pub(super) fn get_or_load(&mut self, engine: &mut Engine, island: u32) -> u32 {
        let index = self.get_or_load_members(engine, island);
        self[index].load_neighbours(engine);
        index
    }

    /// The sheet of an island, a new one if need be, for one who only looks at the members.
    pub(super) fn get_or_load_members(&mut self, engine: &Engine, island: u32) -> u32 {
        let known = self.find(island);
        if known != NONE {
            return known;
        }
        let index = self.add(island);
        self[index].load_members(engine);
        index
    }

    /// Seeks the contacts of an island that has a sheet, while they are what they were when it was
    /// opened.
    pub(super) fn load_neighbours(&mut self, engine: &mut Engine, island: u32) {
        let index = self.find(island);
        if index != NONE {
            self[index].load_neighbours(engine);
        }
    }

    /// A new sheet for an island, unless nobody is near it. What the survey found is believed.
    pub(super) fn load_unless_isolated(&mut self, engine: &mut Engine, island: u32) -> Option<u32> {
        let index = self.add(island);
        let sheet = &mut self[index];
        match engine.scratch.neighbours.get(island) {
            Some(known) if !engine.islands[island].members_changed => {
                let inhabited = known.iter().filter(|&&contact| engine.islands.is_populated(contact));
                sheet.neighbours.extend(inhabited);
                sheet.neighbours_loaded = true;
            }
            _ => sheet.load_neighbours(engine),
        }
        if sheet.neighbours.is_empty() {
            self.used -= 1;
            self.by_island[island as usize] = NONE;
            return None;
        }
        sheet.load_members(engine);
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

    /// Closes all sheets. Their memory stays.
    pub(super) fn clear(&mut self) {
        for sheet in &self.pieces[..self.used as usize] {
            self.by_island[sheet.island as usize] = NONE;
        }
        self.used = 0;
    }

    /// Notes that two islands are near each other.
    pub(super) fn connect(&mut self, one: u32, other: u32) {
        self.add_neighbour(one, other);
        self.add_neighbour(other, one);
    }

    /// Notes on the sheet of an island, if it has one, that another is near.
    pub(super) fn add_neighbour(&mut self, island: u32, contact: u32) {
        let index = self.find(island);
        if index != NONE && !self[index].neighbours.contains(&contact) {
            self[index].neighbours.push(contact);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let sheet = |sheet: &CachedPiece| {
            sheet.members.capacity() * size_of::<Member>() + sheet.neighbours.capacity() * size_of::<u32>()
        };
        self.pieces.iter().map(sheet).sum::<usize>()
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

    /// Whether a member other than `but` is within the join distance of somebody.
    pub(super) fn is_near_member(&self, somebody: Member, reaches: &DistanceTable, excluding: u32) -> bool {
        let Member { at, traits: terms, .. } = somebody;
        self.members.iter().any(|member| {
            member.peer != excluding
                && member.at.distance_squared(at) <= reaches.join_squared(member.traits.zone(), terms.zone())
        })
    }

    /// Whether a member of this island other than `but` is within the join distance of one of the
    /// other.
    pub(super) fn is_near(&self, other: &Self, reaches: &DistanceTable, excluding: u32) -> bool {
        let others = self.members.iter().filter(|member| member.peer != excluding);
        others.into_iter().any(|&member| other.is_near_member(member, reaches, NONE))
    }

    /// Whether the members hold together at the leave distance when one of them goes.
    pub(super) fn is_connected_without(
        &self,
        gone: Member,
        reaches: &DistanceTable,
        rest: &mut Vec<Member>,
        ends: &mut Vec<usize>,
    ) -> bool {
        if self.fits_in_leave_distance(reaches) || self.neighbours_share_hub(gone, reaches) {
            return true;
        }
        rest.clear();
        rest.extend(self.members.iter().filter(|member| member.peer != gone.peer));
        ends.clear();
        connected_components(rest, reaches, ends);
        ends.len() == 1
    }

    /// Whether nobody can be beyond the leave distance of anybody.
    fn fits_in_leave_distance(&self, reaches: &DistanceTable) -> bool {
        let across = self.low.distance_squared(self.high);
        if let Some(squared) = reaches.uniform_leave_squared() {
            return across <= squared;
        }
        self.members.iter().all(|member| across <= reaches.own_leave_squared(member))
    }

    /// Whether all who are near one member are near the one of them that is nearest to it: then it
    /// is not through that member that they hold together.
    fn neighbours_share_hub(&self, gone: Member, reaches: &DistanceTable) -> bool {
        let near = || {
            let others = self.members.iter().filter(|member| member.peer != gone.peer);
            others.filter(|member| reaches.are_within_leave_distance(member, &gone))
        };
        let nearest = near().min_by(|a, b| {
            a.at.distance_squared(gone.at)
                .total_cmp(&b.at.distance_squared(gone.at))
                .then(a.peer.cmp(&b.peer))
        });
        nearest.is_some_and(|hub| near().all(|member| reaches.are_within_leave_distance(member, hub)))
    }
}
