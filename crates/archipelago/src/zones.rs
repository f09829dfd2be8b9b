//! The zones of the world, and the distances, size limits and settling times that the rules set in
//! each.
//!
//! A *zone* is all ground that lies in the same set of areas, so the same rules apply everywhere in it;
//! it need not be contiguous. All values that do not depend on the number of peers are computed once
//! for each zone. A zone is created when the first peer enters it.

use std::{sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use crate::{
    clusters,
    registry::Registry,
    rules::{AreaIndex, CountRange, Distances, Rule, Rules, TransportChoice},
    settings::{Clustering, Settings},
    slab::NONE,
    spatial::{Capabilities, MAX_ZONES, Point, ZoneDistances},
};

/// The zone of all ground outside every area.
pub(crate) const OPEN_ZONE: u32 = 0;

/// Marks a set of capabilities without computed limits.
const NO_LIMIT_INDEX: u16 = u16::MAX;
/// How often crowding conditions are checked.
const CROWDING_INTERVAL: Duration = Duration::from_secs(1);

/// All zones, and the rules in force.
#[derive(Debug, Clone)]
pub(crate) struct Zones {
    pub(crate) rules: Arc<Rules>,
    defaults: Defaults,
    clustering: Clustering,
    /// Minutes since midnight, UTC. While it is `None`, no rule with hours is active.
    minute: Option<u16>,
    /// The rules that are active at this time of day: those without an area, and by area the others.
    global_rules: Vec<u32>,
    rules_by_area: Vec<Vec<u32>>,
    crowding_rules: Vec<CrowdingRule>,
    next_crowding_check: Duration,
    area_index: AreaIndex,
    zone_by_areas: FxHashMap<Box<[u32]>, u32>,
    zones: Vec<Zone>,
    /// The sets of capabilities with computed limits, and by capabilities the index of each set.
    capability_sets: Vec<Capabilities>,
    limit_index: Box<[u16; 256]>,
    /// The size limit of every zone and set of capabilities, if it is the same.
    uniform_limit: Option<u32>,
    limits_changed: bool,
    areas_found: Vec<u32>,
}

/// The values that apply where no rule sets them.
#[derive(Debug, Clone, Copy)]
struct Defaults {
    distances: Distances,
    island_size: u32,
    settling: Duration,
}

/// A zone and the values that apply in it.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    pub(crate) areas: Box<[u32]>,
    /// The enclosure: the area of an exclusive rule. Peers in it are grouped only among themselves.
    /// `NONE` if there is no such rule.
    pub(crate) enclosure: u32,
    pub(crate) distances: Distances,
    /// How long a peer must have been across its border, if a rule sets it.
    settling: Option<Duration>,
    /// The active rules with an area that apply here, in order.
    rules: Box<[u32]>,
    /// The size limit of islands, by the index of the capabilities in `capability_sets`.
    limits: Vec<u32>,
}

/// The state of a rule with a crowding condition.
#[derive(Debug, Clone)]
struct CrowdingRule {
    rule: u32,
    holds: bool,
    /// Since when the condition has differed from `holds`.
    since: Option<Duration>,
    /// The number of peers at the last check, if there was one.
    peers: Option<u32>,
}

impl Zones {
    pub(crate) fn new(settings: &Settings, rules: Arc<Rules>) -> Self {
        let distances = Distances { join_m: settings.join_distance_m, leave_m: settings.leave_distance_m };
        let base = Defaults { distances, island_size: settings.max_island_size, settling: settings.settling };
        let mut zones = Self {
            rules,
            defaults: base,
            clustering: settings.clustering,
            minute: None,
            global_rules: Vec::new(),
            rules_by_area: Vec::new(),
            crowding_rules: Vec::new(),
            next_crowding_check: Duration::ZERO,
            area_index: AreaIndex::default(),
            zone_by_areas: FxHashMap::default(),
            zones: Vec::new(),
            capability_sets: Vec::new(),
            limit_index: Box::new([NO_LIMIT_INDEX; 256]),
            uniform_limit: None,
            limits_changed: false,
            areas_found: Vec::new(),
        };
        zones.rebuild();
        zones
    }

    /// Replaces the rules. All zone numbers are invalid afterwards.
    pub(crate) fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        self.crowding_rules.clear();
        self.rebuild();
    }

    /// Sets the time of day. Returns whether other rules are active now; then all zone numbers are
    /// invalid.
    pub(crate) fn set_minute(&mut self, minute: u16) -> bool {
        let before = self.minute.replace(minute);
        let is_active = |rule: &Rule, minute: Option<u16>| {
            rule.hours.is_none_or(|hours| minute.is_some_and(|minute| hours.contains(minute)))
        };
        let changed =
            self.rules.rules.iter().any(|rule| is_active(rule, before) != is_active(rule, Some(minute)));
        if changed {
            self.rebuild();
        }
        changed
    }

    /// Whether a rule is active at this time of day.
    pub(crate) fn is_active_now(&self, rule: u32) -> bool {
        let hours = self.rules.rules[rule as usize].hours;
        hours.is_none_or(|hours| self.minute.is_some_and(|minute| hours.contains(minute)))
    }

    /// Recomputes which rules are active, and discards all zones but the open one. Crowding states are kept.
    fn rebuild(&mut self) {
        let rules = self.rules.clone();
        self.global_rules.clear();
        self.rules_by_area = vec![Vec::new(); rules.areas.len()];
        for (rule, number) in rules.rules.iter().zip(0..) {
            if !self.is_active_now(number) {
                continue;
            }
            match rule.area {
                Some(area) => self.rules_by_area[area].push(number),
                None => self.global_rules.push(number),
            }
        }
        let before = std::mem::take(&mut self.crowding_rules);
        self.crowding_rules = (0..)
            .zip(&rules.rules)
            .filter(|(_, rule)| rule.crowding.is_some())
            .map(|(rule, _)| {
                let known = before.iter().find(|state| state.rule == rule).cloned();
                known.unwrap_or(CrowdingRule { rule, holds: false, since: None, peers: None })
            })
            .collect();
        self.next_crowding_check = Duration::ZERO;
        self.area_index = AreaIndex::new(&rules.areas, |area| !self.rules_by_area[area].is_empty());
        self.zone_by_areas.clear();
        self.zones.clear();
        self.add_zone(Box::default());
    }

    /// Whether there is more than one zone.
    pub(crate) fn is_partitioned(&self) -> bool {
        !self.area_index.is_empty()
    }

    /// The zone of a point. A zone that no peer was in before is created as the last.
    pub(crate) fn zone_at(&mut self, at: Point) -> u32 {
        if self.area_index.is_empty() {
            return OPEN_ZONE;
        }
        let mut found = std::mem::take(&mut self.areas_found);
        self.area_index.find(at, &mut found);
        let zone = match self.zone_by_areas.get(&found[..]) {
            Some(&zone) => zone,
            None => self.add_zone(found.clone().into_boxed_slice()),
        };
        self.areas_found = found;
        zone
    }

    fn add_zone(&mut self, areas: Box<[u32]>) -> u32 {
        let number = self.zones.len();
        if number == MAX_ZONES {
            // Limit of sixteen million combinations of areas; ground beyond it counts as open.
            return OPEN_ZONE;
        }
        let mut rules: Vec<u32> =
            areas.iter().flat_map(|&area| &self.rules_by_area[area as usize]).copied().collect();
        rules.sort_unstable();
        let exclusive =
            rules.iter().map(|&rule| &self.rules.rules[rule as usize]).find(|rule| rule.exclusive);
        let enclosure = exclusive.and_then(|rule| rule.area).map_or(NONE, |area| area as u32);
        let distances = self.defaults.distances;
        let zone = Zone {
            areas: areas.clone(),
            enclosure,
            distances,
            settling: None,
            rules: rules.into_boxed_slice(),
            limits: Vec::new(),
        };
        self.zones.push(zone);
        let largest = self.max_size_by_rules(number as u32);
        self.zones[number].limits = vec![largest; self.capability_sets.len()];
        self.zone_by_areas.insert(areas, number as u32);
        self.update_distances(number);
        number as u32
    }

    /// Updates the distances and the settling time of a zone.
    fn update_distances(&mut self, zone: usize) {
        let number = zone as u32;
        let distances = self
            .size_independent_rules(number)
            .find_map(|rule| rule.distances)
            .unwrap_or(self.defaults.distances);
        let settling = self.size_independent_rules(number).find_map(|rule| rule.settling);
        let zone = &mut self.zones[zone];
        (zone.distances, zone.settling) = (distances, settling);
    }

    pub(crate) fn count(&self) -> u32 {
        self.zones.len() as u32
    }

    pub(crate) fn zone(&self, zone: u32) -> &Zone {
        &self.zones[zone as usize]
    }

    /// The distances in a zone. With external clustering the distance between anchors applies instead.
    pub(crate) fn distances(&self, zone: u32) -> ZoneDistances {
        if self.clustering == Clustering::External {
            return ZoneDistances {
                enclosure: NONE,
                join_m: clusters::CLUSTER_DISTANCE_M,
                leave_m: clusters::CLUSTER_DISTANCE_M,
            };
        }
        let Zone { enclosure, distances: Distances { join_m, leave_m }, .. } = self.zones[zone as usize];
        ZoneDistances { enclosure, join_m, leave_m }
    }

    /// The greatest leave distance that any rule or the settings define, in metres.
    pub(crate) fn max_distance_m(&self) -> f32 {
        if self.clustering == Clustering::External {
            return clusters::CLUSTER_DISTANCE_M;
        }
        let set = self.rules.rules.iter().filter_map(|rule| rule.distances);
        set.map(|distances| distances.leave_m).fold(self.defaults.distances.leave_m, f32::max)
    }

    /// The active rules that apply in a zone, in order, including those with a condition on the number
    /// of peers.
    pub(crate) fn rules_of(&self, zone: u32) -> impl Iterator<Item = u32> {
        let mut local = self.zones[zone as usize].rules.iter().copied().peekable();
        let mut general = self.global_rules.iter().copied().peekable();
        std::iter::from_fn(move || match (local.peek(), general.peek()) {
            (Some(one), Some(other)) if one < other => local.next(),
            (_, Some(_)) => general.next(),
            (_, None) => local.next(),
        })
    }

    /// The active rules in a zone that do not depend on the size of an island.
    fn size_independent_rules(&self, zone: u32) -> impl Iterator<Item = &Rule> {
        let rules = self.rules_of(zone).filter(|&rule| self.crowding_holds(rule));
        rules.map(|rule| &self.rules.rules[rule as usize]).filter(|rule| rule.people == CountRange::ANY)
    }

    /// Whether the crowding condition of a rule holds. True for a rule without one.
    pub(crate) fn crowding_holds(&self, rule: u32) -> bool {
        let index = self.crowding_rules.binary_search_by_key(&rule, |state| state.rule);
        index.is_ok_and(|index| self.crowding_rules[index].holds)
            || self.rules.rules[rule as usize].crowding.is_none()
    }

    /// The number of peers in the area of a rule with a crowding condition, at the last check.
    pub(crate) fn crowding_count(&self, rule: u32) -> Option<u32> {
        let index = self.crowding_rules.binary_search_by_key(&rule, |state| state.rule).ok()?;
        self.crowding_rules[index].peers
    }

    /// The rule that applies to an island of this size with most members in this zone; `NONE` if no
    /// rule does.
    pub(crate) fn rule_for(&self, zone: u32, size: u32) -> u32 {
        let fits =
            |&rule: &u32| self.rules.rules[rule as usize].people.contains(size) && self.crowding_holds(rule);
        self.rules_of(zone).find(fits).unwrap_or(NONE)
    }

    /// Whether the current rule of an island may stay until another one has been the better for the
    /// settling time: it is active, its crowding condition holds, it is not an exclusive rule of
    /// another area, and the island has not outgrown it.
    pub(crate) fn may_keep_rule(&self, rule: u32, zone: u32, size: u32) -> bool {
        let Some(current) = self.rules.rules.get(rule as usize) else { return true };
        let areas = &self.zones[zone as usize].areas;
        let here = !current.exclusive || current.area.is_none_or(|area| areas.contains(&(area as u32)));
        here && self.is_active_now(rule) && self.crowding_holds(rule) && size <= current.people.max
    }

    /// How long a peer must have been across the border between two zones before it counts for the
    /// other one.
    pub(crate) fn border_settling(&self, one: u32, other: u32) -> Duration {
        let set = [one, other].map(|zone| self.zones[zone as usize].settling);
        set.into_iter().flatten().max().unwrap_or(self.defaults.settling)
    }

    /// The transports that an island may use under a rule, or `NONE`, in order of preference.
    pub(crate) fn choices(&self, rule: u32) -> impl Iterator<Item = &TransportChoice> {
        let known = self.rules.rules.get(rule as usize).map(|_| rule as usize);
        self.rules.choices(known)
    }

    /// The settling time under a rule.
    pub(crate) fn settling_of(&self, rule: u32) -> Duration {
        self.rules.rules.get(rule as usize).and_then(|rule| rule.settling).unwrap_or(self.defaults.settling)
    }

    /// The size limit that a rule sets, or the default.
    pub(crate) fn max_island_size(&self, rule: u32) -> u32 {
        self.rules
            .rules
            .get(rule as usize)
            .and_then(|rule| rule.island_size)
            .unwrap_or(self.defaults.island_size)
    }

    /// The size limit of an island with members in a zone that all have these capabilities.
    pub(crate) fn size_limit(&self, zone: u32, capabilities: Capabilities) -> u32 {
        let index = self.limit_index[usize::from(capabilities.0)];
        self.zones[zone as usize].limits[usize::from(index)]
    }

    /// All size limits, by zone and capabilities.
    pub(crate) fn limits(&self) -> impl Iterator<Item = ((u32, u8), u32)> {
        let zones = (0..).zip(&self.zones);
        zones.flat_map(|(number, zone)| {
            self.capability_sets
                .iter()
                .zip(&zone.limits)
                .map(move |(capabilities, &limit)| ((number, capabilities.0), limit))
        })
    }

    /// Whether a rule has a crowding condition.
    pub(crate) fn has_crowding_condition(&self, rule: u32) -> bool {
        self.rules.rules.get(rule as usize).is_some_and(|rule| rule.crowding.is_some())
    }

    /// The size limit of every island, if it is the same everywhere.
    pub(crate) fn uniform_limit(&self) -> Option<u32> {
        self.uniform_limit
    }

    /// Adds a set of capabilities to those with computed limits. Returns whether it was new.
    pub(crate) fn add_capability_set(&mut self, capabilities: Capabilities) -> bool {
        if self.limit_index[usize::from(capabilities.0)] != NO_LIMIT_INDEX {
            return false;
        }
        // The intersections with the existing sets are added too: an island has the intersection of the
        // capabilities of its members.
        let mut new = vec![capabilities];
        while let Some(capabilities) = new.pop() {
            if self.limit_index[usize::from(capabilities.0)] != NO_LIMIT_INDEX {
                continue;
            }
            self.limit_index[usize::from(capabilities.0)] = self.capability_sets.len() as u16;
            new.extend(self.capability_sets.iter().map(|known| known.intersection(capabilities)));
            self.capability_sets.push(capabilities);
            for zone in 0..self.count() {
                let largest = self.max_size_by_rules(zone);
                self.zones[zone as usize].limits.push(largest);
            }
        }
        true
    }

    /// Recomputes the limits of all zones.
    pub(crate) fn recompute_limits(&mut self, registry: &Registry) {
        self.limits_changed |= self.compute_limits(0, registry);
        let mut limits = self.zones.iter().flat_map(|zone| &zone.limits);
        let first = limits.next().copied();
        self.uniform_limit = first.filter(|first| limits.all(|limit| limit == first));
    }

    /// Computes the limits of new zones, from number `from` on.
    pub(crate) fn compute_new_limits(&mut self, from: u32, registry: &Registry) {
        self.compute_limits(from, registry);
        let mut limits = self.zones[from as usize..].iter().flat_map(|zone| &zone.limits);
        self.uniform_limit = self.uniform_limit.filter(|only| limits.all(|limit| limit == only));
    }

    /// Whether any limit has changed since the last call.
    pub(crate) fn take_limits_changed(&mut self) -> bool {
        std::mem::take(&mut self.limits_changed)
    }

    fn compute_limits(&mut self, from: u32, registry: &Registry) -> bool {
        let mut changed = false;
        for zone in from..self.count() {
            for index in 0..self.capability_sets.len() {
                let largest = self.largest_island(zone, self.capability_sets[index], registry);
                let limit = &mut self.zones[zone as usize].limits[index];
                // While no node is on offer the limit stays, so that a node that comes online again
                // finds its islands unsplit.
                let after = largest.unwrap_or(*limit);
                changed |= std::mem::replace(limit, after) != after;
            }
        }
        changed
    }

    /// The largest size of an island that the rules of a zone allow: the rule that applies at that size
    /// has a large enough room, and every smaller size can be hosted as well, so that an island can
    /// grow to it. `None` if no node is on offer.
    fn largest_island(&self, zone: u32, capabilities: Capabilities, registry: &Registry) -> Option<u32> {
        let by_rule = |rule: u32| self.largest_room(rule, capabilities, registry);
        // An island without a large enough room under its rule falls back to the default transports.
        let with_default = |rule: u32| by_rule(rule).max(self.largest_room(NONE, capabilities, registry));
        let hosted = |rule: u32| with_default(rule).map(|room| room.min(self.max_island_size(rule)));
        let largest = self.largest_feasible_size(zone, by_rule, hosted);
        // Peers that can join no node on offer are in islands of one.
        let lacks = largest.is_none() && self.largest_room(NONE, Capabilities::ALL, registry).is_some();
        if lacks { Some(1) } else { largest }
    }

    /// The same, if every transport had unlimited rooms.
    fn max_size_by_rules(&self, zone: u32) -> u32 {
        let size = |rule: u32| Some(self.max_island_size(rule));
        self.largest_feasible_size(zone, size, size).unwrap_or(self.defaults.island_size)
    }

    /// The largest size for which the rule that applies has a large enough `room`, starting from 1 and
    /// going on while islands of all smaller sizes can be `hosted`. The rules of a zone are tried in
    /// order, each for all undecided sizes at once.
    fn largest_feasible_size(
        &self,
        zone: u32,
        room: impl Fn(u32) -> Option<u32>,
        hosted: impl Fn(u32) -> Option<u32>,
    ) -> Option<u32> {
        let mut undecided = vec![CountRange { min: 1, max: u32::MAX }];
        let mut decided: Vec<(CountRange, u32)> = Vec::new();
        let rules = self.rules_of(zone).filter(|&rule| self.crowding_holds(rule));
        for rule in rules.chain(std::iter::once(NONE)) {
            let sizes = self.rules.rules.get(rule as usize).map_or(CountRange::ANY, |rule| rule.people);
            let open = undecided
                .iter()
                .map(|open| CountRange { min: open.min.max(sizes.min), max: open.max.min(sizes.max) });
            decided.extend(open.filter(|count| count.min <= count.max).map(|count| (count, rule)));
            undecided = subtract_range(&undecided, sizes);
            if undecided.is_empty() {
                break;
            }
        }
        decided.sort_unstable_by_key(|(count, _)| count.min);
        let mut largest = None;
        for (CountRange { min, max }, rule) in decided {
            if let Some(room) = room(rule).filter(|&room| room >= min) {
                largest = Some(room.min(max));
            }
            if hosted(rule).is_none_or(|hosted| hosted < max) {
                break;
            }
        }
        largest
    }

    /// Whether a rule has a room for an island of this size, or no node is on offer at all.
    pub(crate) fn has_large_enough_room(
        &self,
        rule: u32,
        size: u32,
        capabilities: Capabilities,
        registry: &Registry,
    ) -> bool {
        self.largest_room(rule, capabilities, registry).is_none_or(|room| room >= size)
    }

    /// The largest island that fits a room under a rule: of the transports that it names, or if none of
    /// those is on offer, of the default transports.
    fn largest_room(&self, rule: u32, capabilities: Capabilities, registry: &Registry) -> Option<u32> {
        let own = self.rules.rules.get(rule as usize).and_then(|rule| rule.transports.as_deref());
        let largest = |choices: &[_]| {
            choices.iter().filter_map(|choice| registry.largest_room(choice, capabilities)).max()
        };
        let room = own.and_then(largest).or_else(|| largest(self.rules.default_transports()))?;
        Some(room.min(self.max_island_size(rule)))
    }

    /// Checks the crowding conditions, at most once per [`CROWDING_INTERVAL`]. `count` adds the number
    /// of peers to each zone. The first check of a condition takes effect at once, a later change after
    /// the settling time of its rule. Returns whether a condition changed.
    pub(crate) fn update_crowding(&mut self, count: impl FnOnce(&mut [u32]), now: Duration) -> bool {
        if self.crowding_rules.is_empty() || now < self.next_crowding_check {
            return false;
        }
        self.next_crowding_check = now + CROWDING_INTERVAL;
        let mut by_zone = vec![0; self.zones.len()];
        count(&mut by_zone);
        let mut changed = false;
        for index in 0..self.crowding_rules.len() {
            let rule = &self.rules.rules[self.crowding_rules[index].rule as usize];
            let inside = |zone: &Zone| rule.area.is_none_or(|area| zone.areas.contains(&(area as u32)));
            let zones = self.zones.iter().zip(&by_zone).filter(|(zone, _)| inside(zone));
            let peers = zones.map(|(_, peers)| peers).sum();
            let holds = rule.crowding.is_none_or(|crowding| crowding.contains(peers));
            let settling = rule.settling.unwrap_or(self.defaults.settling);
            let rule_state = &mut self.crowding_rules[index];
            let first = rule_state.peers.replace(peers).is_none();
            if holds == rule_state.holds {
                rule_state.since = None;
            } else if first || now.saturating_sub(*rule_state.since.get_or_insert(now)) >= settling {
                (rule_state.holds, rule_state.since) = (holds, None);
                changed = true;
            }
        }
        if changed {
            (0..self.zones.len()).for_each(|zone| self.update_distances(zone));
        }
        changed
    }

    /// Approximate bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let zone = |zone: &Zone| {
            size_of::<Zone>()
                + 2 * zone.areas.len() * size_of::<u32>()
                + zone.rules.len() * size_of::<u32>()
                + zone.limits.capacity() * size_of::<u32>()
        };
        self.zones.iter().map(zone).sum()
    }
}

/// The parts of `ranges` that are not in `taken`.
fn subtract_range(ranges: &[CountRange], taken: CountRange) -> Vec<CountRange> {
    let remain = |range: &CountRange| {
        let below =
            taken.min.checked_sub(1).map(|max| CountRange { min: range.min, max: range.max.min(max) });
        let above =
            taken.max.checked_add(1).map(|min| CountRange { min: range.min.max(min), max: range.max });
        [below, above].into_iter().flatten().filter(|count| count.min <= count.max)
    };
    ranges.iter().flat_map(remain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(min: u32, max: u32) -> CountRange {
        CountRange { min, max }
    }

    #[test]
    fn subtract_range_removes_overlaps() {
        let all = [count(1, u32::MAX)];
        assert_eq!(subtract_range(&all, count(0, 12)), [count(13, u32::MAX)]);
        assert_eq!(subtract_range(&all, count(5, 9)), [count(1, 4), count(10, u32::MAX)]);
        assert_eq!(subtract_range(&[count(1, 4), count(10, 20)], count(3, 11)), [count(1, 2), count(12, 20)]);
        assert_eq!(subtract_range(&all, CountRange::ANY), []);
    }
}
