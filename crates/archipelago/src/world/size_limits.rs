//! The size limit of an island: the smallest limit among the zones of its members, for the capabilities
//! that all members have.

use super::{capabilities::Capabilities, spatial::Member, state::World};
use crate::ids::{IslandIndex, PeerIndex, ZoneIndex};

impl World {
    /// The zone that decides which rule applies to an island: the zone of most members.
    pub(crate) fn majority_zone(&self, island: IslandIndex) -> ZoneIndex {
        self.spatial.majority_zone(island, |zone| &self.zones.zone(zone).areas)
    }

    /// The size limit of an island.
    pub(crate) fn size_limit(&self, island: IslandIndex) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let capabilities = self.spatial.capabilities(island, None);
            self.min_limit(self.spatial.member_zones(island, None), capabilities)
        })
    }

    /// The size limit of two islands if they merged.
    pub(crate) fn merged_size_limit(&self, one: IslandIndex, other: IslandIndex) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let capabilities =
                self.spatial.capabilities(one, None).intersection(self.spatial.capabilities(other, None));
            let zones = self.spatial.member_zones(one, None).chain(self.spatial.member_zones(other, None));
            self.min_limit(zones, capabilities)
        })
    }

    /// Whether the members of two islands together fit the size limit.
    pub(crate) fn can_merge(&self, one: IslandIndex, other: IslandIndex) -> bool {
        self.spatial.size(one) + self.spatial.size(other) <= self.merged_size_limit(one, other)
    }

    /// The size limit of an island if this peer joined it.
    pub(crate) fn size_limit_with(&self, island: IslandIndex, peer: PeerIndex) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let traits = self.spatial.traits(peer);
            let capabilities = self.spatial.capabilities(island, None).intersection(traits.capabilities());
            self.min_limit(self.spatial.member_zones(island, None).chain([traits.zone()]), capabilities)
        })
    }

    /// An upper bound for the size of an island that this one can merge with.
    pub(crate) fn max_merge_size(&self, island: IslandIndex) -> u32 {
        // Where limits differ, two merged islands may have a larger limit than each alone, so there is
        // no bound.
        let remaining = |limit: u32| limit.saturating_sub(self.spatial.size(island));
        self.zones.uniform_limit().map_or(u32::MAX, remaining)
    }

    /// Whether the size limits of an island, alone and merged with any other, stay the same without a
    /// member.
    pub(crate) fn limit_unchanged_without(&self, island: IslandIndex, member: Member) -> bool {
        self.zones.uniform_limit().is_some() || {
            let spatial = &self.spatial;
            let rest = spatial.capabilities(island, Some(member.traits));
            let zone = member.traits.zone();
            rest == spatial.capabilities(island, None)
                && (spatial.single_zone(island).is_some()
                    || spatial.member_zones(island, Some(member.peer)).any(|other| other == zone))
        }
    }

    /// The same, with one more member.
    pub(crate) fn limit_unchanged_with(&self, island: IslandIndex, member: Member) -> bool {
        self.zones.uniform_limit().is_some() || {
            let all = self.spatial.capabilities(island, None);
            let zone = member.traits.zone();
            member.traits.capabilities().contains_all(all)
                && self.spatial.member_zones(island, None).any(|other| other == zone)
        }
    }

    /// The size limit of an island of these members.
    pub(crate) fn group_size_limit(&self, members: &[Member]) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let all = members
                .iter()
                .fold(Capabilities::ALL, |all, member| all.intersection(member.traits.capabilities()));
            self.min_limit(members.iter().map(|member| member.traits.zone()), all)
        })
    }

    fn min_limit(&self, zones: impl Iterator<Item = ZoneIndex>, capabilities: Capabilities) -> u32 {
        let limits = zones.map(|zone| self.zones.size_limit(zone, capabilities));
        limits.min().unwrap_or(self.zones.default_size_limit())
    }
}
