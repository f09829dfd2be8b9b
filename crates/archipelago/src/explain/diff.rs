//! The changes that new rules would make, found by running both sets of rules on copies of the engine.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use protocol::{IslandId, NodeName};
use serde::Serialize;

use crate::{engine::Engine, event::Input, ids::IslandIndex, rules::Rules};

/// The changes that other rules would make to the present islands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RulesDiff {
    /// Number of islands at present.
    pub islands: usize,
    /// The islands that would change in id, members, rule or node.
    pub changes: Vec<IslandChange>,
}

/// The change that other rules would make to one island.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IslandChange {
    /// Id of the present island.
    pub id: IslandId,
    /// Number of members at present.
    pub size: u32,
    /// Name of the rule that decides at present; `None`: no rule does.
    pub rule: Option<String>,
    /// Node that hosts its room at present; `None`: it waits for one.
    pub node: Option<NodeName>,
    /// The islands its members would be in, by id; more than one if the island would be split.
    pub becomes: Vec<IslandPart>,
}

/// The members of a present island that would share an island under other rules.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IslandPart {
    /// Number of members.
    pub members: u32,
    /// Id of the island that they would be in.
    pub island: IslandId,
    /// Name of the rule that would decide.
    pub rule: Option<String>,
    /// Node that would host its room.
    pub node: Option<NodeName>,
}

impl Engine {
    /// Computes the changes that these rules would make. The engine itself is not changed: both sets of rules
    /// run on a copy each, which takes twice the engine's memory.
    pub fn diff(&self, rules: Arc<Rules>, now: Duration) -> RulesDiff {
        let (mut before, mut after) = (self.clone(), self.clone());
        let mut outputs = Vec::new();
        // Setting rules, even the same ones, applies pending border crossings at once: the copy without the
        // new rules does so too, so that this does not count as a difference.
        before.settings.move_interval = Duration::ZERO;
        before.handle(Input::Rules(self.world.zones.rules().clone()), now);
        before.flush(now, &mut outputs);
        // Moves that would only be delayed by the move interval count as changes.
        after.settings.move_interval = Duration::ZERO;
        after.handle(Input::Rules(rules), now);
        after.flush(now, &mut outputs);
        let islands = before.world.islands.populated();
        let changes = islands.filter_map(|island| before.island_change(island, &after)).collect();
        RulesDiff { islands: before.islands_count(), changes }
    }

    fn island_change(&self, island: IslandIndex, after: &Self) -> Option<IslandChange> {
        let mut parts: BTreeMap<IslandId, IslandPart> = BTreeMap::new();
        for member in self.world.spatial.members(island) {
            let Some(island_after) = after.world.spatial.island_of(member.peer) else { continue };
            let record = &after.world.islands[island_after];
            let id = after.island_id(island_after);
            let part = parts.entry(id.clone()).or_insert_with(|| IslandPart {
                members: 0,
                island: id,
                rule: after.world.rule_name(record.rule.index()),
                node: after.node_name(record.node),
            });
            part.members += 1;
        }
        let record = &self.world.islands[island];
        let change = IslandChange {
            id: self.island_id(island),
            size: self.world.spatial.size(island),
            rule: self.world.rule_name(record.rule.index()),
            node: self.node_name(record.node),
            becomes: parts.into_values().collect(),
        };
        let unchanged = matches!(&change.becomes[..], [part]
            if part.island == change.id && part.node == change.node && part.rule == change.rule);
        (!unchanged).then_some(change)
    }
}

impl fmt::Display for RulesDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} islands would change", self.changes.len(), self.islands)?;
        self.changes.iter().try_for_each(|change| change.fmt(f))
    }
}

impl fmt::Display for IslandChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, size, rule, node, becomes } = self;
        write!(f, "{id}, {size} members, {}:", placement_text(rule, node))?;
        for (index, IslandPart { members, island, rule, node }) in becomes.iter().enumerate() {
            let comma = if index > 0 { ";" } else { "" };
            let count = if members == size { "all".to_owned() } else { members.to_string() };
            let location = if island == id { String::new() } else { format!(" in {island}") };
            write!(f, "{comma} {count}{location} {}", placement_text(rule, node))?;
        }
        writeln!(f)
    }
}

fn placement_text(rule: &Option<String>, node: &Option<NodeName>) -> String {
    let node = node.as_ref().map_or("waiting for a transport".to_owned(), |node| format!("on {node}"));
    let rule = rule.as_ref().map_or("no rule".to_owned(), |rule| format!("rule `{rule}`"));
    format!("{node} by {rule}")
}
