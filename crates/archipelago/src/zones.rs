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
    ground::{Capabilities, MOST_ZONES, Point, Reach},
    registry::Registry,
    rules::{Atlas, Choice, Count, Distances, Rule, Rules},
    settings::{Clustering, Settings},
    slab::NONE,
};

/// The zone of ground that is in no area.
pub(crate) const OPEN: u32 = 0;

/// No limits were worked out for these capabilities.
const UNKNOWN: u16 = u16::MAX;
/// How often it is seen how crowded areas are.
const CROWDING_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Zones {
    pub(crate) rules: Arc<Rules>,
    base: Base,
    clustering: Clustering,
    /// Minutes since midnight, UTC; unknown, no hours hold.
    minute: Option<u16>,
    /// Of the rules that hold at this hour, those without an area, and by area those with one.
    everywhere: Vec<u32>,
    by_area: Vec<Vec<u32>>,
    crowds: Vec<Crowd>,
    crowding_due: Duration,
    atlas: Atlas,
    by_areas: FxHashMap<Box<[u32]>, u32>,
    zones: Vec<Zone>,
    /// The capabilities that limits were worked out for, and where each is in their lists.
    known: Vec<Capabilities>,
    places: Box<[u16; 256]>,
    /// The limit of all zones, when they have one.
    only_limit: Option<u32>,
    limits_changed: bool,
    found: Vec<u32>,
}

/// What holds without a rule.
#[derive(Debug, Clone, Copy)]
struct Base {
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
struct Crowd {
    rule: u32,
    holds: bool,
    /// Since when the answer has been another.
    since: Option<Duration>,
    /// How many there were when it was last seen, if it ever was.
    people: Option<u32>,
}

impl Zones {
    pub(crate) fn new(settings: &Settings, rules: Arc<Rules>) -> Self {
        let distances = Distances { join_m: settings.join_distance_m, leave_m: settings.leave_distance_m };
        let base = Base { distances, island_size: settings.max_island_size, settling: settings.settling };
        let mut zones = Self {
            rules,
            base,
            clustering: settings.clustering,
            minute: None,
            everywhere: Vec::new(),
            by_area: Vec::new(),
            crowds: Vec::new(),
            crowding_due: Duration::ZERO,
            atlas: Atlas::default(),
            by_areas: FxHashMap::default(),
            zones: Vec::new(),
            known: Vec::new(),
            places: Box::new([UNKNOWN; 256]),
            only_limit: None,
            limits_changed: false,
            found: Vec::new(),
        };
        zones.lay_out();
        zones
    }

    /// Takes other rules. Every zone is another one from here on.
    pub(crate) fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        self.crowds.clear();
        self.lay_out();
    }

    /// Sets the clock. Returns whether other rules hold now; then every zone is another one.
    pub(crate) fn set_minute(&mut self, minute: u16) -> bool {
        let before = self.minute.replace(minute);
        let held = |rule: &Rule, minute: Option<u16>| {
            rule.hours.is_none_or(|hours| minute.is_some_and(|minute| hours.contains(minute)))
        };
        let changed = self.rules.rules.iter().any(|rule| held(rule, before) != held(rule, Some(minute)));
        if changed {
            self.lay_out();
        }
        changed
    }

    /// Whether a rule holds at this hour.
    pub(crate) fn is_on(&self, rule: u32) -> bool {
        let hours = self.rules.rules[rule as usize].hours;
        hours.is_none_or(|hours| self.minute.is_some_and(|minute| hours.contains(minute)))
    }

    fn lay_out(&mut self) {
        let rules = self.rules.clone();
        self.everywhere.clear();
        self.by_area = vec![Vec::new(); rules.areas.len()];
        for (rule, number) in rules.rules.iter().zip(0..) {
            if !self.is_on(number) {
                continue;
            }
            match rule.area {
                Some(area) => self.by_area[area].push(number),
                None => self.everywhere.push(number),
            }
        }
        let before = std::mem::take(&mut self.crowds);
        self.crowds = (0..)
            .zip(&rules.rules)
            .filter(|(_, rule)| rule.crowding.is_some())
            .map(|(rule, _)| {
                let known = before.iter().find(|crowd| crowd.rule == rule).cloned();
                known.unwrap_or(Crowd { rule, holds: false, since: None, people: None })
            })
            .collect();
        self.crowding_due = Duration::ZERO;
        self.atlas = Atlas::new(&rules.areas, |area| !self.by_area[area].is_empty());
        self.by_areas.clear();
        self.zones.clear();
        self.add(Box::default());
    }

    /// Whether there is ground that is not like all other ground.
    pub(crate) fn are_many(&self) -> bool {
        !self.atlas.is_empty()
    }

    /// The zone that a point is in. One that nobody stood in before is the last.
    pub(crate) fn at(&mut self, at: Point) -> u32 {
        if self.atlas.is_empty() {
            return OPEN;
        }
        let mut found = std::mem::take(&mut self.found);
        self.atlas.find(at, &mut found);
        let zone = match self.by_areas.get(&found[..]) {
            Some(&zone) => zone,
            None => self.add(found.clone().into_boxed_slice()),
        };
        self.found = found;
        zone
    }

    fn add(&mut self, areas: Box<[u32]>) -> u32 {
        let number = self.zones.len();
        if number == MOST_ZONES {
            // Sixteen million ways for areas to overlap: what is beyond is open ground.
            return OPEN;
        }
        let mut rules: Vec<u32> =
            areas.iter().flat_map(|&area| &self.by_area[area as usize]).copied().collect();
        rules.sort_unstable();
        let exclusive =
            rules.iter().map(|&rule| &self.rules.rules[rule as usize]).find(|rule| rule.exclusive);
        let enclosure = exclusive.and_then(|rule| rule.area).map_or(NONE, |area| area as u32);
        let distances = self.base.distances;
        let zone = Zone {
            areas: areas.clone(),
            enclosure,
            distances,
            settling: None,
            rules: rules.into_boxed_slice(),
            limits: Vec::new(),
        };
        self.zones.push(zone);
        let largest = self.largest_ever(number as u32);
        self.zones[number].limits = vec![largest; self.known.len()];
        self.by_areas.insert(areas, number as u32);
        self.measure(number);
        number as u32
    }

    /// Works out the distances and the settling time of a zone.
    fn measure(&mut self, zone: usize) {
        let number = zone as u32;
        let distances = self.here(number).find_map(|rule| rule.distances).unwrap_or(self.base.distances);
        let settling = self.here(number).find_map(|rule| rule.settling);
        let zone = &mut self.zones[zone];
        (zone.distances, zone.settling) = (distances, settling);
    }

    pub(crate) fn count(&self) -> u32 {
        self.zones.len() as u32
    }

    pub(crate) fn zone(&self, zone: u32) -> &Zone {
        &self.zones[zone as usize]
    }

    pub(crate) fn reach(&self, zone: u32) -> Reach {
        if self.clustering == Clustering::Given {
            return Reach { enclosure: NONE, join_m: clusters::REACH_M, leave_m: clusters::REACH_M };
        }
        let Zone { enclosure, distances: Distances { join_m, leave_m }, .. } = self.zones[zone as usize];
        Reach { enclosure, join_m, leave_m }
    }

    /// The greatest distance that people reach anywhere.
    pub(crate) fn farthest_m(&self) -> f32 {
        if self.clustering == Clustering::Given {
            return clusters::REACH_M;
        }
        let set = self.rules.rules.iter().filter_map(|rule| rule.distances);
        set.map(|distances| distances.leave_m).fold(self.base.distances.leave_m, f32::max)
    }

    /// The rules that hold at this hour and are about a zone, whatever they ask of numbers, in order.
    pub(crate) fn rules_of(&self, zone: u32) -> impl Iterator<Item = u32> {
        let mut local = self.zones[zone as usize].rules.iter().copied().peekable();
        let mut general = self.everywhere.iter().copied().peekable();
        std::iter::from_fn(move || match (local.peek(), general.peek()) {
            (Some(one), Some(other)) if one < other => local.next(),
            (_, Some(_)) => general.next(),
            (_, None) => local.next(),
        })
    }

    /// The rules that hold in a zone now, if they do not ask how many people an island has.
    fn here(&self, zone: u32) -> impl Iterator<Item = &Rule> {
        let rules = self.rules_of(zone).filter(|&rule| self.is_as_crowded(rule));
        rules.map(|rule| &self.rules.rules[rule as usize]).filter(|rule| rule.people == Count::ANY)
    }

    /// Whether it is as crowded as a rule asks.
    pub(crate) fn is_as_crowded(&self, rule: u32) -> bool {
        let crowd = self.crowds.binary_search_by_key(&rule, |crowd| crowd.rule);
        crowd.is_ok_and(|index| self.crowds[index].holds)
            || self.rules.rules[rule as usize].crowding.is_none()
    }

    /// How many people a rule that asks for it was last seen to have in its area.
    pub(crate) fn people_seen(&self, rule: u32) -> Option<u32> {
        let crowd = self.crowds.binary_search_by_key(&rule, |crowd| crowd.rule).ok()?;
        self.crowds[crowd].people
    }

    /// The rule that decides for an island of so many, most of whom are in a zone; `NONE`: no rule.
    pub(crate) fn rule_for(&self, zone: u32, people: u32) -> u32 {
        let fits =
            |&rule: &u32| self.rules.rules[rule as usize].people.contains(people) && self.is_as_crowded(rule);
        self.rules_of(zone).find(fits).unwrap_or(NONE)
    }

    /// Whether a rule may go on deciding for an island until it has settled that another is to: it
    /// holds at this hour and is as crowded, it is not about people who are kept to themselves
    /// elsewhere, and the island has not outgrown it.
    pub(crate) fn still_covers(&self, rule: u32, zone: u32, people: u32) -> bool {
        let Some(asked) = self.rules.rules.get(rule as usize) else { return true };
        let areas = &self.zones[zone as usize].areas;
        let here = !asked.exclusive || asked.area.is_none_or(|area| areas.contains(&(area as u32)));
        here && self.is_on(rule) && self.is_as_crowded(rule) && people <= asked.people.max
    }

    /// How long somebody must have been on the other side of the border between two zones.
    pub(crate) fn border_settling(&self, one: u32, other: u32) -> Duration {
        let set = [one, other].map(|zone| self.zones[zone as usize].settling);
        set.into_iter().flatten().max().unwrap_or(self.base.settling)
    }

    /// What an island under a rule, or under none, may use, in order of preference.
    pub(crate) fn choices(&self, rule: u32) -> impl Iterator<Item = &Choice> {
        let known = self.rules.rules.get(rule as usize).map(|_| rule as usize);
        self.rules.choices(known)
    }

    /// How long a change under a rule must last.
    pub(crate) fn settling_of(&self, rule: u32) -> Duration {
        self.rules.rules.get(rule as usize).and_then(|rule| rule.settling).unwrap_or(self.base.settling)
    }

    /// The most members that an island under a rule may have.
    pub(crate) fn island_size(&self, rule: u32) -> u32 {
        self.rules.rules.get(rule as usize).and_then(|rule| rule.island_size).unwrap_or(self.base.island_size)
    }

    /// The most members of an island in a zone that can all join these transports.
    pub(crate) fn limit(&self, zone: u32, capabilities: Capabilities) -> u32 {
        let place = self.places[usize::from(capabilities.0)];
        self.zones[zone as usize].limits[usize::from(place)]
    }

    /// All limits, by zone and capabilities.
    pub(crate) fn limits(&self) -> impl Iterator<Item = ((u32, u8), u32)> {
        let zones = (0..).zip(&self.zones);
        zones.flat_map(|(number, zone)| {
            self.known
                .iter()
                .zip(&zone.limits)
                .map(move |(capabilities, &limit)| ((number, capabilities.0), limit))
        })
    }

    /// Whether a rule asks how crowded it is.
    pub(crate) fn asks_for_a_crowd(&self, rule: u32) -> bool {
        self.rules.rules.get(rule as usize).is_some_and(|rule| rule.crowding.is_some())
    }

    /// The limit of every island, if it is the same everywhere.
    pub(crate) fn only_limit(&self) -> Option<u32> {
        self.only_limit
    }

    /// Has limits worked out for these capabilities too. Returns whether they were not before.
    pub(crate) fn learn(&mut self, capabilities: Capabilities) -> bool {
        if self.places[usize::from(capabilities.0)] != UNKNOWN {
            return false;
        }
        // And for what any of those before and these have in common.
        let mut new = vec![capabilities];
        while let Some(capabilities) = new.pop() {
            if self.places[usize::from(capabilities.0)] != UNKNOWN {
                continue;
            }
            self.places[usize::from(capabilities.0)] = self.known.len() as u16;
            new.extend(self.known.iter().map(|known| known.and(capabilities)));
            self.known.push(capabilities);
            for zone in 0..self.count() {
                let largest = self.largest_ever(zone);
                self.zones[zone as usize].limits.push(largest);
            }
        }
        true
    }

    /// Works out the limits of all zones.
    pub(crate) fn limit_anew(&mut self, registry: &Registry) {
        self.limits_changed |= self.work_out_limits(0, registry);
        let mut limits = self.zones.iter().flat_map(|zone| &zone.limits);
        let first = limits.next().copied();
        self.only_limit = first.filter(|first| limits.all(|limit| limit == first));
    }

    /// Works out the limits of the zones from a new one on.
    pub(crate) fn limit_new(&mut self, from: u32, registry: &Registry) {
        self.work_out_limits(from, registry);
        let mut limits = self.zones[from as usize..].iter().flat_map(|zone| &zone.limits);
        self.only_limit = self.only_limit.filter(|only| limits.all(|limit| limit == only));
    }

    /// Whether any zone's limit has become another since this was asked.
    pub(crate) fn take_limits_changed(&mut self) -> bool {
        std::mem::take(&mut self.limits_changed)
    }

    fn work_out_limits(&mut self, from: u32, registry: &Registry) -> bool {
        let mut changed = false;
        for zone in from..self.count() {
            for place in 0..self.known.len() {
                let largest = self.largest_island(zone, self.known[place], registry);
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
        let own = |rule: u32| self.room(rule, capabilities, registry);
        // What is used without a rule takes an island that its rule has no room for.
        let any = |rule: u32| own(rule).max(self.room(NONE, capabilities, registry));
        let held = |rule: u32| any(rule).map(|room| room.min(self.island_size(rule)));
        let largest = self.climb(zone, own, held);
        // Whoever cannot join anything is alone.
        let lacks = largest.is_none() && self.room(NONE, Capabilities::ALL, registry).is_some();
        if lacks { Some(1) } else { largest }
    }

    /// The same if every transport had room for everybody.
    fn largest_ever(&self, zone: u32) -> u32 {
        let size = |rule: u32| Some(self.island_size(rule));
        self.climb(zone, size, size).unwrap_or(self.base.island_size)
    }

    /// From one person on, as far as islands can be `held`, the largest number for which the rule
    /// that decides then has `room`. The rules of a zone are tried in order for all numbers at once.
    fn climb(
        &self,
        zone: u32,
        room: impl Fn(u32) -> Option<u32>,
        held: impl Fn(u32) -> Option<u32>,
    ) -> Option<u32> {
        let mut undecided = vec![Count { min: 1, max: u32::MAX }];
        let mut decided: Vec<(Count, u32)> = Vec::new();
        let rules = self.rules_of(zone).filter(|&rule| self.is_as_crowded(rule));
        for rule in rules.chain(std::iter::once(NONE)) {
            let people = self.rules.rules.get(rule as usize).map_or(Count::ANY, |rule| rule.people);
            let open = undecided
                .iter()
                .map(|open| Count { min: open.min.max(people.min), max: open.max.min(people.max) });
            decided.extend(open.filter(|count| count.min <= count.max).map(|count| (count, rule)));
            undecided = without(&undecided, people);
            if undecided.is_empty() {
                break;
            }
        }
        decided.sort_unstable_by_key(|(count, _)| count.min);
        let mut largest = None;
        for (Count { min, max }, rule) in decided {
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
    pub(crate) fn has_room(
        &self,
        rule: u32,
        people: u32,
        capabilities: Capabilities,
        registry: &Registry,
    ) -> bool {
        self.room(rule, capabilities, registry).is_none_or(|room| room >= people)
    }

    /// The most people that a rule has room for in one island: of what it wants, or if nothing of
    /// that is on offer, of what is used without a rule.
    fn room(&self, rule: u32, capabilities: Capabilities, registry: &Registry) -> Option<u32> {
        let own = self.rules.rules.get(rule as usize).and_then(|rule| rule.transports.as_deref());
        let largest = |choices: &[_]| {
            choices.iter().filter_map(|choice| registry.largest_room(choice, capabilities)).max()
        };
        let room = own.and_then(largest).or_else(|| largest(self.rules.default_transports()))?;
        Some(room.min(self.island_size(rule)))
    }

    /// Sees how crowded the areas are that rules ask about, `people` being those of each zone. A
    /// change counts when it has lasted. Returns whether one does.
    pub(crate) fn see_crowds(&mut self, people: impl FnOnce(&mut [u32]), now: Duration) -> bool {
        if self.crowds.is_empty() || now < self.crowding_due {
            return false;
        }
        self.crowding_due = now + CROWDING_INTERVAL;
        let mut by_zone = vec![0; self.zones.len()];
        people(&mut by_zone);
        let mut changed = false;
        for index in 0..self.crowds.len() {
            let rule = &self.rules.rules[self.crowds[index].rule as usize];
            let inside = |zone: &Zone| rule.area.is_none_or(|area| zone.areas.contains(&(area as u32)));
            let zones = self.zones.iter().zip(&by_zone).filter(|(zone, _)| inside(zone));
            let people = zones.map(|(_, people)| people).sum();
            let holds = rule.crowding.is_none_or(|crowding| crowding.contains(people));
            let settling = rule.settling.unwrap_or(self.base.settling);
            let crowd = &mut self.crowds[index];
            let first = crowd.people.replace(people).is_none();
            if holds == crowd.holds {
                crowd.since = None;
            } else if first || now.saturating_sub(*crowd.since.get_or_insert(now)) >= settling {
                (crowd.holds, crowd.since) = (holds, None);
                changed = true;
            }
        }
        if changed {
            (0..self.zones.len()).for_each(|zone| self.measure(zone));
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
fn without(ranges: &[Count], taken: Count) -> Vec<Count> {
    let remain = |range: &Count| {
        let below = taken.min.checked_sub(1).map(|max| Count { min: range.min, max: range.max.min(max) });
        let above = taken.max.checked_add(1).map(|min| Count { min: range.min.max(min), max: range.max });
        [below, above].into_iter().flatten().filter(|count| count.min <= count.max)
    };
    ranges.iter().flat_map(remain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(min: u32, max: u32) -> Count {
        Count { min, max }
    }

    #[test]
    fn ranges_are_taken_out_of_ranges() {
        let all = [count(1, u32::MAX)];
        assert_eq!(without(&all, count(0, 12)), [count(13, u32::MAX)]);
        assert_eq!(without(&all, count(5, 9)), [count(1, 4), count(10, u32::MAX)]);
        assert_eq!(without(&[count(1, 4), count(10, 20)], count(3, 11)), [count(1, 2), count(12, 20)]);
        assert_eq!(without(&all, Count::ANY), []);
    }
}
