use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use protocol::{IslandId, NodeName};
use serde::Serialize;

use crate::{engine::Engine, event::Input, rules::Rules, slab::NONE};

/// What other rules would change, of the islands that there are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RulesDiff {
    /// How many islands there are.
    pub islands: usize,
    /// Those that would not go on as they are.
    pub changes: Vec<IslandChange>,
}

/// What would become of an island.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IslandChange {
    /// Which.
    pub id: IslandId,
    /// How many members it has.
    pub size: u32,
    /// The rule that decides for it.
    pub rule: Option<String>,
    /// The node that holds its room.
    pub node: Option<NodeName>,
    /// Where its members would be; more than one where they would be parted.
    pub becomes: Vec<IslandPart>,
}

/// Members of one island who would be together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IslandPart {
    /// How many.
    pub members: u32,
    /// Their island.
    pub island: IslandId,
    /// The rule that would decide for it.
    pub rule: Option<String>,
    /// The node that would hold its room.
    pub node: Option<NodeName>,
}

impl Engine {
    /// What would change if these were the rules. Nothing does: it is tried on copies, which takes
    /// as much memory as the engine has, twice.
    pub fn diff(&self, rules: Arc<Rules>, now: Duration) -> RulesDiff {
        let (mut before, mut after) = (self.clone(), self.clone());
        let mut outputs = Vec::new();
        // Rules, even the same, count everybody to where they stand: that is no difference.
        before.settings.move_interval = Duration::ZERO;
        before.handle(Input::Rules(self.zones.rules.clone()), now);
        before.flush(now, &mut outputs);
        // What has to wait would come all the same.
        after.settings.move_interval = Duration::ZERO;
        after.handle(Input::Rules(rules), now);
        after.flush(now, &mut outputs);
        let changes =
            before.islands.populated().filter_map(|island| before.island_change(island, &after)).collect();
        RulesDiff { islands: before.islands_count(), changes }
    }

    fn island_change(&self, island: u32, after: &Self) -> Option<IslandChange> {
        let mut parts: BTreeMap<IslandId, IslandPart> = BTreeMap::new();
        for member in self.spatial.members(island) {
            let place = after.spatial.island_of(member.peer);
            if place == NONE {
                continue;
            }
            let record = &after.islands[place];
            let id = after.ids.island_id(record.serial);
            let part = parts.entry(id.clone()).or_insert_with(|| IslandPart {
                members: 0,
                island: id,
                rule: after.rule_name(record.rule),
                node: after.registry.name(record.node).cloned(),
            });
            part.members += 1;
        }
        let record = &self.islands[island];
        let change = IslandChange {
            id: self.ids.island_id(record.serial),
            size: self.spatial.size(island),
            rule: self.rule_name(record.rule),
            node: self.registry.name(record.node).cloned(),
            becomes: parts.into_values().collect(),
        };
        let stays = matches!(&change.becomes[..], [part]
            if part.island == change.id && part.node == change.node && part.rule == change.rule);
        (!stays).then_some(change)
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
        write!(f, "{id}, {size} people, {}:", placement_text(rule, node))?;
        for (index, IslandPart { members, island, rule, node }) in becomes.iter().enumerate() {
            let comma = if index > 0 { ";" } else { "" };
            let who = if members == size { "all".to_owned() } else { members.to_string() };
            let there = if island == id { String::new() } else { format!(" in {island}") };
            write!(f, "{comma} {who}{there} {}", placement_text(rule, node))?;
        }
        writeln!(f)
    }
}

fn placement_text(rule: &Option<String>, node: &Option<NodeName>) -> String {
    let node = node.as_ref().map_or("waiting for a transport".to_owned(), |node| format!("on {node}"));
    let rule = rule.as_ref().map_or("no rule".to_owned(), |rule| format!("rule `{rule}`"));
    format!("{node} by {rule}")
}
