//! Queries by distance: members of an island, islands near an island, islands near a point.

use super::{
    cells::{NEIGHBOUR_OFFSETS, offset_key},
    index::{Group, SpatialIndex},
    member::Member,
};
use crate::{
    ids::{CellIndex, GroupIndex, IslandIndex, ZoneIndex},
    point::Point,
};

impl SpatialIndex {
    /// The members of an island, in an order without meaning, but the same for the same inputs.
    pub(crate) fn members(&self, island: IslandIndex) -> impl Iterator<Item = Member> {
        self.groups_of_island(island).flat_map(|group| self.members_in_group(group))
    }

    /// Appends the members of an island to a list, in the order of [`members`](Self::members).
    pub(crate) fn collect_members(&self, island: IslandIndex, members: &mut Vec<Member>) {
        members.reserve(self.size(island) as usize);
        let mut next_group = self.stats[island].first_group;
        while let Some(group) = next_group {
            let Group { first_entry, next_in_island, .. } = self.groups[group];
            let mut next_entry = first_entry;
            while let Some(entry) = next_entry {
                let entry = self.entries[entry];
                members.push(entry.member());
                next_entry = entry.next;
            }
            next_group = next_in_island;
        }
    }

    /// Appends the members of an island that are in the cell of a point or in one of the eight around
    /// it.
    pub(crate) fn collect_members_near(&self, island: IslandIndex, point: Point, members: &mut Vec<Member>) {
        for cell in self.cells_around(point) {
            for group in self.groups_in_cell(cell).filter(|&group| self.groups[group].island == island) {
                members.extend(self.members_in_group(group));
            }
        }
    }

    /// Appends to `found` each other island of at most `max_size` members that has a member within the
    /// join distance of a member of this one.
    pub(crate) fn islands_near_island(
        &mut self,
        island: IslandIndex,
        max_size: u32,
        found: &mut Vec<IslandIndex>,
    ) {
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
        zone: ZoneIndex,
        max_size: u32,
        found: &mut Vec<IslandIndex>,
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
    pub(crate) fn is_within_leave_distance(
        &self,
        island: IslandIndex,
        point: Point,
        zone: ZoneIndex,
    ) -> bool {
        self.cells_around(point).into_iter().flat_map(|cell| self.groups_in_cell(cell)).any(|group| {
            let Group { island: other, zone: their_zone, .. } = self.groups[group];
            other == island
                && self.group_is_near(group, point, self.distances.leave_squared(their_zone, zone))
        })
    }

    fn groups_are_near(&self, group: GroupIndex, other: GroupIndex) -> bool {
        let squared = self.distances.join_squared(self.groups[group].zone, self.groups[other].zone);
        squared >= 0.0
            && self.members_in_group(group).any(|member| self.group_is_near(other, member.at, squared))
    }

    fn group_is_near(&self, group: GroupIndex, point: Point, squared: f32) -> bool {
        squared >= 0.0
            && self.members_in_group(group).any(|member| member.at.distance_squared(point) <= squared)
    }

    fn groups_near_cell(&self, cell: CellIndex) -> impl Iterator<Item = GroupIndex> {
        let cells = std::iter::once(Some(cell)).chain(self.cells[cell].neighbours);
        cells.flat_map(|cell| self.groups_in_cell(cell))
    }

    /// The cell of a point and the eight around it; `None` for cells that do not exist.
    fn cells_around(&self, point: Point) -> [Option<CellIndex>; 9] {
        let key = self.cell_key(point);
        let cell = self.find_cell(key);
        let around = match cell {
            None => NEIGHBOUR_OFFSETS.map(|by| self.find_cell(offset_key(key, by))),
            Some(cell) => self.cells[cell].neighbours,
        };
        let mut cells = [cell; 9];
        cells[1..].copy_from_slice(&around);
        cells
    }
}
