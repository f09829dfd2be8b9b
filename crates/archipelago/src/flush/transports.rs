use std::time::Duration;

use crate::{
    engine::Engine,
    event::Output,
    registry::{NO_NODE, NodeIndex},
};

/// Counts out silent nodes, and follows what the others offer.
pub(super) fn refresh(engine: &mut Engine, now: Duration) {
    if !engine.registry.expire(engine.settings.transport_timeout, now) {
        return;
    }
    seek_anew(engine);
    // While nothing is on offer the limit stays: a node that is heard again finds its islands whole.
    let Some(largest) = engine.registry.largest_room() else { return };
    let limit = largest.min(engine.settings.max_island_size);
    if std::mem::replace(&mut engine.limit, limit) != limit {
        let islands: Vec<u32> = engine.islands.numbers().collect();
        islands.into_iter().for_each(|island| engine.mark_dirty(island));
    }
}

/// Notes the islands that are no longer well where they are.
fn seek_anew(engine: &mut Engine) {
    let islands: Vec<u32> = engine.islands.numbers().collect();
    for island in islands {
        if !engine.registry.holds(engine.islands[island].node, engine.ground.size(island)) {
            seek(engine, island);
        }
    }
}

fn seek(engine: &mut Engine, island: u32) {
    if !std::mem::replace(&mut engine.islands[island].seeking, true) {
        engine.seeking.push(island);
    }
}

/// Accounts for the seats, and gives a node to each island that has none or should be on another.
pub(super) fn assign(engine: &mut Engine, outputs: &mut Vec<Output>) {
    let changed = std::mem::take(&mut engine.pending.changed);
    for &island in &changed {
        reserve(engine, island);
    }
    for &island in &changed {
        let fits = engine.registry.holds(engine.islands[island].node, engine.ground.size(island));
        engine.islands[island].changed = false;
        if engine.islands.is_inhabited(island) && !fits {
            seek(engine, island);
        }
    }
    engine.pending.changed = changed;
    let mut seeking = std::mem::take(&mut engine.seeking);
    seeking.sort_unstable_by_key(|&island| engine.islands[island].age);
    seeking.retain(|&island| {
        let seeks = engine.islands.is_inhabited(island) && !find_node(engine, island, outputs);
        engine.islands[island].seeking = seeks;
        seeks
    });
    engine.seeking = seeking;
}

/// Has the node of an island hold as many seats as the island has members.
fn reserve(engine: &mut Engine, island: u32) {
    let size = engine.ground.size(island);
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.seats_taken, size);
    engine.registry.reserve(record.node, before, size);
}

/// Whether the island is on a node that holds it, now.
fn find_node(engine: &mut Engine, island: u32, outputs: &mut Vec<Output>) -> bool {
    let size = engine.ground.size(island);
    let before = engine.islands[island].node;
    if engine.registry.holds(before, size) {
        return true;
    }
    let Some(node) = engine.registry.choose(size) else {
        // Better a node that is about to leave, or is full, than none.
        if before != NO_NODE && !engine.registry.is_present(before) {
            settle(engine, island, NO_NODE);
        }
        return false;
    };
    settle(engine, island, node);
    let ends = [before, node].map(|node| engine.registry.name(node).cloned());
    if let [Some(from), Some(to)] = ends {
        outputs.push(Output::Moved { island: engine.ids.text(engine.islands[island].serial), from, to });
    }
    true
}

fn settle(engine: &mut Engine, island: u32, node: NodeIndex) {
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.node, node);
    engine.registry.reserve(before, record.seats_taken, 0);
    engine.registry.reserve(node, 0, record.seats_taken);
    let members: Vec<u32> = engine.ground.members(island).map(|member| member.peer).collect();
    members.into_iter().for_each(|peer| engine.list(peer));
}
