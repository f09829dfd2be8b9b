//! Queries about an island as a whole: its size, centre, zones and capabilities.

use super::{index::SpatialIndex, peer_traits::PeerTraits};
use crate::{
    ids::{AreaIndex, IslandIndex, PeerIndex, ZoneIndex},
    world::capabilities::Capabilities,
};

impl SpatialIndex {
    /// The number of members of an island.
    pub(crate) fn size(&self, island: IslandIndex) -> u32 {
        self.stats[island].size
    }

    /// The mean of the members' positions, x and z in metres; the origin for an empty island.
    pub(crate) fn centre(&self, island: IslandIndex) -> (f64, f64) {
        self.stats[island].centre()
    }

    /// The zone of all members of an island; `None` if they may be in several.
    pub(crate) fn single_zone(&self, island: IslandIndex) -> Option<ZoneIndex> {
        self.stats[island].zone
    }

    /// The transports that every member of an island can join. A member with the traits `excluding` is
    /// not counted.
    pub(crate) fn capabilities(&self, island: IslandIndex, excluding: Option<PeerTraits>) -> Capabilities {
        self.stats[island].capabilities(excluding)
    }

    /// The zone of most members of an island; of several with the same count, the one whose `areas`
    /// come first. Zone indexes are not used to decide, because they depend on which peer arrived
    /// first.
    pub(crate) fn majority_zone<'a>(
        &self,
        island: IslandIndex,
        areas: impl Fn(ZoneIndex) -> &'a [AreaIndex],
    ) -> ZoneIndex {
        if let Some(zone) = self.single_zone(island) {
            return zone;
        }
        let mut counts: Vec<(ZoneIndex, usize)> = Vec::new();
        for group in self.groups_of_island(island) {
            let (zone, size) = (self.groups[group].zone, self.entries_in_group(group).count());
            match counts.iter_mut().find(|(other, _)| *other == zone) {
                Some((_, count)) => *count += size,
                None => counts.push((zone, size)),
            }
        }
        let most = counts.into_iter().max_by_key(|&(zone, count)| (count, std::cmp::Reverse(areas(zone))));
        most.map_or(ZoneIndex::OPEN, |(zone, _)| zone)
    }

    /// The zones of the members of an island, each once or more often, not counting the member
    /// `excluding`.
    pub(crate) fn member_zones(
        &self,
        island: IslandIndex,
        excluding: Option<PeerIndex>,
    ) -> impl Iterator<Item = ZoneIndex> {
        let excluded = excluding.map(|peer| self.entry_by_peer[peer]);
        let groups = self.groups_of_island(island).filter(move |&group| {
            excluded.is_none_or(|entry| self.entries_in_group(group).any(|other| other != entry))
        });
        groups.map(|group| self.groups[group].zone)
    }
}
