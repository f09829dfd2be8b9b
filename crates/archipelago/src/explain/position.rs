//! Explains which rules apply at a position.

use protocol::Position;

use super::{
    answer::{Cause, Explanation},
    facts::{PositionFacts, RuleFacts},
    rule_facts::rule_conditions,
};
use crate::{engine::Engine, ids::AreaIndex, point::Point, world::Capabilities};

impl Engine {
    pub(super) fn explain_position(&self, position: Position) -> Explanation {
        let facts = self.position_facts(position.into());
        let rule = facts.rules.iter().find(|rule| rule.matches);
        let summary = match (rule, &facts.exclusive) {
            (Some(rule), Some(area)) => {
                format!("rule `{}` is the first that applies here, in the exclusive area {area}", rule.name)
            }
            (Some(rule), None) => format!("rule `{}` is the first that applies here", rule.name),
            (None, _) => "no rule applies here".to_owned(),
        };
        let cause = if facts.exclusive.is_some() { Cause::ExclusiveRule } else { Cause::AsWanted };
        Explanation { place: Some(facts), ..Explanation::new(cause, summary) }
    }

    fn position_facts(&self, at: Point) -> PositionFacts {
        // The position may be in a zone that no peer has been in yet: it is added to a copy of the zones.
        let mut zones = self.world.zones.clone();
        let (zone, _) = zones.zone_at(at, &self.world.nodes);
        let label = |area: AreaIndex| zones.rules().area(area).label.clone();
        let rules = zones.rules_of(zone).map(|index| (index, zones.rules().rule(index)));
        let record = zones.zone(zone);
        let parcel = Position::new(at.x, 0.0, at.z).parcel();
        PositionFacts {
            at: [at.x, at.z],
            parcel: [parcel.x, parcel.y],
            areas: record.areas.iter().map(|&area| label(area)).collect(),
            exclusive: record.enclosure.map(label),
            join_distance_m: record.distances.join_m,
            leave_distance_m: record.distances.leave_m,
            limit: zones.size_limit(zone, Capabilities::ALL),
            rules: rules
                .map(|(index, rule)| RuleFacts {
                    name: rule.name.clone(),
                    matches: zones.crowding_holds(index),
                    reason: rule_conditions(rule),
                })
                .collect(),
        }
    }
}
