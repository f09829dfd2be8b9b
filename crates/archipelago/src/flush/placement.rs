//! Chooses the rule that applies to an island, and the node that hosts its room.
//!
//! A required change happens at once: the node is gone, drains or can no longer hold the island, the
//! island outgrew its rule, or the owner's rules changed. A mere improvement must hold for the settling
//! time (hysteresis), and an island that moved recently is not moved for it.

use std::time::Duration;

use crate::{
    event::Output,
    ids::{IslandIndex, NodeIndex, PeerIndex, RuleIndex},
    world::{Demand, IslandRule, PlacementState, World},
};

/// How often an island with a pending improvement is evaluated.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Updates the reserved seats, and evaluates the islands that changed and the watched islands that are
/// due, or all of them if nodes, rules or crowding changed. The oldest comes first.
///
/// `move_interval` is the setting of that name.
pub(super) fn run(world: &mut World, move_interval: Duration, now: Duration, outputs: &mut Vec<Output>) {
    let mut islands = world.changes.changed.clone();
    for &island in &islands {
        reserve(world, island);
        world.islands[island].members_changed = false;
    }
    if std::mem::take(&mut world.changes.invalidated.placements) {
        islands = world.islands.populated().collect();
    }
    let mut watched = std::mem::take(&mut world.islands.placements.watched);
    watched.retain(|&island| {
        let due = world.islands.placements.state(island).recheck_at <= now;
        if due {
            world.islands[island].watched = false;
            islands.push(island);
        }
        !due
    });
    world.islands.placements.watched = watched;
    islands.retain(|&island| world.islands.is_populated(island));
    islands.sort_unstable_by_key(|&island| world.islands[island].age);
    islands.dedup();
    let mut placement = Placement { world, move_interval, now, outputs };
    islands.into_iter().for_each(|island| placement.evaluate(island));
}

/// Reserves as many seats on the node of an island as the island has members.
fn reserve(world: &mut World, island: IslandIndex) {
    let size = world.spatial.size(island);
    let record = &mut world.islands[island];
    let before = std::mem::replace(&mut record.reserved_seats, size);
    if let Some(node) = record.node {
        world.nodes.reserve(node, before, size);
    }
}

/// The evaluation of islands in one flush.
struct Placement<'a> {
    world: &'a mut World,
    move_interval: Duration,
    now: Duration,
    outputs: &'a mut Vec<Output>,
}

impl Placement<'_> {
    /// Applies the decision for one island, and schedules its next evaluation.
    fn evaluate(&mut self, island: IslandIndex) {
        let now = self.now;
        let mut state = self.world.islands.placements.state(island);
        let before = self.world.islands[island].rule;
        let rule = choose_rule(self.world, island, &mut state, now);
        self.world.islands[island].rule = IslandRule::decided(rule);
        self.report_media(island);
        match decide(self.world, island) {
            Decision::Stay { best } => {
                state.better_node_since = None;
                state.recheck_at = if best { Duration::MAX } else { now + RECHECK_INTERVAL };
            }
            Decision::MoveWhenSettled(node) => {
                let since = *state.better_node_since.get_or_insert(now);
                // A rule that replaced another in this evaluation has waited for its own settling time or
                // needed none; its node need not wait again.
                let is_same_rule = IslandRule::decided(rule) == before;
                let settling = if is_same_rule { self.world.zones.settling_of(rule) } else { Duration::ZERO };
                let settled = since.saturating_add(settling);
                let due = settled.max(state.cooldown_end(self.move_interval));
                state.recheck_at = due.min(now + RECHECK_INTERVAL);
                if due <= now {
                    self.move_island(island, node, &mut state);
                }
            }
            Decision::MoveNow(node) => self.move_island(island, node, &mut state),
            Decision::NoNode { stay } => {
                state.better_node_since = None;
                state.recheck_at = now;
                let node = self.world.islands[island].node;
                if !stay && node.is_some() {
                    state.previous_node = node;
                    set_node(self.world, island, None);
                }
            }
        }
        if let Some((rule, since)) = state.candidate_rule {
            let due = since.saturating_add(self.world.zones.settling_of(rule));
            state.recheck_at = state.recheck_at.min(due);
        }
        self.save_state(island, state);
    }

    /// Emits the grants of an island if they changed. Nothing else depends on them.
    fn report_media(&mut self, island: IslandIndex) {
        let media = self.world.media(island);
        let before = self.world.islands[island].reported_media.replace(media);
        if before.is_some_and(|before| before != media)
            && let Some(island) = self.world.islands.id(island)
        {
            self.outputs.push(Output::MediaChanged { island, media });
        }
    }

    /// Stores the placement state of an island if a change is pending or the cooldown is not over, and
    /// puts the island on the watch list.
    fn save_state(&mut self, island: IslandIndex, mut state: PlacementState) {
        let cooldown_end = state.cooldown_end(self.move_interval);
        if cooldown_end > self.now {
            state.recheck_at = state.recheck_at.min(cooldown_end);
        } else {
            state.moved_at = None;
        }
        let islands = &mut self.world.islands;
        if state.recheck_at == Duration::MAX {
            islands.placements.forget(island);
            return;
        }
        islands.placements.set_state(island, state);
        if !std::mem::replace(&mut islands[island].watched, true) {
            islands.placements.watched.push(island);
        }
    }

    /// Moves an island to a node, and emits [`Output::Moved`] if it was on another one before.
    fn move_island(&mut self, island: IslandIndex, node: NodeIndex, state: &mut PlacementState) {
        let current = self.world.islands[island].node;
        // While the island had no node its members kept their connections to the node before.
        let before = current.or(state.previous_node);
        state.previous_node = None;
        set_node(self.world, island, Some(node));
        (state.better_node_since, state.recheck_at) = (None, self.now + RECHECK_INTERVAL);
        if let Some(before) = before.filter(|&before| before != node)
            && let Some(id) = self.world.islands.id(island)
        {
            state.moved_at = Some(self.now);
            let [from, to] = [before, node].map(|node| self.world.nodes.name(node).clone());
            // The membership of this flush is final by now.
            let members = self.world.members(island).map(|(peer, _)| peer).collect();
            self.outputs.push(Output::Moved { island: id, from, to, members });
        }
    }
}

/// The rule that applies to an island from this flush on.
fn choose_rule(
    world: &World,
    island: IslandIndex,
    state: &mut PlacementState,
    now: Duration,
) -> Option<RuleIndex> {
    let Demand { size, capabilities, .. } = world.demand(island);
    let zone = world.majority_zone(island);
    let best = world.zones.rule_for(zone, size);
    let may_keep = |before: Option<RuleIndex>| {
        let at_once = (world.changes.invalidated.crowding && world.zones.has_crowding_condition(best))
            || !world.zones.has_large_enough_room(before, size, capabilities, &world.nodes);
        before != best && !at_once && world.zones.may_keep_rule(before, zone, size)
    };
    let rule = world.islands[island].rule;
    let before = rule.index();
    if !rule.is_decided() || !may_keep(before) {
        state.candidate_rule = None;
        return best;
    }
    let since = match state.candidate_rule {
        Some((rule, since)) if rule == best => since,
        _ => now,
    };
    if now.saturating_sub(since) >= world.zones.settling_of(best) {
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
fn decide(world: &World, island: IslandIndex) -> Decision {
    let (demand, nodes) = (world.demand(island), &world.nodes);
    let node = world.islands[island].node;
    let present = node.filter(|&node| nodes.can_stay(node, &demand));
    let mut best = true;
    for choice in world.zones.choices(world.islands[island].rule.index()) {
        if present.is_some_and(|node| nodes.matches_choice(node, choice)) {
            return Decision::Stay { best };
        }
        // Seats become free without an event; every other change that matters has all islands
        // evaluated. So only a lack of seats needs a periodic check.
        best &= !nodes.is_short_of_seats_only(choice, &demand);
        if let Some(other) = nodes.choose(choice, &demand) {
            let can_stay = present.is_some();
            return if can_stay { Decision::MoveWhenSettled(other) } else { Decision::MoveNow(other) };
        }
    }
    let can_remain = |node| nodes.is_present(node) && nodes.can_join(node, demand.capabilities);
    Decision::NoNode { stay: node.is_some_and(can_remain) }
}

/// Sets the node of an island, moves its reserved seats, and queues its members for new assignments.
fn set_node(world: &mut World, island: IslandIndex, node: Option<NodeIndex>) {
    let record = &mut world.islands[island];
    let before = std::mem::replace(&mut record.node, node);
    if let Some(before) = before {
        world.nodes.reserve(before, record.reserved_seats, 0);
    }
    if let Some(node) = node {
        world.nodes.reserve(node, 0, record.reserved_seats);
    }
    let members: Vec<PeerIndex> = world.spatial.members(island).map(|member| member.peer).collect();
    members.into_iter().for_each(|peer| world.queue_report(peer));
}
