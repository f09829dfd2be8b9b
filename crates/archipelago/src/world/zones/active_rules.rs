//! The rules in force: those that are active at this time of day, with the values that apply where no rule
//! sets them.

use std::{sync::Arc, time::Duration};

use super::crowding::Crowding;
use crate::{
    ids::{AreaIndex, RuleIndex},
    index_vec::IndexVec,
    rules::{CountRange, Distances, Rule, Rules, TransportChoice},
    settings::Settings,
};

/// The rules, and which of them are active.
#[derive(Debug, Clone)]
pub(crate) struct ActiveRules {
    pub(super) rules: Arc<Rules>,
    pub(super) defaults: Defaults,
    /// Minutes since midnight, UTC. While it is `None`, no rule with hours is active.
    minute: Option<u16>,
    /// The rules that are active at this time of day: those without an area, and by area the others.
    global: Vec<RuleIndex>,
    by_area: IndexVec<AreaIndex, Vec<RuleIndex>>,
    pub(super) crowding: Crowding,
}

/// The values that apply where no rule sets them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) distances: Distances,
    pub(super) island_size: u32,
    pub(super) settling: Duration,
}

impl ActiveRules {
    /// No rules.
    pub(super) fn new(settings: &Settings) -> Self {
        let distances = Distances { join_m: settings.join_distance_m, leave_m: settings.leave_distance_m };
        let defaults =
            Defaults { distances, island_size: settings.max_island_size, settling: settings.settling };
        Self {
            rules: Arc::default(),
            defaults,
            minute: None,
            global: Vec::new(),
            by_area: IndexVec::default(),
            crowding: Crowding::default(),
        }
    }

    /// Replaces the rules.
    pub(super) fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        self.crowding = Crowding::default();
        self.rebuild();
    }

    /// Sets the time of day. Returns whether other rules are active now.
    pub(super) fn set_minute(&mut self, minute: u16) -> bool {
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

    /// Recomputes which rules are active. Crowding states are kept.
    fn rebuild(&mut self) {
        self.global.clear();
        self.by_area = vec![Vec::new(); self.rules.areas.len()].into();
        for (index, rule) in self.rules.numbered() {
            if !self.is_active_now(index) {
                continue;
            }
            match rule.area {
                Some(area) => self.by_area[area].push(index),
                None => self.global.push(index),
            }
        }
        self.crowding.rebuild(&self.rules);
    }

    /// Whether a rule is active at this time of day.
    pub(super) fn is_active_now(&self, rule: RuleIndex) -> bool {
        let hours = self.rules.rule(rule).hours;
        hours.is_none_or(|hours| self.minute.is_some_and(|minute| hours.contains(minute)))
    }

    /// Whether an active rule names this area.
    pub(super) fn has_rule_for(&self, area: AreaIndex) -> bool {
        !self.by_area[area].is_empty()
    }

    /// The active rules that name one of these areas, in order.
    pub(super) fn rules_for(&self, areas: &[AreaIndex]) -> Box<[RuleIndex]> {
        let mut rules: Vec<RuleIndex> = areas.iter().flat_map(|&area| &self.by_area[area]).copied().collect();
        rules.sort_unstable();
        rules.into_boxed_slice()
    }

    /// These active rules with an area, together with those without one, in order.
    pub(super) fn with_global(&self, local: &[RuleIndex]) -> impl Iterator<Item = RuleIndex> {
        let mut local = local.iter().copied().peekable();
        let mut general = self.global.iter().copied().peekable();
        std::iter::from_fn(move || match (local.peek(), general.peek()) {
            (Some(one), Some(other)) if one < other => local.next(),
            (_, Some(_)) => general.next(),
            (_, None) => local.next(),
        })
    }

    /// The active rules in a zone that do not depend on the size of an island.
    pub(super) fn size_independent(&self, local: &[RuleIndex]) -> impl Iterator<Item = &Rule> {
        let rules = self.with_global(local).filter(|&rule| self.crowding_holds(rule));
        rules.map(|rule| self.rules.rule(rule)).filter(|rule| rule.people == CountRange::ANY)
    }

    /// Whether the crowding condition of a rule holds. True for a rule without one.
    pub(super) fn crowding_holds(&self, rule: RuleIndex) -> bool {
        self.crowding.holds(rule).unwrap_or(true)
    }

    /// The transports that an island may use under a rule, in order of preference.
    pub(super) fn choices(&self, rule: Option<RuleIndex>) -> impl Iterator<Item = &TransportChoice> {
        self.rules.choices(rule)
    }

    /// The settling time under a rule.
    pub(super) fn settling_of(&self, rule: Option<RuleIndex>) -> Duration {
        rule.and_then(|rule| self.rules.rule(rule).settling).unwrap_or(self.defaults.settling)
    }

    /// The size limit that a rule sets, or the default.
    pub(super) fn max_island_size(&self, rule: Option<RuleIndex>) -> u32 {
        rule.and_then(|rule| self.rules.rule(rule).island_size).unwrap_or(self.defaults.island_size)
    }

    /// The greatest leave distance that any rule or the settings define, in metres.
    pub(super) fn max_distance_m(&self) -> f32 {
        let set = self.rules.rules.iter().filter_map(|rule| rule.distances);
        set.map(|distances| distances.leave_m).fold(self.defaults.distances.leave_m, f32::max)
    }
}
