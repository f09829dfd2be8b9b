use std::time::Duration;

use protocol::IslandId;

use super::{Candidate, Cause, Explanation, IslandFacts, facts::seconds};
use crate::{engine::Engine, registry::Unfit};

impl Engine {
    pub(super) fn explain_island(&self, id: &IslandId, now: Duration) -> Explanation {
        let island = self.ids.serial(id.as_str()).and_then(|serial| self.islands.find(serial));
        let Some(island) = island.filter(|&island| self.islands.is_inhabited(island)) else {
            return Explanation::new(Cause::Unknown, format!("there is no island {id}"));
        };
        let facts = self.island_facts(island, now);
        let (cause, summary) = self.why_there(island, &facts, now);
        Explanation { islands: vec![facts], ..Explanation::new(cause, summary) }
    }

    /// Why an island is on its node, or on none.
    pub(super) fn why_there(&self, island: u32, facts: &IslandFacts, now: Duration) -> (Cause, String) {
        let IslandFacts { id, candidates, .. } = facts;
        let by =
            facts.rule.as_ref().map_or("no rule decides".to_owned(), |rule| format!("rule `{rule}` decides"));
        let present = candidates.iter().position(|it| it.node.is_some() && it.node == facts.node);
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
        if let Some(Candidate { unfit: Some(unfit), reason, .. }) =
            present.map(|present| &candidates[present])
        {
            return (
                cause_of(Some(unfit)),
                format!("{place}, which is {reason}, as nothing else is to be had"),
            );
        }
        let before = &candidates[..present.unwrap_or(candidates.len())];
        if let Some(better) =
            before.iter().find(|candidate| candidate.fits && !same(candidate, candidates, present))
        {
            let node = better.node.as_ref().map(ToString::to_string).unwrap_or_default();
            if facts.node.is_none() {
                return (Cause::NextFlush, format!("{place}: the next flush puts it on {node}"));
            }
            let pace = self.pace(island);
            let settled =
                pace.better.unwrap_or(now).saturating_add(self.zones.settling_of(self.islands[island].rule));
            let due = settled.max(pace.rested_at(self.settings.move_interval));
            let left = seconds(due.saturating_sub(now));
            return (
                Cause::Settling,
                format!("{place}: {by}, and it goes to {node} when that has lasted, in {left:.1} s"),
            );
        }
        // Without a rule nobody asked for a kind of which there is none.
        let unasked = |it: &Candidate| facts.rule.is_none() && facts.node.is_some() && it.node.is_none();
        let others = before.iter().filter(|it| !it.fits && !unasked(it) && !same(it, candidates, present));
        let telling = others.rev().max_by_key(rank);
        match telling {
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
fn same(candidate: &Candidate, candidates: &[Candidate], present: Option<usize>) -> bool {
    present.is_some_and(|present| candidates[present].choice == candidate.choice)
}

/// Of several that are no place for an island, the one that came nearest to it says most.
fn rank(candidate: &&Candidate) -> (bool, u8) {
    let nearness = match candidate.unfit {
        Some(Unfit::Full) => 5,
        Some(Unfit::Small) => 4,
        Some(Unfit::Lacking) => 3,
        Some(Unfit::Draining) => 2,
        Some(Unfit::Gone) => 1,
        None => 0,
    };
    (candidate.by_rule, nearness)
}

fn cause_of(unfit: Option<&Unfit>) -> Cause {
    match unfit {
        Some(Unfit::Full) => Cause::NoSeats,
        Some(Unfit::Small) => Cause::Outgrown,
        Some(Unfit::Lacking) => Cause::Capability,
        Some(Unfit::Draining) => Cause::Draining,
        Some(Unfit::Gone) => Cause::NodeDead,
        None => Cause::NoTransport,
    }
}
