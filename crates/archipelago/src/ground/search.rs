//! Who is near whom.

use super::{
    Ground, Group, Member, Point, Spot,
    cells::{AROUND, offset},
    chain,
};
use crate::slab::NONE;

/// Remembers which islands were seen in the present search, without being cleared for the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    pub(super) seen_in: Vec<u32>,
    search: u32,
}

impl Marks {
    fn begin(&mut self, islands: usize) {
        if self.search == u32::MAX {
            self.seen_in.clear();
            self.search = 0;
        }
        self.search += 1;
        if self.seen_in.len() < islands {
            self.seen_in.resize(islands, 0);
        }
    }

    fn is_marked(&self, island: u32) -> bool {
        self.seen_in[island as usize] == self.search
    }

    fn mark(&mut self, island: u32) {
        self.seen_in[island as usize] = self.search;
    }
}

impl Ground {
    /// The members of an island, in no order that means anything (but the same for the same inputs).
    pub(crate) fn members(&self, island: u32) -> impl Iterator<Item = Member> {
        self.groups_of(island).flat_map(|group| self.peers_of(group))
    }

    /// Adds the members of an island to a list, in the order of [`members`](Self::members).
    pub(crate) fn gather(&self, island: u32, members: &mut Vec<Member>) {
        members.reserve(self.size(island) as usize);
        let mut group = self.tallies[island as usize].first_group;
        while group != NONE {
            let Group { first_spot, next_in_island, .. } = self.groups[group];
            let mut spot = first_spot;
            while spot != NONE {
                let Spot { at, peer, next, terms, .. } = self.spots[spot];
                members.push(Member { peer, at, terms });
                spot = next;
            }
            group = next_in_island;
        }
    }

    /// Adds the members of an island that stand in the cell of a point or in one of those around.
    pub(crate) fn gather_around(&self, island: u32, point: Point, members: &mut Vec<Member>) {
        for cell in self.cells_around(point) {
            for group in self.groups_in(cell).filter(|&group| self.groups[group].island == island) {
                members.extend(self.peers_of(group));
            }
        }
    }

    /// Adds to `found` each island of at most `max_size` members, but this one, that has a member
    /// within the join distance of a member of this one.
    pub(crate) fn touching(&mut self, island: u32, max_size: u32, found: &mut Vec<u32>) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.begin(self.tallies.len());
        marks.mark(island);
        for group in self.groups_of(island) {
            for other in self.groups_near(self.groups[group].cell) {
                let candidate = self.groups[other].island;
                if !marks.is_marked(candidate)
                    && self.size(candidate) <= max_size
                    && self.groups_touch(group, other)
                {
                    marks.mark(candidate);
                    found.push(candidate);
                }
            }
        }
        self.marks = marks;
    }

    /// Adds to `found` each island of at most `max_size` members that has one within the join
    /// distance of somebody of this zone at a point.
    pub(crate) fn touching_point(&mut self, point: Point, zone: u32, max_size: u32, found: &mut Vec<u32>) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.begin(self.tallies.len());
        for cell in self.cells_around(point) {
            for group in self.groups_in(cell) {
                let candidate = self.groups[group].island;
                if !marks.is_marked(candidate)
                    && self.size(candidate) <= max_size
                    && self.group_touches(
                        group,
                        point,
                        self.reaches.join_squared(self.groups[group].zone, zone),
                    )
                {
                    marks.mark(candidate);
                    found.push(candidate);
                }
            }
        }
        self.marks = marks;
    }

    /// Whether an island has a member within the leave distance of somebody of this zone at a point.
    pub(crate) fn touches(&self, island: u32, point: Point, zone: u32) -> bool {
        self.cells_around(point).into_iter().flat_map(|cell| self.groups_in(cell)).any(|group| {
            let Group { island: other, zone: their_zone, .. } = self.groups[group];
            other == island && self.group_touches(group, point, self.reaches.leave_squared(their_zone, zone))
        })
    }

    fn groups_touch(&self, group: u32, other: u32) -> bool {
        let squared = self.reaches.join_squared(self.groups[group].zone, self.groups[other].zone);
        squared >= 0.0 && self.peers_of(group).any(|member| self.group_touches(other, member.at, squared))
    }

    fn group_touches(&self, group: u32, point: Point, squared: f32) -> bool {
        squared >= 0.0 && self.peers_of(group).any(|member| member.at.distance_squared(point) <= squared)
    }

    pub(super) fn groups_of(&self, island: u32) -> impl Iterator<Item = u32> {
        chain(self.tallies[island as usize].first_group, |group| self.groups[group].next_in_island)
    }

    pub(super) fn groups_in(&self, cell: u32) -> impl Iterator<Item = u32> {
        let first = if cell == NONE { NONE } else { self.cells[cell].first_group };
        chain(first, |group| self.groups[group].next_in_cell)
    }

    pub(super) fn groups_near(&self, cell: u32) -> impl Iterator<Item = u32> {
        self.cells_near(cell).flat_map(|cell| self.groups_in(cell))
    }

    /// The cell that a point lies in and those around it, with `NONE` for those that are not there.
    pub(super) fn cells_around(&self, point: Point) -> [u32; 9] {
        let key = self.key(point);
        let cell = self.find_cell(key);
        let around = match cell {
            NONE => AROUND.map(|by| self.find_cell(offset(key, by))),
            cell => self.cells[cell].around,
        };
        let mut cells = [cell; 9];
        cells[1..].copy_from_slice(&around);
        cells
    }

    pub(super) fn cells_near(&self, cell: u32) -> impl Iterator<Item = u32> {
        std::iter::once(cell).chain(self.cells[cell].around)
    }

    pub(super) fn peers_of(&self, group: u32) -> impl Iterator<Item = Member> {
        self.spots_of(group).map(|spot| {
            let Spot { at, peer, terms, .. } = self.spots[spot];
            Member { peer, at, terms }
        })
    }

    pub(super) fn spots_of(&self, group: u32) -> impl Iterator<Item = u32> {
        chain(self.groups[group].first_spot, |spot| self.spots[spot].next)
    }
}
