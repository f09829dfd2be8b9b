//! Changes of the grid: peers that are added, move, join islands and leave them.

use super::{
    index::{Group, PeerEntry, SpatialIndex, cell_side_m},
    island_stats::IslandStats,
    peer_traits::PeerTraits,
};
use crate::{
    ids::{IslandIndex, PeerIndex},
    point::Point,
};

impl SpatialIndex {
    /// Adds a peer that is in no island yet.
    pub(crate) fn add_peer(&mut self, peer: PeerIndex, traits: PeerTraits) {
        let at = Point::default();
        let entry =
            self.entries.insert(PeerEntry { at, peer, group: None, previous: None, next: None, traits });
        self.entry_by_peer.set_or_push(peer, entry);
    }

    /// Removes a peer that is in no island.
    pub(crate) fn remove_peer(&mut self, peer: PeerIndex) {
        self.entries.remove(self.entry_by_peer[peer]);
    }

    /// Adds an island without members.
    pub(crate) fn add_island(&mut self, island: IslandIndex) {
        self.stats.set_or_push(island, IslandStats::default());
    }

    /// Changes the zone and the capabilities of a peer, in an island or not.
    pub(crate) fn set_traits(&mut self, peer: PeerIndex, traits: PeerTraits) {
        let entry = self.entry_by_peer[peer];
        let PeerEntry { at, group, traits: before, .. } = self.entries[entry];
        self.entries[entry].traits = traits;
        let Some(group) = group.filter(|_| before != traits) else { return };
        let island = self.groups[group].island;
        let stats = &mut self.stats[island];
        stats.remove(at, before);
        stats.add(at, traits);
        if before.zone() != traits.zone() {
            self.relink(entry, group, island);
        }
    }

    /// Rebuilds the grid for queries with distances of up to `max_distance_m`, if that changes the size
    /// of the cells.
    pub(crate) fn set_max_distance(&mut self, max_distance_m: f32) {
        let side_m = cell_side_m(max_distance_m);
        if side_m == self.cell_side_m {
            return;
        }
        let with_island = |entry| Some((entry, self.groups[self.entries[entry].group?].island));
        let placed: Vec<_> = self.entries.slots().filter_map(with_island).collect();
        self.cell_side_m = side_m;
        (self.cell_index, self.cells, self.groups) = Default::default();
        self.stats.iter_mut().for_each(|stats| stats.first_group = None);
        for (entry, island) in placed {
            let cell = self.find_or_add_cell(self.cell_key(self.entries[entry].at));
            self.link(entry, cell, island);
        }
    }

    /// Changes the position of a peer. It stays in its island.
    pub(crate) fn set_position(&mut self, peer: PeerIndex, to: Point) {
        let entry = self.entry_by_peer[peer];
        let PeerEntry { at, group, .. } = self.entries[entry];
        self.entries[entry].at = to;
        let Some(group) = group else { return };
        let Group { cell, island, .. } = self.groups[group];
        self.stats[island].shift(at, to);
        let key = self.cell_key(to);
        if self.cells[cell].key != key {
            self.unlink(entry, group);
            let cell = self.find_or_add_cell(key);
            self.link(entry, cell, island);
        }
    }

    /// Adds a peer that is in no island to an island.
    pub(crate) fn add_member(&mut self, peer: PeerIndex, island: IslandIndex) {
        let entry = self.entry_by_peer[peer];
        let PeerEntry { at, traits, .. } = self.entries[entry];
        let cell = self.find_or_add_cell(self.cell_key(at));
        self.link(entry, cell, island);
        self.stats[island].add(at, traits);
    }

    /// Removes a peer from its island, if it is in one. It keeps its position.
    pub(crate) fn remove_member(&mut self, peer: PeerIndex) {
        let entry = self.entry_by_peer[peer];
        let PeerEntry { at, group, traits, .. } = self.entries[entry];
        let Some(group) = group else { return };
        let island = self.groups[group].island;
        self.unlink(entry, group);
        self.stats[island].remove(at, traits);
    }

    /// Moves a peer from its island to another.
    pub(crate) fn transfer(&mut self, peer: PeerIndex, island: IslandIndex) {
        let entry = self.entry_by_peer[peer];
        let PeerEntry { at, group, traits, .. } = self.entries[entry];
        let Some(group) = group else { return };
        let before = self.groups[group].island;
        self.relink(entry, group, island);
        self.stats[before].remove(at, traits);
        self.stats[island].add(at, traits);
    }

    /// Moves all members of one island to another.
    pub(crate) fn merge_islands(&mut self, from: IslandIndex, into: IslandIndex) {
        let mut next_group = self.stats[from].first_group;
        while let Some(group) = next_group {
            let Group { cell, zone, next_in_island, .. } = self.groups[group];
            match self.find_group(cell, into, zone) {
                None => {
                    self.unlink_from_island(group);
                    self.link_to_island(group, into);
                }
                Some(other) => self.merge_groups(group, other),
            }
            next_group = next_in_island;
        }
        let absorbed = std::mem::take(&mut self.stats[from]);
        self.stats[into].absorb(absorbed);
    }
}
