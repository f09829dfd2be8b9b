//! Queries by distance: members of an island, islands near an island, islands near a point.

use super::{
    Group, Member, PeerEntry, Point, SpatialIndex,
    cells::{NEIGHBOUR_OFFSETS, offset_key},
    iter_list,
};
use crate::slab::NONE;

/// A set of visited islands that is cleared in O(1): each island has the number of the search that
/// visited it last.
#[derive(Debug, Clone, Default)]
pub(super) struct VisitedIslands {
    pub(super) stamps: Vec<u32>,
    current: u32,
}

impl VisitedIslands {
    fn begin(&mut self, islands: usize) {
        if self.current == u32::MAX {
            self.stamps.clear();
            self.current = 0;
        }
        self.current += 1;
        if self.stamps.len() < islands {
            self.stamps.resize(islands, 0);
        }
    }

    fn contains(&self, island: u32) -> bool {
        self.stamps[island as usize] == self.current
    }

    fn insert(&mut self, island: u32) {
        self.stamps[island as usize] = self.current;
    }
}

impl SpatialIndex {
    /// The members of an island, in an order without meaning, but the same for the same inputs.
    pub(crate) fn members(&self, island: u32) -> impl Iterator<Item = Member> {
        self.groups_of_island(island).flat_map(|group| self.members_in_group(group))
    }

    /// Appends the members of an island to a list, in the order of [`members`](Self::members).
    pub(crate) fn collect_members(&self, island: u32, members: &mut Vec<Member>) {
        members.reserve(self.size(island) as usize);
        let mut group = self.stats[island as usize].first_group;
        while group != NONE {
            let Group { first_entry: first, next_in_island, .. } = self.groups[group];
            let mut entry = first;
            while entry != NONE {
                let PeerEntry { at, peer, next, traits, .. } = self.entries[entry];
                members.push(Member { peer, at, traits });
                entry = next;
            }
            group = next_in_island;
        }
    }

    /// Appends the members of an island that are in the cell of a point or in one of the eight around
    /// it.
    pub(crate) fn collect_members_near(&self, island: u32, point: Point, members: &mut Vec<Member>) {
        for cell in self.cells_around(point) {
            for group in self.groups_in_cell(cell).filter(|&group| self.groups[group].island == island) {
                members.extend(self.members_in_group(group));
            }
        }
    }

    /// Appends to `found` each other island of at most `max_size` members that has a member within the
    /// join distance of a member of this one.
    pub(crate) fn islands_near_island(&mut self, island: u32, max_size: u32, found: &mut Vec<u32>) {
        let mut visited = std::mem::take(&mut self.visited);
        visited.begin(self.stats.len());
        visited.insert(island);
        for group in self.groups_of_island(island) {
            for other in self.groups_near_cell(self.groups[group].cell) {
                let candidate = self.groups[other].island;
                if !visited.contains(candidate)
                    && self.size(candidate) <= max_size
                    && self.groups_are_near(group, other)
                {
                    visited.insert(candidate);
                    found.push(candidate);
                }
            }
        }
        self.visited = visited;
    }

    /// Appends to `found` each island of at most `max_size` members that has a member within the join
    /// distance of a peer of this zone at a point.
    pub(crate) fn islands_near_point(
        &mut self,
        point: Point,
        zone: u32,
        max_size: u32,
        found: &mut Vec<u32>,
    ) {
        let mut visited = std::mem::take(&mut self.visited);
        visited.begin(self.stats.len());
        for cell in self.cells_around(point) {
            for group in self.groups_in_cell(cell) {
                let candidate = self.groups[group].island;
                if !visited.contains(candidate)
                    && self.size(candidate) <= max_size
                    && self.group_is_near(
                        group,
                        point,
                        self.distances.join_squared(self.groups[group].zone, zone),
                    )
                {
                    visited.insert(candidate);
                    found.push(candidate);
                }
            }
        }
        self.visited = visited;
    }

    /// Whether an island has a member within the leave distance of a peer of this zone at a point.
    pub(crate) fn is_within_leave_distance(&self, island: u32, point: Point, zone: u32) -> bool {
        self.cells_around(point).into_iter().flat_map(|cell| self.groups_in_cell(cell)).any(|group| {
            let Group { island: other, zone: their_zone, .. } = self.groups[group];
            other == island
                && self.group_is_near(group, point, self.distances.leave_squared(their_zone, zone))
        })
    }

    fn groups_are_near(&self, group: u32, other: u32) -> bool {
        let squared = self.distances.join_squared(self.groups[group].zone, self.groups[other].zone);
        squared >= 0.0
            && self.members_in_group(group).any(|member| self.group_is_near(other, member.at, squared))
    }

    fn group_is_near(&self, group: u32, point: Point, squared: f32) -> bool {
        squared >= 0.0
            && self.members_in_group(group).any(|member| member.at.distance_squared(point) <= squared)
    }

    pub(super) fn groups_of_island(&self, island: u32) -> impl Iterator<Item = u32> {
        iter_list(self.stats[island as usize].first_group, |group| self.groups[group].next_in_island)
    }

    pub(super) fn groups_in_cell(&self, cell: u32) -> impl Iterator<Item = u32> {
        let first = if cell == NONE { NONE } else { self.cells[cell].first_group };
        iter_list(first, |group| self.groups[group].next_in_cell)
    }

    pub(super) fn groups_near_cell(&self, cell: u32) -> impl Iterator<Item = u32> {
        self.cells_near(cell).flat_map(|cell| self.groups_in_cell(cell))
    }

    /// The cell of a point and the eight around it, with `NONE` for cells that do not exist.
    pub(super) fn cells_around(&self, point: Point) -> [u32; 9] {
        let key = self.cell_key(point);
        let cell = self.find_cell(key);
        let around = match cell {
            NONE => NEIGHBOUR_OFFSETS.map(|by| self.find_cell(offset_key(key, by))),
            cell => self.cells[cell].neighbours,
        };
        let mut cells = [cell; 9];
        cells[1..].copy_from_slice(&around);
        cells
    }

    pub(super) fn cells_near(&self, cell: u32) -> impl Iterator<Item = u32> {
        std::iter::once(cell).chain(self.cells[cell].neighbours)
    }

    pub(super) fn members_in_group(&self, group: u32) -> impl Iterator<Item = Member> {
        self.entries_in_group(group).map(|entry| {
            let PeerEntry { at, peer, traits, .. } = self.entries[entry];
            Member { peer, at, traits }
        })
    }

    pub(super) fn entries_in_group(&self, group: u32) -> impl Iterator<Item = u32> {
        iter_list(self.groups[group].first_entry, |entry| self.entries[entry].next)
    }
}
