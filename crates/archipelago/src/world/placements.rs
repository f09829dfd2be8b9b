//! The state of the placement of islands besides their rule and node: pending changes and recent moves.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::ids::{IslandIndex, NodeIndex, RuleIndex};

/// The islands with a pending change or a recent move.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placements {
    /// Islands that moved recently or have a change pending.
    states: FxHashMap<IslandIndex, PlacementState>,
    /// Islands that are evaluated again although none of their members changes: without a node, on a
    /// node that is not the preferred one, or with a change pending.
    pub(crate) watched: Vec<IslandIndex>,
}

/// The time of the last move of an island, and the changes that are pending.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PlacementState {
    pub(crate) moved_at: Option<Duration>,
    /// The rule that would replace the current one (`None`: no rule), and since when.
    pub(crate) candidate_rule: Option<(Option<RuleIndex>, Duration)>,
    /// Since when a more preferred node has been available.
    pub(crate) better_node_since: Option<Duration>,
    /// The node before the island lost it and had none.
    pub(crate) previous_node: Option<NodeIndex>,
    /// When to evaluate the island again.
    pub(crate) recheck_at: Duration,
}

impl PlacementState {
    /// The time from which the island may move for an improvement.
    pub(crate) fn cooldown_end(&self, interval: Duration) -> Duration {
        self.moved_at.map_or(Duration::ZERO, |at| at.saturating_add(interval))
    }
}

impl Placements {
    pub(crate) fn state(&self, island: IslandIndex) -> PlacementState {
        self.states.get(&island).copied().unwrap_or_default()
    }

    pub(crate) fn set_state(&mut self, island: IslandIndex, state: PlacementState) {
        self.states.insert(island, state);
    }

    pub(crate) fn forget(&mut self, island: IslandIndex) {
        self.states.remove(&island);
    }

    /// Carries the time of the last move over when two islands merge, so that the survivor does not
    /// move too soon.
    pub(crate) fn inherit_move_cooldown(&mut self, from: IslandIndex, into: IslandIndex) {
        let Some(moved_at) = self.state(from).moved_at else { return };
        let state = self.states.entry(into).or_default();
        state.moved_at = state.moved_at.max(Some(moved_at));
    }

    /// Discards the pending changes of all islands.
    pub(crate) fn reset_candidates(&mut self) {
        for state in self.states.values_mut() {
            (state.candidate_rule, state.better_node_since, state.recheck_at) = (None, None, Duration::ZERO);
        }
    }
}
