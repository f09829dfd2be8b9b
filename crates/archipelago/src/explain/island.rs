//! Explains why an island is on its node, or on none.

use std::time::Duration;

use protocol::IslandId;

use super::{
    answer::{Cause, Explanation},
    facts::{IslandFacts, NodeCandidate, seconds},
};
use crate::{engine::Engine, event::RoomFailure, ids::IslandIndex, world::NodeRejection};

impl Engine {
    pub(super) fn explain_island(&self, id: &IslandId, now: Duration) -> Explanation {
        let island = self.world.islands.find_by_id(id.as_str());
        let Some(island) = island.filter(|&island| self.world.islands.is_populated(island)) else {
            return Explanation::new(Cause::Unknown, format!("there is no island {id}"));
        };
        let facts = self.island_facts(island, now);
        let (cause, summary) = self.placement_cause(island, &facts, now);
        Explanation { islands: vec![facts], ..Explanation::new(cause, summary) }
    }

    pub(super) fn island_facts(&self, island: IslandIndex, now: Duration) -> IslandFacts {
        let record = &self.world.islands[island];
        let size = self.world.spatial.size(island);
        let zone = self.world.majority_zone(island);
        let placement = self.world.islands.placements.state(island);
        IslandFacts {
            id: self.island_id(island),
            size,
            limit: self.world.size_limit(island),
            areas: self.area_labels(zone),
            can_join: self.capability_names(self.world.spatial.capabilities(island, None)),
            rule: self.world.rule_name(record.rule.index()),
            rules: self.rules_tried(zone, size),
            next_rule: placement.candidate_rule.map(|(rule, since)| {
                let due = since.saturating_add(self.world.zones.settling_of(rule));
                (self.world.rule_name(rule), seconds(due.saturating_sub(now)))
            }),
            node: self.node_name(record.node),
            candidates: self.candidates(island, now),
            better_for_s: placement.better_node_since.map(|since| seconds(now.saturating_sub(since))),
            moved_s_ago: placement.moved_at.map(|at| seconds(now.saturating_sub(at))),
        }
    }

    /// The cause of an island's placement, and a sentence. `facts` are those of the island.
    pub(super) fn placement_cause(
        &self,
        island: IslandIndex,
        facts: &IslandFacts,
        now: Duration,
    ) -> (Cause, String) {
        let IslandFacts { id, candidates, .. } = facts;
        let by =
            facts.rule.as_ref().map_or("no rule decides".to_owned(), |rule| format!("rule `{rule}` decides"));
        let current_index =
            candidates.iter().position(|candidate| candidate.node.is_some() && candidate.node == facts.node);
        let location = match &facts.node {
            Some(node) => format!("{id} is on {node}"),
            None => format!("{id} waits for a transport"),
        };
        if let Some((rule, due)) = &facts.next_rule {
            let next = rule.as_ref().map_or("no rule".to_owned(), |rule| format!("rule `{rule}`"));
            return (
                Cause::Settling,
                format!("{location}: {by}; {next} decides in {due:.1} s if nothing changes"),
            );
        }
        // The node may not be able to host the island, which stays because no other node can.
        if let Some(NodeCandidate { unfit: Some(unfit), reason, .. }) =
            current_index.map(|present| &candidates[present])
        {
            return (
                cause_of(Some(unfit)),
                format!("{location} although it does not fit ({reason}): no other node fits"),
            );
        }
        let preferred = &candidates[..current_index.unwrap_or(candidates.len())];
        if let Some(better) = preferred
            .iter()
            .find(|candidate| candidate.fits && !is_same_choice(candidate, candidates, current_index))
        {
            let node = better.node.as_ref().map(ToString::to_string).unwrap_or_default();
            if facts.node.is_none() {
                return (Cause::NextFlush, format!("{location}: the next flush assigns it to {node}"));
            }
            let left = self.seconds_until_move(island, now);
            return (
                Cause::Settling,
                format!("{location}: {by}; it moves to {node} in {left:.1} s if nothing changes"),
            );
        }
        // A default transport of which no node exists was not requested by any rule: it explains nothing.
        let is_unused_default = |candidate: &NodeCandidate| {
            facts.rule.is_none() && facts.node.is_some() && candidate.node.is_none()
        };
        let unfit_before = preferred.iter().filter(|candidate| {
            !candidate.fits
                && !is_unused_default(candidate)
                && !is_same_choice(candidate, candidates, current_index)
        });
        let nearest_miss = unfit_before.rev().max_by_key(nearness);
        match nearest_miss {
            Some(first) => {
                let wanted = first.node.as_ref().map_or(first.choice.clone(), ToString::to_string);
                let text = format!("{location}: {by}; {wanted} does not fit: {}", first.reason);
                (cause_of(first.unfit.as_ref()), text)
            }
            None if facts.node.is_none() => {
                (Cause::NextFlush, format!("{location}: the next flush assigns one"))
            }
            None => (Cause::AsWanted, format!("{location}: {by}; no other node is preferred")),
        }
    }

    /// The seconds until an island may move to a better node.
    fn seconds_until_move(&self, island: IslandIndex, now: Duration) -> f64 {
        let placement = self.world.islands.placements.state(island);
        let settling = self.world.zones.settling_of(self.world.islands[island].rule.index());
        let settled = placement.better_node_since.unwrap_or(now).saturating_add(settling);
        let due = settled.max(placement.cooldown_end(self.settings.move_interval));
        seconds(due.saturating_sub(now))
    }
}

/// Nodes of the same choice are equally good: an island does not move between them.
fn is_same_choice(candidate: &NodeCandidate, candidates: &[NodeCandidate], present: Option<usize>) -> bool {
    present.is_some_and(|present| candidates[present].choice == candidate.choice)
}

/// Orders nodes that do not fit by how well they explain the placement: nodes that the rule names come first,
/// then those that failed the latest check.
fn nearness(candidate: &&NodeCandidate) -> (bool, u8) {
    let score = match candidate.unfit {
        Some(NodeRejection::RoomFailed { .. }) => 6,
        Some(NodeRejection::Full) => 5,
        Some(NodeRejection::RoomTooSmall) => 4,
        Some(NodeRejection::MissingCapability) => 3,
        Some(NodeRejection::Draining) => 2,
        Some(NodeRejection::Gone) => 1,
        None => 0,
    };
    (candidate.by_rule, score)
}

fn cause_of(unfit: Option<&NodeRejection>) -> Cause {
    match unfit {
        Some(NodeRejection::Full) => Cause::NoSeats,
        Some(NodeRejection::RoomFailed { failure: RoomFailure::NotOpened, .. }) => Cause::NoRoom,
        Some(NodeRejection::RoomFailed { failure: RoomFailure::Mesh(_), .. }) => Cause::MeshFailed,
        Some(NodeRejection::RoomTooSmall) => Cause::Outgrown,
        Some(NodeRejection::MissingCapability) => Cause::Capability,
        Some(NodeRejection::Draining) => Cause::Draining,
        Some(NodeRejection::Gone) => Cause::NodeDead,
        None => Cause::NoTransport,
    }
}
