//! Which rule decides for an island, and which node holds its room.
//!
//! What has to change changes at once: an island whose node is gone, drains, or no longer holds it,
//! which outgrew its rule, or whose owner wrote another one. What would merely be better must stay
//! better for the settling time, and an island that has just been moved stays for a while.

use std::time::Duration;

use crate::{
    engine::Engine,
    event::Output,
    islands::RULE_UNDECIDED,
    registry::{NO_NODE, NodeIndex},
};

/// When an island last changed, and what is about to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PlacementState {
    pub(crate) moved_at: Option<Duration>,
    /// The rule that has been the better one, and since when.
    pub(crate) candidate_rule: Option<(u32, Duration)>,
    /// Since when there has been a better node.
    pub(crate) better_node_since: Option<Duration>,
    /// The node that it was on before it had none.
    pub(crate) previous_node: Option<NodeIndex>,
    /// When to look at it again.
    pub(crate) recheck_at: Duration,
}

/// How often it is seen whether an island could have what it would rather have.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

impl PlacementState {
    /// Nothing is about to change any more.
    pub(crate) fn reset_candidates(&mut self) {
        (self.candidate_rule, self.better_node_since, self.recheck_at) = (None, None, Duration::ZERO);
    }

    /// From when on it may be moved for something better.
    pub(crate) fn cooldown_end(&self, interval: Duration) -> Duration {
        self.moved_at.map_or(Duration::ZERO, |at| at.saturating_add(interval))
    }
}

impl Engine {
    pub(crate) fn placement_state(&self, island: u32) -> PlacementState {
        self.placement.get(&island).copied().unwrap_or_default()
    }

    /// Two islands become one: whoever was moved lately stays for a while.
    pub(crate) fn inherit_move_cooldown(&mut self, from: u32, into: u32) {
        let Some(moved_at) = self.placement_state(from).moved_at else { return };
        let pace = self.placement.entry(into).or_default();
        pace.moved_at = pace.moved_at.max(Some(moved_at));
    }
}

/// Accounts for the seats, and judges the islands that changed, that are watched, or if there is
/// reason to, all of them, the oldest first.
pub(super) fn run(engine: &mut Engine, now: Duration, outputs: &mut Vec<Output>) {
    let mut islands = engine.pending.changed.clone();
    for &island in &islands {
        reserve(engine, island);
        engine.islands[island].members_changed = false;
    }
    if std::mem::take(&mut engine.reevaluate_all) {
        islands = engine.islands.populated().collect();
    }
    let mut watched = std::mem::take(&mut engine.watched);
    watched.retain(|&island| {
        let due = engine.placement_state(island).recheck_at <= now;
        if due {
            engine.islands[island].watched = false;
            islands.push(island);
        }
        !due
    });
    engine.watched = watched;
    islands.retain(|&island| engine.islands.is_populated(island));
    islands.sort_unstable_by_key(|&island| engine.islands[island].age);
    islands.dedup();
    for island in islands {
        evaluate(engine, island, now, outputs);
    }
}

/// Has the node of an island hold as many seats as the island has members.
fn reserve(engine: &mut Engine, island: u32) {
    let size = engine.spatial.size(island);
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.reserved_seats, size);
    engine.registry.reserve(record.node, before, size);
}

fn evaluate(engine: &mut Engine, island: u32, now: Duration, outputs: &mut Vec<Output>) {
    let mut pace = engine.placement_state(island);
    let before = engine.islands[island].rule;
    let rule = choose_rule(engine, island, &mut pace, now);
    engine.islands[island].rule = rule;
    match decide(engine, island) {
        Decision::Stay { best } => {
            pace.better_node_since = None;
            pace.recheck_at = if best { Duration::MAX } else { now + RECHECK_INTERVAL };
        }
        Decision::MoveWhenSettled(node) => {
            let since = *pace.better_node_since.get_or_insert(now);
            // A rule that has just come to decide has settled by itself, or need not.
            let settling = if rule == before { engine.zones.settling_of(rule) } else { Duration::ZERO };
            let settled = since.saturating_add(settling);
            let due = settled.max(pace.cooldown_end(engine.settings.move_interval));
            pace.recheck_at = due.min(now + RECHECK_INTERVAL);
            if due <= now {
                move_island(engine, island, node, &mut pace, now, outputs);
            }
        }
        Decision::MoveNow(node) => move_island(engine, island, node, &mut pace, now, outputs),
        Decision::NoNode { stay } => {
            pace.better_node_since = None;
            pace.recheck_at = now;
            let node = engine.islands[island].node;
            if !stay && node != NO_NODE {
                pace.previous_node = Some(node);
                set_node(engine, island, NO_NODE);
            }
        }
    }
    if let Some((rule, since)) = pace.candidate_rule {
        pace.recheck_at = pace.recheck_at.min(since.saturating_add(engine.zones.settling_of(rule)));
    }
    save_state(engine, island, pace, now);
}

/// Keeps what has to be known of an island next time, and has it looked at then.
fn save_state(engine: &mut Engine, island: u32, mut pace: PlacementState, now: Duration) {
    let rested_at = pace.cooldown_end(engine.settings.move_interval);
    if rested_at > now {
        pace.recheck_at = pace.recheck_at.min(rested_at);
    } else {
        pace.moved_at = None;
    }
    if pace.recheck_at == Duration::MAX {
        engine.placement.remove(&island);
        return;
    }
    engine.placement.insert(island, pace);
    if !std::mem::replace(&mut engine.islands[island].watched, true) {
        engine.watched.push(island);
    }
}

/// The rule that decides for an island from now on.
fn choose_rule(engine: &Engine, island: u32, pace: &mut PlacementState, now: Duration) -> u32 {
    let (zone, size) = (engine.majority_zone(island), engine.spatial.size(island));
    let (before, best) = (engine.islands[island].rule, engine.zones.rule_for(zone, size));
    let capabilities = engine.spatial.capabilities(island, None);
    let at_once = before == RULE_UNDECIDED
        || (engine.crowding_changed && engine.zones.has_crowding_condition(best))
        || !engine.zones.has_large_enough_room(before, size, capabilities, &engine.registry);
    if before == best || at_once || !engine.zones.may_keep_rule(before, zone, size) {
        pace.candidate_rule = None;
        return best;
    }
    let since = match pace.candidate_rule {
        Some((rule, since)) if rule == best => since,
        _ => now,
    };
    if now.saturating_sub(since) >= engine.zones.settling_of(best) {
        pace.candidate_rule = None;
        return best;
    }
    pace.candidate_rule = Some((best, since));
    before
}

/// What is to become of an island.
enum Decision {
    /// It stays where it is. It is the best unless only seats were missing elsewhere.
    Stay { best: bool },
    /// It can stay, but its rule would rather have it there.
    MoveWhenSettled(NodeIndex),
    /// It must go there.
    MoveNow(NodeIndex),
    /// There is no other node for it. Better one that is about to leave, or is full, than none.
    NoNode { stay: bool },
}

fn decide(engine: &Engine, island: u32) -> Decision {
    let (size, node) = (engine.spatial.size(island), engine.islands[island].node);
    let capabilities = engine.spatial.capabilities(island, None);
    let registry = &engine.registry;
    let holds = registry.can_stay(node, size, capabilities);
    let rule = engine.islands[island].rule;
    let mut best = true;
    for choice in engine.zones.choices(rule) {
        if holds && registry.matches_choice(node, choice) {
            return Decision::Stay { best };
        }
        // Seats come and go unannounced; all else that may change has every island judged.
        best &= !registry.is_short_of_seats_only(choice, size, capabilities);
        if let Some(other) = registry.choose(choice, size, capabilities) {
            return if holds { Decision::MoveWhenSettled(other) } else { Decision::MoveNow(other) };
        }
    }
    Decision::NoNode { stay: registry.is_present(node) && registry.can_join(node, capabilities) }
}

fn move_island(
    engine: &mut Engine,
    island: u32,
    node: NodeIndex,
    pace: &mut PlacementState,
    now: Duration,
    outputs: &mut Vec<Output>,
) {
    let present = engine.islands[island].node;
    // While it waited its members kept their places on the node before.
    let before = pace.previous_node.take().filter(|_| present == NO_NODE).unwrap_or(present);
    set_node(engine, island, node);
    (pace.better_node_since, pace.recheck_at) = (None, now + RECHECK_INTERVAL);
    let ends = [before, node].map(|node| engine.registry.name(node).cloned());
    if let [Some(from), Some(to)] = ends
        && from != to
    {
        pace.moved_at = Some(now);
        outputs.push(Output::Moved { island: engine.ids.island_id(engine.islands[island].serial), from, to });
    }
}

fn set_node(engine: &mut Engine, island: u32, node: NodeIndex) {
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.node, node);
    engine.registry.reserve(before, record.reserved_seats, 0);
    engine.registry.reserve(node, 0, record.reserved_seats);
    let members: Vec<u32> = engine.spatial.members(island).map(|member| member.peer).collect();
    members.into_iter().for_each(|peer| engine.queue_report(peer));
}
