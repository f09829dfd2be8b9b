//! What rules make of the ground.
//!
//! A *zone* is all ground that lies in the same areas: whoever stands in one is treated alike. What
//! is written about a place, whatever the number of people, is worked out once for each zone: how
//! far people reach, how large islands may be, how long a change must last. A zone comes about when
//! somebody first stands in it.

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

/// The zone of ground that is in no area.
pub(crate) const OPEN_ZONE: u32 = 0;

/// No limits were worked out for these capabilities.
const NO_LIMIT_INDEX: u16 = u16::MAX;
/// How often it is seen how crowded areas are.
const CROWDING_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Zones {
    pub(crate) rules: Arc<Rules>,
    defaults: Defaults,
    clustering: Clustering,
    /// Minutes since midnight, UTC; unknown, no hours hold.
    minute: Option<u16>,
    /// Of the rules that hold at this hour, those without an area, and by area those with one.
    global_rules: Vec<u32>,
    rules_by_area: Vec<Vec<u32>>,
    crowding_rules: Vec<CrowdingRule>,
    next_crowding_check: Duration,
    atlas: AreaIndex,
    zone_by_areas: FxHashMap<Box<[u32]>, u32>,
    zones: Vec<Zone>,
    /// The capabilities that limits were worked out for, and where each is in their lists.
    capability_sets: Vec<Capabilities>,
    limit_index: Box<[u16; 256]>,
    /// The limit of all zones, when they have one.
    uniform_limit: Option<u32>,
    limits_changed: bool,
    areas_found: Vec<u32>,
}

/// What holds without a rule.
#[derive(Debug, Clone, Copy)]
struct Defaults {
    distances: Distances,
    island_size: u32,
    settling: Duration,
}

/// A zone and what holds in it.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    pub(crate) areas: Box<[u32]>,
    /// The area whose people are together only among themselves; `NONE` is none.
    pub(crate) enclosure: u32,
    pub(crate) distances: Distances,
    /// How long crossing its border must last, if a rule says so.
    settling: Option<Duration>,
    /// Rules with an area that hold here, in order.
    rules: Box<[u32]>,
    /// The most members of an island, by the place of what they can join.
    limits: Vec<u32>,
}

/// A rule that asks how crowded it is.
#[derive(Debug, Clone)]
struct CrowdingRule {
    rule: u32,
    holds: bool,
    /// Since when the answer has been another.
    since: Option<Duration>,
    /// How many there were when it was last seen, if it ever was.
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
            atlas: AreaIndex::default(),
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

    /// Takes other rules. Every zone is another one from here on.
    pub(crate) fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        self.crowding_rules.clear();
        self.rebuild();
    }

    /// Sets the clock. Returns whether other rules hold now; then every zone is another one.
    pub(crate) fn set_minute(&mut self, minute: u16) -> bool {
        let before = self.minute.replace(minute);
        let held = |rule: &Rule, minute: Option<u16>| {
            rule.hours.is_none_or(|hours| minute.is_some_and(|minute| hours.contains(minute)))
        };
        let changed = self.rules.rules.iter().any(|rule| held(rule, before) != held(rule, Some(minute)));
        if changed {
            self.rebuild();
        }
        changed
    }

    /// Whether a rule holds at this hour.
    pub(crate) fn is_active_now(&self, rule: u32) -> bool {
        let hours = self.rules.rules[rule as usize].hours;
        hours.is_none_or(|hours| self.minute.is_some_and(|minute| hours.contains(minute)))
    }

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
                let known = before.iter().find(|crowd| crowd.rule == rule).cloned();
                known.unwrap_or(CrowdingRule { rule, holds: false, since: None, peers: None })
            })
            .collect();
        self.next_crowding_check = Duration::ZERO;
        self.atlas = AreaIndex::new(&rules.areas, |area| !self.rules_by_area[area].is_empty());
        self.zone_by_areas.clear();
        self.zones.clear();
        self.add_zone(Box::default());
    }

    /// Whether there is ground that is not like all other ground.
    pub(crate) fn is_partitioned(&self) -> bool {
        !self.atlas.is_empty()
    }

    /// The zone that a point is in. One that nobody stood in before is the last.
    pub(crate) fn zone_at(&mut self, at: Point) -> u32 {
        if self.atlas.is_empty() {
            return OPEN_ZONE;
        }
        let mut found = std::mem::take(&mut self.areas_found);
        self.atlas.find(at, &mut found);
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
            // Sixteen million ways for areas to overlap: what is beyond is open ground.
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

    /// Works out the distances and the settling time of a zone.
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

    /// The greatest distance that people reach anywhere.
    pub(crate) fn max_distance_m(&self) -> f32 {
        if self.clustering == Clustering::External {
            return clusters::CLUSTER_DISTANCE_M;
        }
        let set = self.rules.rules.iter().filter_map(|rule| rule.distances);
        set.map(|distances| distances.leave_m).fold(self.defaults.distances.leave_m, f32::max)
    }

    /// The rules that hold at this hour and are about a zone, whatever they ask of numbers, in order.
    pub(crate) fn rules_of(&self, zone: u32) -> impl Iterator<Item = u32> {
        let mut local = self.zones[zone as usize].rules.iter().copied().peekable();
        let mut general = self.global_rules.iter().copied().peekable();
        std::iter::from_fn(move || match (local.peek(), general.peek()) {
            (Some(one), Some(other)) if one < other => local.next(),
            (_, Some(_)) => general.next(),
            (_, None) => local.next(),
        })
    }

    /// The rules that hold in a zone now, if they do not ask how many people an island has.
    fn size_independent_rules(&self, zone: u32) -> impl Iterator<Item = &Rule> {
        let rules = self.rules_of(zone).filter(|&rule| self.crowding_holds(rule));
        rules.map(|rule| &self.rules.rules[rule as usize]).filter(|rule| rule.people == CountRange::ANY)
    }

    /// Whether it is as crowded as a rule asks.
    pub(crate) fn crowding_holds(&self, rule: u32) -> bool {
        let crowd = self.crowding_rules.binary_search_by_key(&rule, |crowd| crowd.rule);
        crowd.is_ok_and(|index| self.crowding_rules[index].holds)
            || self.rules.rules[rule as usize].crowding.is_none()
    }

    /// How many people a rule that asks for it was last seen to have in its area.
    pub(crate) fn crowding_count(&self, rule: u32) -> Option<u32> {
        let crowd = self.crowding_rules.binary_search_by_key(&rule, |crowd| crowd.rule).ok()?;
        self.crowding_rules[crowd].peers
    }

    /// The rule that decides for an island of so many, most of whom are in a zone; `NONE`: no rule.
    pub(crate) fn rule_for(&self, zone: u32, people: u32) -> u32 {
        let fits = |&rule: &u32| {
            self.rules.rules[rule as usize].people.contains(people) && self.crowding_holds(rule)
        };
        self.rules_of(zone).find(fits).unwrap_or(NONE)
    }

    /// Whether a rule may go on deciding for an island until it has settled that another is to: it
    /// holds at this hour and is as crowded, it is not about people who are kept to themselves
    /// elsewhere, and the island has not outgrown it.
    pub(crate) fn may_keep_rule(&self, rule: u32, zone: u32, people: u32) -> bool {
        let Some(asked) = self.rules.rules.get(rule as usize) else { return true };
        let areas = &self.zones[zone as usize].areas;
        let here = !asked.exclusive || asked.area.is_none_or(|area| areas.contains(&(area as u32)));
        here && self.is_active_now(rule) && self.crowding_holds(rule) && people <= asked.people.max
    }

    /// How long somebody must have been on the other side of the border between two zones.
    pub(crate) fn border_settling(&self, one: u32, other: u32) -> Duration {
        let set = [one, other].map(|zone| self.zones[zone as usize].settling);
        set.into_iter().flatten().max().unwrap_or(self.defaults.settling)
    }

    /// What an island under a rule, or under none, may use, in order of preference.
    pub(crate) fn choices(&self, rule: u32) -> impl Iterator<Item = &TransportChoice> {
        let known = self.rules.rules.get(rule as usize).map(|_| rule as usize);
        self.rules.choices(known)
    }

    /// How long a change under a rule must last.
    pub(crate) fn settling_of(&self, rule: u32) -> Duration {
        self.rules.rules.get(rule as usize).and_then(|rule| rule.settling).unwrap_or(self.defaults.settling)
    }

    /// The most members that an island under a rule may have.
    pub(crate) fn max_island_size(&self, rule: u32) -> u32 {
        self.rules
            .rules
            .get(rule as usize)
            .and_then(|rule| rule.island_size)
            .unwrap_or(self.defaults.island_size)
    }

    /// The most members of an island in a zone that can all join these transports.
    pub(crate) fn size_limit(&self, zone: u32, capabilities: Capabilities) -> u32 {
        let place = self.limit_index[usize::from(capabilities.0)];
        self.zones[zone as usize].limits[usize::from(place)]
    }

    /// All limits, by zone and capabilities.
    pub(crate) fn limits(&self) -> impl Iterator<Item = ((u32, u8), u32)> {
        let zones = (0..).zip(&self.zones);
        zones.flat_map(|(number, zone)| {
            self.capability_sets
                .iter()
                .zip(&zone.limits)
                .map(move |(capabilities, &limit)| ((number, capabilities.0), limit))
        })
    }

    /// Whether a rule asks how crowded it is.
    pub(crate) fn has_crowding_condition(&self, rule: u32) -> bool {
        self.rules.rules.get(rule as usize).is_some_and(|rule| rule.crowding.is_some())
    }

    /// The limit of every island, if it is the same everywhere.
    pub(crate) fn uniform_limit(&self) -> Option<u32> {
        self.uniform_limit
    }

    /// Has limits worked out for these capabilities too. Returns whether they were not before.
    pub(crate) fn add_capability_set(&mut self, capabilities: Capabilities) -> bool {
        if self.limit_index[usize::from(capabilities.0)] != NO_LIMIT_INDEX {
            return false;
        }
        // And for what any of those before and these have in common.
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

    /// Works out the limits of all zones.
    pub(crate) fn recompute_limits(&mut self, registry: &Registry) {
        self.limits_changed |= self.compute_limits(0, registry);
        let mut limits = self.zones.iter().flat_map(|zone| &zone.limits);
        let first = limits.next().copied();
        self.uniform_limit = first.filter(|first| limits.all(|limit| limit == first));
    }

    /// Works out the limits of the zones from a new one on.
    pub(crate) fn compute_new_limits(&mut self, from: u32, registry: &Registry) {
        self.compute_limits(from, registry);
        let mut limits = self.zones[from as usize..].iter().flat_map(|zone| &zone.limits);
        self.uniform_limit = self.uniform_limit.filter(|only| limits.all(|limit| limit == only));
    }

    /// Whether any zone's limit has become another since this was asked.
    pub(crate) fn take_limits_changed(&mut self) -> bool {
        std::mem::take(&mut self.limits_changed)
    }

    fn compute_limits(&mut self, from: u32, registry: &Registry) -> bool {
        let mut changed = false;
        for zone in from..self.count() {
            for place in 0..self.capability_sets.len() {
                let largest = self.largest_island(zone, self.capability_sets[place], registry);
                let limit = &mut self.zones[zone as usize].limits[place];
                // While nothing is on offer the limit stays: a node that is heard again finds its
                // islands whole.
                let after = largest.unwrap_or(*limit);
                changed |= std::mem::replace(limit, after) != after;
            }
        }
        changed
    }

    /// The largest island that the rules of a zone allow: as large as the rule that decides at that
    /// size has room for, and every size on the way there can be held by something. `None` if nothing
    /// is on offer at all.
    fn largest_island(&self, zone: u32, capabilities: Capabilities, registry: &Registry) -> Option<u32> {
        let own = |rule: u32| self.largest_room(rule, capabilities, registry);
        // What is used without a rule takes an island that its rule has no room for.
        let any = |rule: u32| own(rule).max(self.largest_room(NONE, capabilities, registry));
        let held = |rule: u32| any(rule).map(|room| room.min(self.max_island_size(rule)));
        let largest = self.largest_feasible_size(zone, own, held);
        // Whoever cannot join anything is alone.
        let lacks = largest.is_none() && self.largest_room(NONE, Capabilities::ALL, registry).is_some();
        if lacks { Some(1) } else { largest }
    }

    /// The same if every transport had room for everybody.
    fn max_size_by_rules(&self, zone: u32) -> u32 {
        let size = |rule: u32| Some(self.max_island_size(rule));
        self.largest_feasible_size(zone, size, size).unwrap_or(self.defaults.island_size)
    }

    /// From one person on, as far as islands can be `held`, the largest number for which the rule
    /// that decides then has `room`. The rules of a zone are tried in order for all numbers at once.
    fn largest_feasible_size(
        &self,
        zone: u32,
        room: impl Fn(u32) -> Option<u32>,
        held: impl Fn(u32) -> Option<u32>,
    ) -> Option<u32> {
        let mut undecided = vec![CountRange { min: 1, max: u32::MAX }];
        let mut decided: Vec<(CountRange, u32)> = Vec::new();
        let rules = self.rules_of(zone).filter(|&rule| self.crowding_holds(rule));
        for rule in rules.chain(std::iter::once(NONE)) {
            let people = self.rules.rules.get(rule as usize).map_or(CountRange::ANY, |rule| rule.people);
            let open = undecided
                .iter()
                .map(|open| CountRange { min: open.min.max(people.min), max: open.max.min(people.max) });
            decided.extend(open.filter(|count| count.min <= count.max).map(|count| (count, rule)));
            undecided = subtract_range(&undecided, people);
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
            if held(rule).is_none_or(|held| held < max) {
                break;
            }
        }
        largest
    }

    /// Whether a rule has room for an island of so many, or nothing is on offer that could have.
    pub(crate) fn has_large_enough_room(
        &self,
        rule: u32,
        people: u32,
        capabilities: Capabilities,
        registry: &Registry,
    ) -> bool {
        self.largest_room(rule, capabilities, registry).is_none_or(|room| room >= people)
    }

    /// The most people that a rule has room for in one island: of what it wants, or if nothing of
    /// that is on offer, of what is used without a rule.
    fn largest_room(&self, rule: u32, capabilities: Capabilities, registry: &Registry) -> Option<u32> {
        let own = self.rules.rules.get(rule as usize).and_then(|rule| rule.transports.as_deref());
        let largest = |choices: &[_]| {
            choices.iter().filter_map(|choice| registry.largest_room(choice, capabilities)).max()
        };
        let room = own.and_then(largest).or_else(|| largest(self.rules.default_transports()))?;
        Some(room.min(self.max_island_size(rule)))
    }

    /// Sees how crowded the areas are that rules ask about, `people` being those of each zone. A
    /// change counts when it has lasted. Returns whether one does.
    pub(crate) fn update_crowding(&mut self, people: impl FnOnce(&mut [u32]), now: Duration) -> bool {
        if self.crowding_rules.is_empty() || now < self.next_crowding_check {
            return false;
        }
        self.next_crowding_check = now + CROWDING_INTERVAL;
        let mut by_zone = vec![0; self.zones.len()];
        people(&mut by_zone);
        let mut changed = false;
        for index in 0..self.crowding_rules.len() {
            let rule = &self.rules.rules[self.crowding_rules[index].rule as usize];
            let inside = |zone: &Zone| rule.area.is_none_or(|area| zone.areas.contains(&(area as u32)));
            let zones = self.zones.iter().zip(&by_zone).filter(|(zone, _)| inside(zone));
            let people = zones.map(|(_, people)| people).sum();
            let holds = rule.crowding.is_none_or(|crowding| crowding.contains(people));
            let settling = rule.settling.unwrap_or(self.defaults.settling);
            let crowd = &mut self.crowding_rules[index];
            let first = crowd.peers.replace(people).is_none();
            if holds == crowd.holds {
                crowd.since = None;
            } else if first || now.saturating_sub(*crowd.since.get_or_insert(now)) >= settling {
                (crowd.holds, crowd.since) = (holds, None);
                changed = true;
            }
        }
        if changed {
            (0..self.zones.len()).for_each(|zone| self.update_distances(zone));
        }
        changed
    }

    /// Bytes held, about.
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

/// What remains of several ranges without what is in another.
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
