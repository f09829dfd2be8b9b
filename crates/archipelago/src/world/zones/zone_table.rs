//! The table of zones.

use std::{sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use super::{active_rules::ActiveRules, size_limits::SizeLimits};
use crate::{
    ids::{AreaIndex, RuleIndex, ZoneIndex},
    index_vec::IndexVec,
    point::Point,
    rules::{AreaGrid, Distances, Rules, TransportChoice},
    settings::{Clustering, Settings},
    world::{
        capabilities::Capabilities,
        clusters::CLUSTER_DISTANCE_M,
        nodes::Nodes,
        spatial::{MAX_ZONES, ZoneDistances},
    },
};

/// All zones, and the rules in force.
#[derive(Debug, Clone)]
pub(crate) struct Zones {
    rules: ActiveRules,
    clustering: Clustering,
    area_grid: AreaGrid,
    zone_by_areas: FxHashMap<Box<[AreaIndex]>, ZoneIndex>,
    zones: IndexVec<ZoneIndex, Zone>,
    limits: SizeLimits,
    areas_found: Vec<AreaIndex>,
}

/// A zone and the values that apply in it.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    pub(crate) areas: Box<[AreaIndex]>,
    /// The enclosure: the area of an exclusive rule, if there is one. Peers in it are grouped only among
    /// themselves.
    pub(crate) enclosure: Option<AreaIndex>,
    pub(crate) distances: Distances,
    /// How long a peer must have been across its border, if a rule sets it.
    settling: Option<Duration>,
    /// The active rules with an area that apply here, in order.
    rules: Box<[RuleIndex]>,
}

impl Zones {
    /// The open zone, without rules.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut zones = Self {
            rules: ActiveRules::new(settings),
            clustering: settings.clustering,
            area_grid: AreaGrid::default(),
            zone_by_areas: FxHashMap::default(),
            zones: IndexVec::default(),
            limits: SizeLimits::new(),
            areas_found: Vec::new(),
        };
        zones.rebuild();
        zones
    }

    /// The rules of the realm's owner.
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules.rules
    }

    /// Replaces the rules. All indexes of zones are invalid afterwards.
    pub(crate) fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules.set_rules(rules);
        self.rebuild();
    }

    /// Sets the time of day. Returns whether other rules are active now; then all indexes of zones are
    /// invalid.
    pub(crate) fn set_minute(&mut self, minute: u16) -> bool {
        let changed = self.rules.set_minute(minute);
        if changed {
            self.rebuild();
        }
        changed
    }

    /// Discards all zones but the open one.
    fn rebuild(&mut self) {
        self.area_grid = AreaGrid::new(&self.rules.rules.areas, |area| self.rules.has_rule_for(area));
        self.zone_by_areas.clear();
        self.zones.clear();
        self.limits.clear_zones();
        self.add_zone(Box::default());
    }

    /// Whether there is more than one zone.
    pub(crate) fn is_partitioned(&self) -> bool {
        !self.area_grid.is_empty()
    }

    /// The zone of a point, and whether it was created for it: a zone that no peer was in before is
    /// created as the last.
    pub(crate) fn zone_at(&mut self, at: Point, nodes: &Nodes) -> (ZoneIndex, bool) {
        if self.area_grid.is_empty() {
            return (ZoneIndex::OPEN, false);
        }
        let mut found = std::mem::take(&mut self.areas_found);
        self.area_grid.find(at, &mut found);
        let known = self.zone_by_areas.get(&found[..]).copied();
        // There is a limit of sixteen million combinations of areas; ground beyond it counts as open.
        let is_new = known.is_none() && self.zones.len() < MAX_ZONES;
        let zone = match known {
            None if is_new => self.add_zone(found.clone().into_boxed_slice()),
            known => known.unwrap_or(ZoneIndex::OPEN),
        };
        self.areas_found = found;
        if is_new {
            self.limits.compute_new(zone, largest_island(&self.rules, &self.zones, nodes));
        }
        (zone, is_new)
    }

    fn add_zone(&mut self, areas: Box<[AreaIndex]>) -> ZoneIndex {
        let rules = self.rules.rules_for(&areas);
        let exclusive = rules.iter().map(|&rule| self.rules.rules.rule(rule)).find(|rule| rule.exclusive);
        let enclosure = exclusive.and_then(|rule| rule.area);
        self.limits.add_zone(self.rules.max_size_by_rules(&rules));
        let distances = self.rules.defaults.distances;
        let zone = Zone { areas: areas.clone(), enclosure, distances, settling: None, rules };
        let index = self.zones.push(zone);
        self.zone_by_areas.insert(areas, index);
        self.update_distances(index);
        index
    }

    /// Updates the distances and the settling time of a zone.
    fn update_distances(&mut self, zone: ZoneIndex) {
        let local = &self.zones[zone].rules;
        let distances = self.rules.size_independent(local).find_map(|rule| rule.distances);
        let settling = self.rules.size_independent(local).find_map(|rule| rule.settling);
        let zone = &mut self.zones[zone];
        zone.distances = distances.unwrap_or(self.rules.defaults.distances);
        zone.settling = settling;
    }

    /// The indexes of all zones.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = ZoneIndex> + use<> {
        self.zones.indexes()
    }

    pub(crate) fn zone(&self, zone: ZoneIndex) -> &Zone {
        &self.zones[zone]
    }

    /// The distances in a zone. With external clustering the distance between anchors applies instead.
    pub(crate) fn distances(&self, zone: ZoneIndex) -> ZoneDistances {
        if self.clustering == Clustering::External {
            return ZoneDistances {
                enclosure: None,
                join_m: CLUSTER_DISTANCE_M,
                leave_m: CLUSTER_DISTANCE_M,
            };
        }
        let Zone { enclosure, distances: Distances { join_m, leave_m }, .. } = self.zones[zone];
        ZoneDistances { enclosure, join_m, leave_m }
    }

    /// The greatest leave distance that any rule or the settings define, in metres.
    pub(crate) fn max_distance_m(&self) -> f32 {
        match self.clustering {
            Clustering::External => CLUSTER_DISTANCE_M,
            Clustering::ByDistance => self.rules.max_distance_m(),
        }
    }

    /// How long a peer must have been across the border between two zones before it counts for the
    /// other one.
    pub(crate) fn border_settling(&self, one: ZoneIndex, other: ZoneIndex) -> Duration {
        let set = [one, other].map(|zone| self.zones[zone].settling);
        set.into_iter().flatten().max().unwrap_or(self.rules.defaults.settling)
    }

    /// The active rules that apply in a zone, in order, including those with a condition on the number
    /// of peers.
    pub(crate) fn rules_of(&self, zone: ZoneIndex) -> impl Iterator<Item = RuleIndex> {
        self.rules.with_global(&self.zones[zone].rules)
    }

    /// The rule that applies to an island of this size with most members in this zone; `None` if no
    /// rule does.
    pub(crate) fn rule_for(&self, zone: ZoneIndex, size: u32) -> Option<RuleIndex> {
        let fits = |&rule: &RuleIndex| {
            self.rules.rules.rule(rule).people.contains(size) && self.rules.crowding_holds(rule)
        };
        self.rules_of(zone).find(fits)
    }

    /// Whether the current rule of an island may stay until another one has been the better for the
    /// settling time: it is active, its crowding condition holds, it is not an exclusive rule of
    /// another area, and the island has not outgrown it.
    pub(crate) fn may_keep_rule(&self, rule: Option<RuleIndex>, zone: ZoneIndex, size: u32) -> bool {
        let Some(rule) = rule else { return true };
        let (current, areas) = (self.rules.rules.rule(rule), &self.zones[zone].areas);
        let here = !current.exclusive || current.area.is_none_or(|area| areas.contains(&area));
        here && self.is_active_now(rule) && self.crowding_holds(rule) && size <= current.people.max
    }

    /// Whether a rule is active at this time of day.
    pub(crate) fn is_active_now(&self, rule: RuleIndex) -> bool {
        self.rules.is_active_now(rule)
    }

    /// Whether a rule has a crowding condition.
    pub(crate) fn has_crowding_condition(&self, rule: Option<RuleIndex>) -> bool {
        rule.is_some_and(|rule| self.rules.rules.rule(rule).crowding.is_some())
    }

    /// Whether the crowding condition of a rule holds. True for a rule without one.
    pub(crate) fn crowding_holds(&self, rule: RuleIndex) -> bool {
        self.rules.crowding_holds(rule)
    }

    /// The number of peers in the area of a rule with a crowding condition, at the last check.
    pub(crate) fn crowding_count(&self, rule: RuleIndex) -> Option<u32> {
        self.rules.crowding.count(rule)
    }

    /// Checks the crowding conditions, if a check is due. `zones` are the zones of all peers in the world.
    /// Returns whether a condition changed.
    pub(crate) fn update_crowding(&mut self, zones: impl Iterator<Item = ZoneIndex>, now: Duration) -> bool {
        if !self.rules.crowding.is_due(now) {
            return false;
        }
        let mut by_zone: IndexVec<ZoneIndex, u32> = vec![0; self.zones.len()].into();
        zones.for_each(|zone| by_zone[zone] += 1);
        let ActiveRules { rules, defaults, crowding, .. } = &mut self.rules;
        let count = |rule| {
            let area = rules.rule(rule).area;
            let inside = |zone: &Zone| area.is_none_or(|area| zone.areas.contains(&area));
            let zones = self.zones.enumerate().filter(|(_, zone)| inside(zone));
            zones.map(|(zone, _)| by_zone[zone]).sum()
        };
        let settling = |rule| rules.rule(rule).settling.unwrap_or(defaults.settling);
        let changed = crowding.check(rules, count, settling, now);
        if changed {
            self.zones.indexes().for_each(|zone| self.update_distances(zone));
        }
        changed
    }

    /// The transports that an island may use under a rule, in order of preference.
    pub(crate) fn choices(&self, rule: Option<RuleIndex>) -> impl Iterator<Item = &TransportChoice> {
        self.rules.choices(rule)
    }

    /// The settling time under a rule.
    pub(crate) fn settling_of(&self, rule: Option<RuleIndex>) -> Duration {
        self.rules.settling_of(rule)
    }

    /// Whether a rule has a room for an island of this size, or no node is on offer at all.
    pub(crate) fn has_large_enough_room(
        &self,
        rule: Option<RuleIndex>,
        size: u32,
        capabilities: Capabilities,
        nodes: &Nodes,
    ) -> bool {
        self.rules.has_large_enough_room(rule, size, capabilities, nodes)
    }

    /// The size limit of an island that no zone or rule limits.
    pub(crate) fn default_size_limit(&self) -> u32 {
        self.rules.defaults.island_size
    }

    /// The size limit of every island, if it is the same everywhere.
    pub(crate) fn uniform_limit(&self) -> Option<u32> {
        self.limits.uniform()
    }

    /// The size limit of an island with members in a zone that all have these capabilities.
    pub(crate) fn size_limit(&self, zone: ZoneIndex, capabilities: Capabilities) -> u32 {
        self.limits.limit(zone, capabilities)
    }

    /// All size limits, by zone and capabilities.
    #[cfg(feature = "sim")]
    pub(crate) fn limits(&self) -> impl Iterator<Item = (ZoneIndex, Capabilities, u32)> {
        self.limits.all()
    }

    /// Adds a set of capabilities to those with computed limits. Returns whether it was new; then the
    /// limits must be recomputed.
    pub(crate) fn add_capability_set(&mut self, capabilities: Capabilities) -> bool {
        let limit = |zone: ZoneIndex| self.rules.max_size_by_rules(&self.zones[zone].rules);
        self.limits.add_capability_set(capabilities, limit)
    }

    /// Recomputes the limits of all zones. Returns whether any changed.
    pub(crate) fn recompute_limits(&mut self, nodes: &Nodes) -> bool {
        self.limits.recompute(largest_island(&self.rules, &self.zones, nodes))
    }

    /// Approximate bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let zone = |zone: &Zone| {
            size_of::<Zone>()
                + 2 * zone.areas.len() * size_of::<AreaIndex>()
                + zone.rules.len() * size_of::<RuleIndex>()
        };
        self.zones.iter().map(zone).sum::<usize>() + self.limits.bytes()
    }
}

/// The largest island that the rules of a zone and the rooms on offer allow.
fn largest_island(
    rules: &ActiveRules,
    zones: &IndexVec<ZoneIndex, Zone>,
    nodes: &Nodes,
) -> impl Fn(ZoneIndex, Capabilities) -> Option<u32> {
    move |zone, capabilities| rules.largest_island(&zones[zone].rules, capabilities, nodes)
}
