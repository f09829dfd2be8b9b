//! Which rule decides for an island, and which node holds its room.
//!
//! What has to change changes at once: an island whose node is gone, drains, or no longer holds it,
//! which outgrew its rule, or whose owner wrote another one. What would merely be better must stay
//! better for the settling time, and an island that has just been moved stays for a while.

use std::time::Duration;

use crate::{
    engine::Engine,
    event::Output,
    islands::UNDECIDED,
    registry::{NO_NODE, NodeIndex},
};

/// When an island last changed, and what is about to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    pub(crate) moved_at: Option<Duration>,
    /// The rule that has been the better one, and since when.
    pub(crate) rule: Option<(u32, Duration)>,
    /// Since when there has been a better node.
    pub(crate) better: Option<Duration>,
    /// The node that it was on before it had none.
    pub(crate) left: Option<NodeIndex>,
    /// When to look at it again.
    pub(crate) look_at: Duration,
}

/// How often it is seen whether an island could have what it would rather have.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Pace {
    /// Nothing is about to change any more.
    pub(crate) fn forget_changes(&mut self) {
        (self.rule, self.better, self.look_at) = (None, None, Duration::ZERO);
    }

    /// From when on it may be moved for something better.
    pub(crate) fn rested_at(&self, interval: Duration) -> Duration {
        self.moved_at.map_or(Duration::ZERO, |at| at.saturating_add(interval))
    }
}

impl Engine {
    pub(crate) fn pace(&self, island: u32) -> Pace {
        self.paces.get(&island).copied().unwrap_or_default()
    }

    /// Two islands become one: whoever was moved lately stays for a while.
    pub(crate) fn inherit_pace(&mut self, from: u32, into: u32) {
        let Some(moved_at) = self.pace(from).moved_at else { return };
        let pace = self.paces.entry(into).or_default();
        pace.moved_at = pace.moved_at.max(Some(moved_at));
    }
}

/// Accounts for the seats, and judges the islands that changed, that are watched, or if there is
/// reason to, all of them, the oldest first.
pub(super) fn run(engine: &mut Engine, now: Duration, outputs: &mut Vec<Output>) {
    let mut islands = engine.pending.changed.clone();
    for &island in &islands {
        reserve(engine, island);
        engine.islands[island].changed = false;
    }
    if std::mem::take(&mut engine.judge_all) {
        islands = engine.islands.numbers().collect();
    }
    let mut watched = std::mem::take(&mut engine.watched);
    watched.retain(|&island| {
        let due = engine.pace(island).look_at <= now;
        if due {
            engine.islands[island].watched = false;
            islands.push(island);
        }
        !due
    });
    engine.watched = watched;
    islands.retain(|&island| engine.islands.is_inhabited(island));
    islands.sort_unstable_by_key(|&island| engine.islands[island].age);
    islands.dedup();
    for island in islands {
        judge(engine, island, now, outputs);
    }
}

/// Has the node of an island hold as many seats as the island has members.
fn reserve(engine: &mut Engine, island: u32) {
    let size = engine.ground.size(island);
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.seats_taken, size);
    engine.registry.reserve(record.node, before, size);
}

fn judge(engine: &mut Engine, island: u32, now: Duration, outputs: &mut Vec<Output>) {
    let mut pace = engine.pace(island);
    let before = engine.islands[island].rule;
    let rule = rule(engine, island, &mut pace, now);
    engine.islands[island].rule = rule;
    match verdict(engine, island) {
        Verdict::Stay { best } => {
            pace.better = None;
            pace.look_at = if best { Duration::MAX } else { now + LOOK_INTERVAL };
        }
        Verdict::Better(node) => {
            let since = *pace.better.get_or_insert(now);
            // A rule that has just come to decide has settled by itself, or need not.
            let settling = if rule == before { engine.zones.settling_of(rule) } else { Duration::ZERO };
            let settled = since.saturating_add(settling);
            let due = settled.max(pace.rested_at(engine.settings.move_interval));
            pace.look_at = due.min(now + LOOK_INTERVAL);
            if due <= now {
                go(engine, island, node, &mut pace, now, outputs);
            }
        }
        Verdict::Go(node) => go(engine, island, node, &mut pace, now, outputs),
        Verdict::Wait { stay } => {
            pace.better = None;
            pace.look_at = now;
            let node = engine.islands[island].node;
            if !stay && node != NO_NODE {
                pace.left = Some(node);
                settle(engine, island, NO_NODE);
            }
        }
    }
    if let Some((rule, since)) = pace.rule {
        pace.look_at = pace.look_at.min(since.saturating_add(engine.zones.settling_of(rule)));
    }
    keep(engine, island, pace, now);
}

/// Keeps what has to be known of an island next time, and has it looked at then.
fn keep(engine: &mut Engine, island: u32, mut pace: Pace, now: Duration) {
    let rested_at = pace.rested_at(engine.settings.move_interval);
    if rested_at > now {
        pace.look_at = pace.look_at.min(rested_at);
    } else {
        pace.moved_at = None;
    }
    if pace.look_at == Duration::MAX {
        engine.paces.remove(&island);
        return;
    }
    engine.paces.insert(island, pace);
    if !std::mem::replace(&mut engine.islands[island].watched, true) {
        engine.watched.push(island);
    }
}

/// The rule that decides for an island from now on.
fn rule(engine: &Engine, island: u32, pace: &mut Pace, now: Duration) -> u32 {
    let (zone, size) = (engine.main_zone(island), engine.ground.size(island));
    let (before, best) = (engine.islands[island].rule, engine.zones.rule_for(zone, size));
    let capabilities = engine.ground.capabilities(island, None);
    let at_once = before == UNDECIDED
        || (engine.crowding_changed && engine.zones.asks_for_a_crowd(best))
        || !engine.zones.has_room(before, size, capabilities, &engine.registry);
    if before == best || at_once || !engine.zones.still_covers(before, zone, size) {
        pace.rule = None;
        return best;
    }
    let since = match pace.rule {
        Some((rule, since)) if rule == best => since,
        _ => now,
    };
    if now.saturating_sub(since) >= engine.zones.settling_of(best) {
        pace.rule = None;
        return best;
    }
    pace.rule = Some((best, since));
    before
}

/// What is to become of an island.
enum Verdict {
    /// It stays where it is. It is the best unless only seats were missing elsewhere.
    Stay { best: bool },
    /// It can stay, but its rule would rather have it there.
    Better(NodeIndex),
    /// It must go there.
    Go(NodeIndex),
    /// There is no other node for it. Better one that is about to leave, or is full, than none.
    Wait { stay: bool },
}

fn verdict(engine: &Engine, island: u32) -> Verdict {
    let (size, node) = (engine.ground.size(island), engine.islands[island].node);
    let capabilities = engine.ground.capabilities(island, None);
    let registry = &engine.registry;
    let holds = registry.holds(node, size, capabilities);
    let rule = engine.islands[island].rule;
    let mut best = true;
    for choice in engine.zones.choices(rule) {
        if holds && registry.is_chosen_by(node, choice) {
            return Verdict::Stay { best };
        }
        // Seats come and go unannounced; all else that may change has every island judged.
        best &= !registry.is_full(choice, size, capabilities);
        if let Some(other) = registry.choose(choice, size, capabilities) {
            return if holds { Verdict::Better(other) } else { Verdict::Go(other) };
        }
    }
    Verdict::Wait { stay: registry.is_present(node) && registry.can_join(node, capabilities) }
}

fn go(
    engine: &mut Engine,
    island: u32,
    node: NodeIndex,
    pace: &mut Pace,
    now: Duration,
    outputs: &mut Vec<Output>,
) {
    let present = engine.islands[island].node;
    // While it waited its members kept their places on the node before.
    let before = pace.left.take().filter(|_| present == NO_NODE).unwrap_or(present);
    settle(engine, island, node);
    (pace.better, pace.look_at) = (None, now + LOOK_INTERVAL);
    let ends = [before, node].map(|node| engine.registry.name(node).cloned());
    if let [Some(from), Some(to)] = ends
        && from != to
    {
        pace.moved_at = Some(now);
        outputs.push(Output::Moved { island: engine.ids.text(engine.islands[island].serial), from, to });
    }
}

fn settle(engine: &mut Engine, island: u32, node: NodeIndex) {
    let record = &mut engine.islands[island];
    let before = std::mem::replace(&mut record.node, node);
    engine.registry.reserve(before, record.seats_taken, 0);
    engine.registry.reserve(node, 0, record.seats_taken);
    let members: Vec<u32> = engine.ground.members(island).map(|member| member.peer).collect();
    members.into_iter().for_each(|peer| engine.list(peer));
}
