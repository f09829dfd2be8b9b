//! Which zone an island counts to, and how large it may be: as large as every zone that a member is
//! counted to allows to people who can join what all members can join.

use crate::{
    engine::Engine,
    spatial::{Capabilities, Member},
};

impl Engine {
    /// The zone whose rules are about an island: the one that most of its members are counted to.
    pub(crate) fn majority_zone(&self, island: u32) -> u32 {
        self.spatial.majority_zone(island, |zone| &self.zones.zone(zone).areas)
    }

    /// The most members that an island may have.
    pub(crate) fn size_limit(&self, island: u32) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let capabilities = self.spatial.capabilities(island, None);
            self.min_limit(self.spatial.member_zones(island, None), capabilities)
        })
    }

    /// The most members that two islands may have together.
    pub(crate) fn merged_size_limit(&self, one: u32, other: u32) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let capabilities =
                self.spatial.capabilities(one, None).intersection(self.spatial.capabilities(other, None));
            let zones = self.spatial.member_zones(one, None).chain(self.spatial.member_zones(other, None));
            self.min_limit(zones, capabilities)
        })
    }

    /// Whether two islands may be one.
    pub(crate) fn can_merge(&self, one: u32, other: u32) -> bool {
        self.spatial.size(one) + self.spatial.size(other) <= self.merged_size_limit(one, other)
    }

    /// The most members that an island may have once this peer is one of them.
    pub(crate) fn size_limit_with(&self, island: u32, peer: u32) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let terms = self.spatial.traits(peer);
            let capabilities = self.spatial.capabilities(island, None).intersection(terms.capabilities());
            self.min_limit(self.spatial.member_zones(island, None).chain([terms.zone()]), capabilities)
        })
    }

    /// No island larger than this can be one with an island.
    pub(crate) fn max_merge_size(&self, island: u32) -> u32 {
        // Where limits differ, two islands may have more room together than each by itself.
        let room = |limit: u32| limit.saturating_sub(self.spatial.size(island));
        self.zones.uniform_limit().map_or(u32::MAX, room)
    }

    /// Whether an island would be held to the same limits, by itself and together with any other,
    /// without a member.
    pub(crate) fn limit_unchanged_without(&self, island: u32, member: Member) -> bool {
        self.zones.uniform_limit().is_some() || {
            let ground = &self.spatial;
            let rest = ground.capabilities(island, Some(member.traits));
            let zone = member.traits.zone();
            rest == ground.capabilities(island, None)
                && (ground.single_zone(island).is_some()
                    || ground.member_zones(island, Some(member.peer)).any(|other| other == zone))
        }
    }

    /// The same, with one more.
    pub(crate) fn limit_unchanged_with(&self, island: u32, member: Member) -> bool {
        self.zones.uniform_limit().is_some() || {
            let all = self.spatial.capabilities(island, None);
            let zone = member.traits.zone();
            member.traits.capabilities().contains_all(all)
                && self.spatial.member_zones(island, None).any(|other| other == zone)
        }
    }

    /// The most members that an island of these people may have.
    pub(crate) fn group_size_limit(&self, members: &[Member]) -> u32 {
        self.zones.uniform_limit().unwrap_or_else(|| {
            let all = members
                .iter()
                .fold(Capabilities::ALL, |all, member| all.intersection(member.traits.capabilities()));
            self.min_limit(members.iter().map(|member| member.traits.zone()), all)
        })
    }

    fn min_limit(&self, zones: impl Iterator<Item = u32>, capabilities: Capabilities) -> u32 {
        let limits = zones.map(|zone| self.zones.size_limit(zone, capabilities));
        limits.min().unwrap_or(self.settings.max_island_size)
    }
}
