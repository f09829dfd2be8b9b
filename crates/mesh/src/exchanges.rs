//! Replaces links by shorter ones when members moved, slowly enough that paths stay stable.
//!
//! Two members that are nearer than the longest link of each are candidates. A pair that has been one for
//! [`PATIENCE`] is linked, at most one a member in [`PATIENCE`]. When the new link is up, both ends drop a longer one
//! that is not needed. Links beyond the number that members should hold are dropped at the same pace once the mesh has
//! been without other changes for [`PATIENCE`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::Address;

use crate::{
    links::Pair,
    state::State,
    topology::{Graph, Ground, add_nearer, drop_farther, drop_surplus, nearer_pairs},
};

/// How long a peer must have been nearer before a link is exchanged for one to it, and the pause between the exchanges
/// of one member.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most candidates that are examined in one step, because each needs several searches of the graph.
const MAX_EXAMINED: usize = 32;

#[derive(Debug, Clone, Default)]
pub(crate) struct Exchanges {
    /// Whether positions or links changed since the candidates were found.
    is_outdated: bool,
    /// Pairs that should be linked, with the time since when.
    candidates: BTreeMap<Pair, Duration>,
    /// Links that were added and are not up yet.
    added: BTreeSet<Pair>,
    /// The earliest time of the next exchange of a member.
    next_allowed: BTreeMap<Address, Duration>,
    /// When surplus links may be dropped; `None`: there are none.
    surplus_at: Option<Duration>,
}

impl Exchanges {
    /// Records that a member moved.
    pub(crate) fn positions_changed(&mut self) {
        self.is_outdated = true;
    }

    /// Records that targets changed, or that a link came up or was lost.
    pub(crate) fn links_changed(&mut self, now: Duration) {
        self.is_outdated = true;
        self.surplus_at = Some(now + PATIENCE);
    }

    /// Whether [`step`](Self::step) may change something later.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_outdated || !self.candidates.is_empty() || !self.added.is_empty() || self.surplus_at.is_some()
    }

    /// Exchanges links. Returns whether the targets changed.
    pub(crate) fn step(&mut self, state: &mut State, now: Duration) -> bool {
        self.next_allowed.retain(|_, &mut at| at > now);
        let addresses = state.addresses();
        let ground = state.ground(&addresses);
        let mut graph = state.target_graph(&addresses);
        let mut step = Step { addresses: &addresses, ground: &ground, graph: &mut graph, now };
        if std::mem::take(&mut self.is_outdated) {
            self.find_candidates(&step);
        }
        self.finish_added(&mut step);
        self.examine_candidates(&mut step);
        self.drop_surplus(&mut step);
        let is_changed = state.set_targets(&addresses, &graph);
        self.is_outdated |= is_changed;
        is_changed
    }

    fn find_candidates(&mut self, step: &Step<'_>) {
        let pairs = nearer_pairs(step.graph, step.ground).into_iter().map(|nodes| step.pair(nodes));
        let former = std::mem::take(&mut self.candidates);
        self.candidates = pairs.map(|pair| (pair, former.get(&pair).copied().unwrap_or(step.now))).collect();
    }

    /// Drops links that added ones replace, for those that are up.
    fn finish_added(&mut self, step: &mut Step<'_>) {
        self.added.retain(|&pair| {
            let Some((a, b)) = step.nodes(pair) else { return false };
            if !step.graph.contains(a, b) {
                return false;
            }
            if step.ground.up.contains(a, b) {
                drop_farther(step.graph, step.ground, (a, b));
                return false;
            }
            true
        });
    }

    fn examine_candidates(&mut self, step: &mut Step<'_>) {
        let is_due = |&(_, since): &(&Pair, &Duration)| step.now.saturating_sub(*since) >= PATIENCE;
        let due = self.candidates.iter().filter(is_due).map(|(&pair, _)| pair);
        let mut due: Vec<Pair> = due.filter(|&pair| self.is_allowed(pair)).collect();
        let distance =
            |pair: &Pair| step.nodes(*pair).map_or(f32::INFINITY, |(a, b)| step.ground.distance(a, b));
        due.sort_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.cmp(b)));
        for pair in due.into_iter().take(MAX_EXAMINED) {
            let Some(nodes) = step.nodes(pair) else { continue };
            if !self.is_allowed(pair) {
                continue;
            }
            // A pair that cannot be linked must be a candidate for as long again.
            self.candidates.remove(&pair);
            if add_nearer(step.graph, step.ground, nodes) {
                self.added.insert(pair);
                self.delay(pair, step.now);
            }
        }
    }

    fn drop_surplus(&mut self, step: &mut Step<'_>) {
        if self.surplus_at.is_none_or(|at| at > step.now) {
            return;
        }
        let addresses = step.addresses;
        let is_free = |node: usize| !self.next_allowed.contains_key(&addresses[node]);
        match drop_surplus(step.graph, step.ground, is_free) {
            Some(nodes) => self.delay(step.pair(nodes), step.now),
            None if self.next_allowed.is_empty() => self.surplus_at = None,
            None => {}
        }
    }

    fn is_allowed(&self, Pair(a, b): Pair) -> bool {
        !self.next_allowed.contains_key(&a) && !self.next_allowed.contains_key(&b)
    }

    fn delay(&mut self, Pair(a, b): Pair, now: Duration) {
        for member in [a, b] {
            self.next_allowed.insert(member, now + PATIENCE);
        }
    }
}

/// The inputs of a step.
struct Step<'a> {
    addresses: &'a [Address],
    ground: &'a Ground,
    graph: &'a mut Graph,
    now: Duration,
}

impl Step<'_> {
    fn pair(&self, (a, b): (usize, usize)) -> Pair {
        Pair::new(self.addresses[a], self.addresses[b])
    }

    fn nodes(&self, Pair(a, b): Pair) -> Option<(usize, usize)> {
        Some((self.addresses.binary_search(&a).ok()?, self.addresses.binary_search(&b).ok()?))
    }
}
