use std::time::Duration;

use protocol::IslandId;

use super::{Cause, Explanation, IslandFacts, NodeCandidate, facts::seconds};
use crate::{engine::Engine, registry::NodeRejection};

impl Engine {
    pub(super) fn explain_island(&self, id: &IslandId, now: Duration) -> Explanation {
        let island = self.ids.serial(id.as_str()).and_then(|serial| self.islands.find(serial));
        let Some(island) = island.filter(|&island| self.islands.is_populated(island)) else {
            return Explanation::new(Cause::Unknown, format!("there is no island {id}"));
        };
        let facts = self.island_facts(island, now);
        let (cause, summary) = self.placement_cause(island, &facts, now);
        Explanation { islands: vec![facts], ..Explanation::new(cause, summary) }
    }

    /// Why an island is on its node, or on none.
    pub(super) fn placement_cause(&self, island: u32, facts: &IslandFacts, now: Duration) -> (Cause, String) {
        let IslandFacts { id, candidates, .. } = facts;
        let by =
            facts.rule.as_ref().map_or("no rule decides".to_owned(), |rule| format!("rule `{rule}` decides"));
        let current = candidates.iter().position(|it| it.node.is_some() && it.node == facts.node);
        let place = match &facts.node {
            Some(node) => format!("{id} is on {node}"),
            None => format!("{id} waits for a transport"),
        };
        if let Some((rule, due)) = &facts.next_rule {
            let next = rule.as_ref().map_or("no rule".to_owned(), |rule| format!("rule `{rule}`"));
            return (
                Cause::Settling,
                format!("{place}: {by}, and {next} will when that has lasted, in {due:.1} s"),
            );
        }
        // What it is on may not be able to hold it, and still be better than nothing.
        if let Some(NodeCandidate { unfit: Some(unfit), reason, .. }) =
            current.map(|present| &candidates[present])
        {
            return (
                cause_of(Some(unfit)),
                format!("{place}, which is {reason}, as nothing else is to be had"),
            );
        }
        let before = &candidates[..current.unwrap_or(candidates.len())];
        if let Some(better) =
            before.iter().find(|candidate| candidate.fits && !is_same_choice(candidate, candidates, current))
        {
            let node = better.node.as_ref().map(ToString::to_string).unwrap_or_default();
            if facts.node.is_none() {
                return (Cause::NextFlush, format!("{place}: the next flush puts it on {node}"));
            }
            let pace = self.placement_state(island);
            let settled = pace
                .better_node_since
                .unwrap_or(now)
                .saturating_add(self.zones.settling_of(self.islands[island].rule));
            let due = settled.max(pace.cooldown_end(self.settings.move_interval));
            let left = seconds(due.saturating_sub(now));
            return (
                Cause::Settling,
                format!("{place}: {by}, and it goes to {node} when that has lasted, in {left:.1} s"),
            );
        }
        // Without a rule nobody asked for a kind of which there is none.
        let is_unused_default =
            |it: &NodeCandidate| facts.rule.is_none() && facts.node.is_some() && it.node.is_none();
        let others = before
            .iter()
            .filter(|it| !it.fits && !is_unused_default(it) && !is_same_choice(it, candidates, current));
        let nearest_miss = others.rev().max_by_key(nearness);
        match nearest_miss {
            Some(first) => {
                let wanted = first.node.as_ref().map_or(first.choice.clone(), ToString::to_string);
                let text = format!("{place}: {by}, and {wanted} is no place for it: {}", first.reason);
                (cause_of(first.unfit.as_ref()), text)
            }
            None if facts.node.is_none() => {
                (Cause::NextFlush, format!("{place}: the next flush finds it one"))
            }
            None => (Cause::AsWanted, format!("{place}: {by}, and wants no other")),
        }
    }
}

/// Nodes of one choice are as good as each other: an island stays where it is.
fn is_same_choice(candidate: &NodeCandidate, candidates: &[NodeCandidate], present: Option<usize>) -> bool {
    present.is_some_and(|present| candidates[present].choice == candidate.choice)
}

/// Of several that are no place for an island, the one that came nearest to it says most.
fn nearness(candidate: &&NodeCandidate) -> (bool, u8) {
    let score = match candidate.unfit {
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
        Some(NodeRejection::RoomTooSmall) => Cause::Outgrown,
        Some(NodeRejection::MissingCapability) => Cause::Capability,
        Some(NodeRejection::Draining) => Cause::Draining,
        Some(NodeRejection::Gone) => Cause::NodeDead,
        None => Cause::NoTransport,
    }
}
