//! How large islands can be under the rules of a zone, with the rooms that nodes offer.

use super::active_rules::ActiveRules;
use crate::{
    ids::RuleIndex,
    rules::CountRange,
    world::{capabilities::Capabilities, nodes::Nodes},
};

/// `local` are the active rules with an area that apply in the zone.
impl ActiveRules {
    /// The largest size of an island that the rules of a zone allow: the rule that applies at that size
    /// has a large enough room, and every smaller size can be hosted as well, so that an island can
    /// grow to it. `None` if no node is on offer.
    pub(super) fn largest_island(
        &self,
        local: &[RuleIndex],
        capabilities: Capabilities,
        nodes: &Nodes,
    ) -> Option<u32> {
        let by_rule = |rule: Option<RuleIndex>| self.largest_room(rule, capabilities, nodes);
        // An island without a large enough room under its rule falls back to the default transports.
        let with_default =
            |rule: Option<RuleIndex>| by_rule(rule).max(self.largest_room(None, capabilities, nodes));
        let hosted =
            |rule: Option<RuleIndex>| with_default(rule).map(|room| room.min(self.max_island_size(rule)));
        let largest = self.largest_feasible_size(local, by_rule, hosted);
        // Peers that can join no node on offer are in islands of one.
        let lacks = largest.is_none() && self.largest_room(None, Capabilities::ALL, nodes).is_some();
        if lacks { Some(1) } else { largest }
    }

    /// The same, if every transport had unlimited rooms.
    pub(super) fn max_size_by_rules(&self, local: &[RuleIndex]) -> u32 {
        let size = |rule: Option<RuleIndex>| Some(self.max_island_size(rule));
        self.largest_feasible_size(local, size, size).unwrap_or(self.defaults.island_size)
    }

    /// The largest size for which the rule that applies has a large enough `room`, starting from 1 and
    /// going on while islands of all smaller sizes can be `hosted`. The rules of a zone are tried in
    /// order, each for all undecided sizes at once.
    fn largest_feasible_size(
        &self,
        local: &[RuleIndex],
        room: impl Fn(Option<RuleIndex>) -> Option<u32>,
        hosted: impl Fn(Option<RuleIndex>) -> Option<u32>,
    ) -> Option<u32> {
        let mut undecided = vec![CountRange { min: 1, max: u32::MAX }];
        let mut decided: Vec<(CountRange, Option<RuleIndex>)> = Vec::new();
        let rules = self.with_global(local).filter(|&rule| self.crowding_holds(rule));
        for rule in rules.map(Some).chain([None]) {
            let sizes = rule.map_or(CountRange::ANY, |rule| self.rules.rule(rule).people);
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
    pub(super) fn has_large_enough_room(
        &self,
        rule: Option<RuleIndex>,
        size: u32,
        capabilities: Capabilities,
        nodes: &Nodes,
    ) -> bool {
        self.largest_room(rule, capabilities, nodes).is_none_or(|room| room >= size)
    }

    /// The largest island that fits a room under a rule: of the transports that it names, or if none of
    /// those is on offer, of the default transports.
    fn largest_room(
        &self,
        rule: Option<RuleIndex>,
        capabilities: Capabilities,
        nodes: &Nodes,
    ) -> Option<u32> {
        let own = rule.and_then(|rule| self.rules.rule(rule).transports.as_deref());
        let max_mesh_size = self.rules.mesh_limits(rule).max_members();
        let largest = |choices: &[_]| {
            let rooms = choices.iter().map(|choice| nodes.largest_room(choice, capabilities, max_mesh_size));
            rooms.flatten().max()
        };
        let room = own.and_then(largest).or_else(|| largest(self.rules.default_transports()))?;
        Some(room.min(self.max_island_size(rule)))
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
