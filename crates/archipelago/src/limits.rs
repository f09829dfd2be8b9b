//! Which zone an island counts to, and how large it may be: as large as every zone that a member is
//! counted to allows to people who can join what all members can join.

use crate::{
    engine::Engine,
    ground::{Capabilities, Member},
};

impl Engine {
    /// The zone whose rules are about an island: the one that most of its members are counted to.
    pub(crate) fn main_zone(&self, island: u32) -> u32 {
        self.ground.main_zone(island, |zone| &self.zones.zone(zone).areas)
    }

    /// The most members that an island may have.
    pub(crate) fn limit_of(&self, island: u32) -> u32 {
        self.zones.only_limit().unwrap_or_else(|| {
            let capabilities = self.ground.capabilities(island, None);
            self.least_limit(self.ground.zones(island, None), capabilities)
        })
    }

    /// The most members that two islands may have together.
    pub(crate) fn limit_of_both(&self, one: u32, other: u32) -> u32 {
        self.zones.only_limit().unwrap_or_else(|| {
            let capabilities = self.ground.capabilities(one, None).and(self.ground.capabilities(other, None));
            let zones = self.ground.zones(one, None).chain(self.ground.zones(other, None));
            self.least_limit(zones, capabilities)
        })
    }

    /// Whether two islands may be one.
    pub(crate) fn fit(&self, one: u32, other: u32) -> bool {
        self.ground.size(one) + self.ground.size(other) <= self.limit_of_both(one, other)
    }

    /// The most members that an island may have once this peer is one of them.
    pub(crate) fn limit_with(&self, island: u32, peer: u32) -> u32 {
        self.zones.only_limit().unwrap_or_else(|| {
            let terms = self.ground.terms(peer);
            let capabilities = self.ground.capabilities(island, None).and(terms.capabilities());
            self.least_limit(self.ground.zones(island, None).chain([terms.zone()]), capabilities)
        })
    }

    /// No island larger than this can be one with an island.
    pub(crate) fn room_beside(&self, island: u32) -> u32 {
        // Where limits differ, two islands may have more room together than each by itself.
        let room = |limit: u32| limit.saturating_sub(self.ground.size(island));
        self.zones.only_limit().map_or(u32::MAX, room)
    }

    /// Whether an island would be held to the same limits, by itself and together with any other,
    /// without a member.
    pub(crate) fn is_alike_without(&self, island: u32, member: Member) -> bool {
        self.zones.only_limit().is_some() || {
            let ground = &self.ground;
            let rest = ground.capabilities(island, Some(member.terms));
            let zone = member.terms.zone();
            rest == ground.capabilities(island, None)
                && (ground.only_zone(island).is_some()
                    || ground.zones(island, Some(member.peer)).any(|other| other == zone))
        }
    }

    /// The same, with one more.
    pub(crate) fn is_alike_with(&self, island: u32, member: Member) -> bool {
        self.zones.only_limit().is_some() || {
            let all = self.ground.capabilities(island, None);
            let zone = member.terms.zone();
            member.terms.capabilities().include(all)
                && self.ground.zones(island, None).any(|other| other == zone)
        }
    }

    /// The most members that an island of these people may have.
    pub(crate) fn limit_of_group(&self, members: &[Member]) -> u32 {
        self.zones.only_limit().unwrap_or_else(|| {
            let all =
                members.iter().fold(Capabilities::ALL, |all, member| all.and(member.terms.capabilities()));
            self.least_limit(members.iter().map(|member| member.terms.zone()), all)
        })
    }

    fn least_limit(&self, zones: impl Iterator<Item = u32>, capabilities: Capabilities) -> u32 {
        let limits = zones.map(|zone| self.zones.limit(zone, capabilities));
        limits.min().unwrap_or(self.settings.max_island_size)
    }
}
