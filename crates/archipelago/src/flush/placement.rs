//! Chooses the rule that applies to an island, and the node that hosts its room.
//!
//! A required change happens at once: the node is gone, drains or can no longer hold the island, the
//! island outgrew its rule, or the owner's rules changed. A mere improvement must hold for the settling
//! time (hysteresis), and an island that moved recently is not moved for it.

use std::time::Duration;

use crate::{
    engine::Engine,
    event::Output,
    islands::RULE_UNDECIDED,
    registry::{NO_NODE, NodeIndex},
};

/// The time of the last move of an island, and the changes that are pending.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PlacementState {
    pub(crate) moved_at: Option<Duration>,
    /// The rule that would replace the current one, and since when.
    pub(crate) candidate_rule: Option<(u32, Duration)>,
    /// Since when a more preferred node has been available.
    pub(crate) better_node_since: Option<Duration>,
    /// The node before the island lost it and had none.
    pub(crate) previous_node: Option<NodeIndex>,
    /// When to evaluate the island again.
    pub(crate) recheck_at: Duration,
}

/// How often an island with a pending improvement is evaluated.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

impl PlacementState {
    /// Discards the pending changes.
    pub(crate) fn reset_candidates(&mut self) {
        (self.candidate_rule, self.better_node_since, self.recheck_at) = (None, None, Duration::ZERO);
    }

    /// The time from which the island may move for an improvement.
    pub(crate) fn cooldown_end(&self, interval: Duration) -> Duration {
        self.moved_at.map_or(Duration::ZERO, |at| at.saturating_add(interval))
    }
}

impl Engine {
    pub(crate) fn placement_state(&self, island: u32) -> PlacementState {
        self.placement.get(&island).copied().unwrap_or_default()
    }

    /// Carries the time of the last move over when two islands merge, so that the survivor does not
    /// move too soon.
    pub(crate) fn inherit_move_cooldown(&mut self, from: u32, into: u32) {
        let Some(moved_at) = self.placement_state(from).moved_at else { return };
        let state = self.placement.entry(into).or_default();
        state.moved_at = state.moved_at.max(Some(moved_at));
    }
}

/// Updates the reserved seats, and evaluates the islands that changed and the watched islands that are
/// due, or all of them if nodes, rules or crowding changed. The oldest comes first.
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

/// Reserves as many seats on the node of an island as the island has members.
fn reserve(engine: &mut Engine, island: u32) {
    let size = engine.spatial.size(island);
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.reserved_seats, size);
    engine.registry.reserve(record.node, before, size);
}

/// Applies the decision for one island, and schedules its next evaluation.
fn evaluate(engine: &mut Engine, island: u32, now: Duration, outputs: &mut Vec<Output>) {
    let mut state = engine.placement_state(island);
    let before = engine.islands[island].rule;
    let rule = choose_rule(engine, island, &mut state, now);
    engine.islands[island].rule = rule;
    match decide(engine, island) {
        Decision::Stay { best } => {
            state.better_node_since = None;
            state.recheck_at = if best { Duration::MAX } else { now + RECHECK_INTERVAL };
        }
        Decision::MoveWhenSettled(node) => {
            let since = *state.better_node_since.get_or_insert(now);
            // A rule that replaced another in this evaluation has waited for its own settling time or
            // needed none; its node need not wait again.
            let settling = if rule == before { engine.zones.settling_of(rule) } else { Duration::ZERO };
            let settled = since.saturating_add(settling);
            let due = settled.max(state.cooldown_end(engine.settings.move_interval));
            state.recheck_at = due.min(now + RECHECK_INTERVAL);
            if due <= now {
                move_island(engine, island, node, &mut state, now, outputs);
            }
        }
        Decision::MoveNow(node) => move_island(engine, island, node, &mut state, now, outputs),
        Decision::NoNode { stay } => {
            state.better_node_since = None;
            state.recheck_at = now;
            let node = engine.islands[island].node;
            if !stay && node != NO_NODE {
                state.previous_node = Some(node);
                set_node(engine, island, NO_NODE);
            }
        }
    }
    if let Some((rule, since)) = state.candidate_rule {
        state.recheck_at = state.recheck_at.min(since.saturating_add(engine.zones.settling_of(rule)));
    }
    save_state(engine, island, state, now);
}

/// Stores the placement state of an island if a change is pending or the cooldown is not over, and puts
/// the island on the watch list.
fn save_state(engine: &mut Engine, island: u32, mut state: PlacementState, now: Duration) {
    let cooldown_end = state.cooldown_end(engine.settings.move_interval);
    if cooldown_end > now {
        state.recheck_at = state.recheck_at.min(cooldown_end);
    } else {
        state.moved_at = None;
    }
    if state.recheck_at == Duration::MAX {
        engine.placement.remove(&island);
        return;
    }
    engine.placement.insert(island, state);
    if !std::mem::replace(&mut engine.islands[island].watched, true) {
        engine.watched.push(island);
    }
}

/// The rule that applies to an island from this flush on.
fn choose_rule(engine: &Engine, island: u32, state: &mut PlacementState, now: Duration) -> u32 {
    let (zone, size) = (engine.majority_zone(island), engine.spatial.size(island));
    let (before, best) = (engine.islands[island].rule, engine.zones.rule_for(zone, size));
    let capabilities = engine.spatial.capabilities(island, None);
    let at_once = before == RULE_UNDECIDED
        || (engine.crowding_changed && engine.zones.has_crowding_condition(best))
        || !engine.zones.has_large_enough_room(before, size, capabilities, &engine.registry);
    if before == best || at_once || !engine.zones.may_keep_rule(before, zone, size) {
        state.candidate_rule = None;
        return best;
    }
    let since = match state.candidate_rule {
        Some((rule, since)) if rule == best => since,
        _ => now,
    };
    if now.saturating_sub(since) >= engine.zones.settling_of(best) {
        state.candidate_rule = None;
        return best;
    }
    state.candidate_rule = Some((best, since));
    before
}

/// What happens to the node of an island.
enum Decision {
    /// The island stays on its node. `best` is false if a more preferred node lacks only seats.
    Stay { best: bool },
    /// The island can stay, but a more preferred node is available.
    MoveWhenSettled(NodeIndex),
    /// The island must move to this node.
    MoveNow(NodeIndex),
    /// No other node is available. With `stay` the island keeps its node, although that drains or is
    /// full: better than no room at all.
    NoNode { stay: bool },
}

/// Tries the transports in the order of preference and takes the first that can host the island.
fn decide(engine: &Engine, island: u32) -> Decision {
    let (size, node) = (engine.spatial.size(island), engine.islands[island].node);
    let capabilities = engine.spatial.capabilities(island, None);
    let registry = &engine.registry;
    let can_stay = registry.can_stay(node, size, capabilities);
    let rule = engine.islands[island].rule;
    let mut best = true;
    for choice in engine.zones.choices(rule) {
        if can_stay && registry.matches_choice(node, choice) {
            return Decision::Stay { best };
        }
        // Seats become free without an event; every other change that matters has all islands
        // evaluated. So only a lack of seats needs a periodic check.
        best &= !registry.is_short_of_seats_only(choice, size, capabilities);
        if let Some(other) = registry.choose(choice, size, capabilities) {
            return if can_stay { Decision::MoveWhenSettled(other) } else { Decision::MoveNow(other) };
        }
    }
    Decision::NoNode { stay: registry.is_present(node) && registry.can_join(node, capabilities) }
}

/// Moves an island to a node, and emits [`Output::Moved`] if it was on another one before.
fn move_island(
    engine: &mut Engine,
    island: u32,
    node: NodeIndex,
    state: &mut PlacementState,
    now: Duration,
    outputs: &mut Vec<Output>,
) {
    let current = engine.islands[island].node;
    // While the island had no node its members kept their connections to the node before.
    let before = state.previous_node.take().filter(|_| current == NO_NODE).unwrap_or(current);
    set_node(engine, island, node);
    (state.better_node_since, state.recheck_at) = (None, now + RECHECK_INTERVAL);
    let ends = [before, node].map(|node| engine.registry.name(node).cloned());
    if let [Some(from), Some(to)] = ends
        && from != to
    {
        state.moved_at = Some(now);
        outputs.push(Output::Moved { island: engine.ids.island_id(engine.islands[island].serial), from, to });
    }
}

/// Sets the node of an island, moves its reserved seats, and queues its members for new assignments.
fn set_node(engine: &mut Engine, island: u32, node: NodeIndex) {
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.node, node);
    engine.registry.reserve(before, record.reserved_seats, 0);
    engine.registry.reserve(node, 0, record.reserved_seats);
    let members: Vec<u32> = engine.spatial.members(island).map(|member| member.peer).collect();
    members.into_iter().for_each(|peer| engine.queue_report(peer));
}
