//! The crowding conditions of rules: how many peers are in an area, over all islands.

use std::time::Duration;

use crate::{ids::RuleIndex, rules::Rules};

/// How often crowding conditions are checked.
const CROWDING_INTERVAL: Duration = Duration::from_secs(1);

/// The states of all rules with a crowding condition, in the order of the rules.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowding {
    rules: Vec<CrowdingRule>,
    next_check: Duration,
}

/// The state of a rule with a crowding condition.
#[derive(Debug, Clone)]
struct CrowdingRule {
    rule: RuleIndex,
    holds: bool,
    /// Since when the condition has differed from `holds`.
    since: Option<Duration>,
    /// The number of peers at the last check, if there was one.
    peers: Option<u32>,
}

impl Crowding {
    /// The states of these rules. Known states are kept, and the next check is due at once.
    pub(super) fn rebuild(&mut self, rules: &Rules) {
        let before = std::mem::take(&mut self.rules);
        let with_condition = rules.numbered().filter(|(_, rule)| rule.crowding.is_some());
        self.rules = with_condition
            .map(|(rule, _)| {
                let known = before.iter().find(|state| state.rule == rule).cloned();
                known.unwrap_or(CrowdingRule { rule, holds: false, since: None, peers: None })
            })
            .collect();
        self.next_check = Duration::ZERO;
    }

    fn find(&self, rule: RuleIndex) -> Option<&CrowdingRule> {
        let index = self.rules.binary_search_by_key(&rule, |state| state.rule).ok()?;
        Some(&self.rules[index])
    }

    /// Whether the crowding condition of a rule holds; `None` for a rule without one.
    pub(super) fn holds(&self, rule: RuleIndex) -> Option<bool> {
        self.find(rule).map(|state| state.holds)
    }

    /// The number of peers in the area of a rule with a crowding condition, at the last check.
    pub(super) fn count(&self, rule: RuleIndex) -> Option<u32> {
        self.find(rule)?.peers
    }

    /// Whether a check is due. Without any condition none ever is.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        !self.rules.is_empty() && now >= self.next_check
    }

    /// Checks all conditions. `count` returns the number of peers in the area of a rule, and `settling`
    /// its settling time. The first check of a condition takes effect at once, a later change after the
    /// settling time. Returns whether a condition changed.
    pub(super) fn check(
        &mut self,
        rules: &Rules,
        count: impl Fn(RuleIndex) -> u32,
        settling: impl Fn(RuleIndex) -> Duration,
        now: Duration,
    ) -> bool {
        self.next_check = now + CROWDING_INTERVAL;
        let mut changed = false;
        for state in &mut self.rules {
            let peers = count(state.rule);
            let holds = rules.rule(state.rule).crowding.is_none_or(|crowding| crowding.contains(peers));
            let first = state.peers.replace(peers).is_none();
            if holds == state.holds {
                state.since = None;
            } else if first || now.saturating_sub(*state.since.get_or_insert(now)) >= settling(state.rule) {
                (state.holds, state.since) = (holds, None);
                changed = true;
            }
        }
        changed
    }
}
