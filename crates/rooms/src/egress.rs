//! Egress budgets: bytes a second that one room, and all rooms of a node together, may send.
//!
//! Only unreliable frames are dropped. Reliable ones always pass and are charged: a room that exceeds its
//! budget with reliable frames alone drops all unreliable ones.

use parking_lot::Mutex;
use tokio::time::Instant;

/// Limits in bytes a second; 0 is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EgressLimits {
    pub(crate) room: u64,
    pub(crate) node: u64,
}

/// The budget that is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Room,
    Node,
}

impl Scope {
    /// The value of the label `scope` in the metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Node => "node",
        }
    }
}

/// Bytes of one batch, summed over all its recipients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) reliable: u64,
    pub(crate) unreliable: u64,
}

/// The budget of a node.
#[derive(Debug)]
pub(crate) struct NodeEgress {
    limits: EgressLimits,
    started: Instant,
    state: Mutex<NodeState>,
}

#[derive(Debug, Default)]
struct NodeState {
    budget: Budget,
    /// The current second since the start of the node.
    second: i64,
    /// Rooms that have sent in the current second, and in the second before.
    active: u64,
    active_before: u64,
}

/// The budgets of a room.
#[derive(Debug, Default)]
pub(crate) struct RoomEgress {
    budget: Budget,
    /// The room's share of the node's budget.
    share: Budget,
    /// The last second in which the room was counted as active.
    second: Option<i64>,
}

impl NodeEgress {
    pub(crate) fn new(limits: EgressLimits) -> Self {
        Self { limits, started: Instant::now(), state: Mutex::default() }
    }

    /// Whether there are no limits, so that no batch has to be charged.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.limits.room == 0 && self.limits.node == 0
    }

    /// Charges a batch to the budgets. Returns the scope of the spent budget if the unreliable frames must be
    /// dropped; these are not charged then.
    ///
    /// While the node's budget lasts, every room may use it. When it is spent, each room still has its fair
    /// share: the node's budget divided by the number of rooms that sent within the last second.
    pub(crate) fn charge(&self, room: &mut RoomEgress, load: Load, now: Instant) -> Option<Scope> {
        let now = now.duration_since(self.started).as_nanos() as i64;
        let EgressLimits { room: room_rate, node: node_rate } = self.limits;
        let mut state = self.state.lock();
        let active = state.count_active(room, now);
        room.budget.charge_capped(load.reliable, room_rate, 1, now);
        room.share.charge_capped(load.reliable, node_rate, active, now);
        state.budget.charge_capped(load.reliable, node_rate, 1, now);
        if room.budget.is_spent(now) {
            return Some(Scope::Room);
        }
        if !state.budget.is_spent(now) {
            // Spare budget of other rooms that this room uses now is not charged to its share later.
            room.share.charge_capped(load.unreliable, node_rate, active, now);
        } else if !room.share.is_spent(now) {
            room.share.charge(load.unreliable, node_rate, active, now);
        } else {
            return Some(Scope::Node);
        }
        room.budget.charge(load.unreliable, room_rate, 1, now);
        state.budget.charge(load.unreliable, node_rate, 1, now);
        None
    }
}

impl NodeState {
    /// Counts a room as active in the current second; returns the number of active rooms.
    fn count_active(&mut self, room: &mut RoomEgress, now: i64) -> u64 {
        let second = now / SECOND;
        if second > self.second {
            self.active_before = if second == self.second + 1 { self.active } else { 0 };
            (self.second, self.active) = (second, 0);
        }
        if room.second != Some(second) {
            room.second = Some(second);
            self.active += 1;
        }
        self.active.max(self.active_before)
    }
}

const SECOND: i64 = 1_000_000_000;

/// A token bucket that holds the bytes of one second. It stores the time at which all bytes charged so far
/// have been sent at the rate, in nanoseconds since the start of the node, so that rounding errors do not add
/// up.
#[derive(Debug, Clone, Copy)]
struct Budget {
    paid_until: i64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { paid_until: i64::MIN }
    }
}

impl Budget {
    fn is_spent(self, now: i64) -> bool {
        self.paid_until > now
    }

    /// Charges `bytes` at a rate of `rate / parts`.
    fn charge(&mut self, bytes: u64, rate: u64, parts: u64, now: i64) {
        if rate > 0 {
            let cost = u128::from(bytes) * u128::from(parts) * SECOND as u128 / u128::from(rate);
            let cost = i64::try_from(cost).unwrap_or(i64::MAX);
            self.paid_until = self.paid_until.max(now - SECOND).saturating_add(cost);
        }
    }

    /// As [`Self::charge`], but limits the debt to one second, so that unreliable frames pass again soon
    /// after a burst of reliable ones.
    fn charge_capped(&mut self, bytes: u64, rate: u64, parts: u64, now: i64) {
        let before = self.paid_until;
        self.charge(bytes, rate, parts, now);
        self.paid_until = self.paid_until.min(before.max(now + SECOND));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TICK: Duration = Duration::from_millis(10);
    /// Ten seconds.
    const TICKS: u32 = 1_000;
    /// A warm-up in which the saved budget is spent.
    const WARM_UP_TICKS: u32 = 2_000;

    fn unreliable(bytes: u64) -> Load {
        Load { reliable: 0, unreliable: bytes }
    }

    /// Charges the load of each room every tick. Returns the unreliable bytes per second that each room sent
    /// after the warm-up.
    fn sent(limits: EgressLimits, loads: &[Load]) -> Vec<u64> {
        let node = NodeEgress::new(limits);
        let mut rooms: Vec<_> = loads.iter().map(|&load| (load, RoomEgress::default(), 0)).collect();
        for tick in 0..WARM_UP_TICKS + TICKS {
            let now = node.started + TICK * tick;
            for (load, room, sent) in &mut rooms {
                if node.charge(room, *load, now).is_none() && tick >= WARM_UP_TICKS {
                    *sent += load.unreliable;
                }
            }
        }
        rooms.into_iter().map(|(.., sent)| sent / 10).collect()
    }

    fn is_near(sent: u64, expected: u64) -> bool {
        sent.abs_diff(expected) <= expected / 20
    }

    #[test]
    fn room_below_its_budget_drops_nothing() {
        let limits = EgressLimits { room: 1_000_000, node: 0 };
        assert_eq!(sent(limits, &[unreliable(10_000)]), [1_000_000]);
    }

    #[test]
    fn room_above_its_budget_sends_its_budget() {
        let limits = EgressLimits { room: 1_000_000, node: 0 };
        let sent = sent(limits, &[unreliable(30_000), unreliable(5_000)]);
        assert!(is_near(sent[0], 1_000_000), "{sent:?}");
        assert_eq!(sent[1], 500_000, "another room has its own budget");
    }

    #[test]
    fn reliable_bytes_above_budget_leave_none_for_unreliable() {
        let limits = EgressLimits { room: 1_000_000, node: 0 };
        assert_eq!(sent(limits, &[Load { reliable: 11_000, unreliable: 100 }]), [0]);
        let half = sent(limits, &[Load { reliable: 5_000, unreliable: 10_000 }])[0];
        assert!(is_near(half, 500_000), "{half}");
    }

    #[test]
    fn unreliable_frames_pass_again_a_second_after_a_reliable_burst() {
        let (limits, now) = (EgressLimits { room: 1_000, node: 1_000 }, Instant::now());
        let (node, mut room) = (NodeEgress::new(limits), RoomEgress::default());
        let burst = Load { reliable: 1_000_000, unreliable: 10 };
        assert_eq!(node.charge(&mut room, burst, now), Some(Scope::Room));
        let later = now + Duration::from_millis(1_100);
        assert_eq!(node.charge(&mut room, unreliable(10), later), None);
    }

    #[test]
    fn large_batch_passes_and_blocks_until_it_is_paid() {
        let limits = EgressLimits { room: 1_000_000, node: 0 };
        let (node, mut room) = (NodeEgress::new(limits), RoomEgress::default());
        let at = |seconds| node.started + Duration::from_secs(seconds);
        assert_eq!(node.charge(&mut room, unreliable(20_000_000), at(5)), None);
        assert_eq!(node.charge(&mut room, unreliable(1), at(23)), Some(Scope::Room));
        assert_eq!(node.charge(&mut room, unreliable(1), at(25)), None);
    }

    #[test]
    fn node_above_its_budget_guarantees_each_room_its_share() {
        let limits = EgressLimits { room: 0, node: 1_000_000 };
        // Two rooms below the share of 250,000, two above.
        let loads = [500, 2_000, 20_000, 40_000].map(unreliable);
        let sent = sent(limits, &loads);
        assert_eq!(sent[..2], [50_000, 200_000], "rooms below their share lose nothing");
        assert!(sent[2] >= 250_000 * 19 / 20 && sent[3] >= 250_000 * 19 / 20, "{sent:?}");
        assert!(is_near(sent.iter().sum(), 1_000_000), "{sent:?}");
    }

    #[test]
    fn room_that_used_spare_budget_keeps_its_share() {
        let node = NodeEgress::new(EgressLimits { room: 0, node: 1_000_000 });
        let (mut room, mut other, mut sent) = (RoomEgress::default(), RoomEgress::default(), 0);
        for tick in 0..4_000 {
            let now = node.started + TICK * tick;
            // For 20 s the other room leaves nearly all of the budget to this one.
            let other_bytes = if tick < 2_000 { 500 } else { 50_000 };
            node.charge(&mut other, unreliable(other_bytes), now);
            let passed = node.charge(&mut room, unreliable(9_000), now).is_none();
            sent += if passed && tick >= 3_000 { 9_000 } else { 0 };
        }
        assert!(sent >= 5_000_000 * 19 / 20, "half of the budget for ten seconds, not {sent} bytes");
    }

    #[test]
    fn spent_node_budget_reports_the_node_scope() {
        let (node, now) = (NodeEgress::new(EgressLimits { room: 0, node: 1_000 }), Instant::now());
        let mut rooms = [RoomEgress::default(), RoomEgress::default()];
        assert!(!node.is_unlimited());
        assert_eq!(node.charge(&mut rooms[0], unreliable(5_000), now), None);
        assert_eq!(node.charge(&mut rooms[0], unreliable(1), now), Some(Scope::Node));
        assert_eq!(
            node.charge(&mut rooms[1], unreliable(1), now),
            None,
            "the room has used nothing of its share"
        );
    }

    #[test]
    fn silent_rooms_have_no_share() {
        let node = NodeEgress::new(EgressLimits { room: 0, node: 1_000_000 });
        let mut rooms: Vec<RoomEgress> = (0..10).map(|_| RoomEgress::default()).collect();
        let mut state = NodeState::default();
        let mut counts = |second: i64, rooms: &mut [RoomEgress]| {
            rooms.iter_mut().map(|room| state.count_active(room, second * SECOND)).last()
        };
        assert_eq!(counts(1, &mut rooms), Some(10));
        assert_eq!(counts(2, &mut rooms[..1]), Some(10));
        assert_eq!(counts(3, &mut rooms[..1]), Some(1));
        assert!(!node.is_unlimited());
    }
}
