//! Checks that bots near each other receive each other.
//!
//! A pair within 50 m of each other for 3 s, in a group that fits the size limit of an island, must
//! receive each other. The positions are the bots' own, not the server's.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use protocol::Position;

use super::receipt_times::{MAX_PAIRWISE_BOTS, ReceiptTimes};

const NEAR_M: f32 = 50.0;
/// A group is connected by hops of at most so many metres.
const GROUP_HOP_M: f32 = 80.0;
const MIN_NEAR_MS: u32 = 3_000;
/// A sender is silent when nothing of it arrived for this long, or for three of its steps if those take
/// longer.
const MAX_SILENCE_MS: u32 = 1_000;

pub(crate) struct ProximityCheck {
    limit: usize,
    silent_ms: u32,
    /// The pairs that are near now.
    near: HashMap<(usize, usize), NearPair>,
    checked: u64,
    unheard: u64,
    /// Unheard pairs among those that are near now.
    unheard_now: u64,
}

#[derive(Clone, Copy)]
struct NearPair {
    since_ms: u32,
    checked: bool,
    unheard: bool,
}

impl ProximityCheck {
    /// A check of bots that send their position every `step`.
    pub(crate) fn new(limit: usize, step: Duration) -> Self {
        let silent_ms = MAX_SILENCE_MS.max(u32::try_from(3 * step.as_millis()).unwrap_or(u32::MAX));
        Self { limit, silent_ms, near: HashMap::new(), checked: 0, unheard: 0, unheard_now: 0 }
    }

    /// Checks the current positions against the receipt times. A near pair is checked only if
    /// `can_communicate` holds for it.
    pub(crate) fn update(
        &mut self,
        standing: &[Option<Position>],
        may_hear: impl Fn(usize, usize) -> bool,
        receipts: &ReceiptTimes,
        now_ms: u32,
    ) {
        if standing.len() > MAX_PAIRWISE_BOTS {
            return;
        }
        let mut pairs = near_pairs(standing, self.limit);
        pairs.retain(|&(one, other)| may_hear(one, other));
        self.near.retain(|pair, _| pairs.contains(pair));
        self.unheard_now = 0;
        for pair in pairs {
            let near = self.near.entry(pair).or_insert(NearPair {
                since_ms: now_ms,
                checked: false,
                unheard: false,
            });
            if now_ms - near.since_ms < MIN_NEAR_MS {
                continue;
            }
            self.checked += u64::from(!std::mem::replace(&mut near.checked, true));
            let silent = |bot, sender| {
                receipts.last(bot, sender).is_none_or(|at| now_ms.saturating_sub(at) > self.silent_ms)
            };
            if silent(pair.0, pair.1) || silent(pair.1, pair.0) {
                self.unheard_now += 1;
                // Counted once for each period in which the pair is near.
                self.unheard += u64::from(!std::mem::replace(&mut near.unheard, true));
            }
        }
    }

    /// How often a pair was near for long enough to be checked.
    pub(crate) fn pairs_checked(&self) -> u64 {
        self.checked
    }

    /// How often such a pair did not receive each other.
    pub(crate) fn unheard_pairs(&self) -> u64 {
        self.unheard
    }

    /// How many such pairs did not at the last check.
    pub(crate) fn unheard_pairs_now(&self) -> u64 {
        self.unheard_now
    }
}

/// The pairs that are near each other, in groups that fit the limit.
fn near_pairs(standing: &[Option<Position>], limit: usize) -> HashSet<(usize, usize)> {
    let mut groups: Vec<usize> = (0..standing.len()).collect();
    let mut near = Vec::new();
    for (one, at) in standing.iter().enumerate() {
        for (other, there) in standing.iter().enumerate().skip(one + 1) {
            let (Some(at), Some(there)) = (at, there) else { continue };
            let distance_squared = at.ground_distance_squared(*there);
            if distance_squared <= GROUP_HOP_M * GROUP_HOP_M {
                let (a, b) = (root(&mut groups, one), root(&mut groups, other));
                groups[a] = b;
            }
            if distance_squared <= NEAR_M * NEAR_M {
                near.push((one, other));
            }
        }
    }
    let mut sizes = vec![0; standing.len()];
    for bot in 0..standing.len() {
        sizes[root(&mut groups, bot)] += 1;
    }
    near.into_iter().filter(|&(one, _)| sizes[root(&mut groups, one)] <= limit).collect()
}

fn root(groups: &mut [usize], mut bot: usize) -> usize {
    while groups[bot] != bot {
        groups[bot] = groups[groups[bot]];
        bot = groups[bot];
    }
    bot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(xs: &[f32]) -> Vec<Option<Position>> {
        xs.iter().map(|&x| Some(Position::new(x, 0.0, 0.0))).collect()
    }

    /// Checks every 250 ms for five seconds; the first two receive each other if `talking`.
    fn watch(xs: &[f32], limit: usize, talking: bool) -> (u64, u64) {
        watch_with(xs, &vec![false; xs.len()], limit, talking)
    }

    fn watch_with(xs: &[f32], roomless: &[bool], limit: usize, talking: bool) -> (u64, u64) {
        let receipts = ReceiptTimes::new(xs.len());
        let mut check = ProximityCheck::new(limit, Duration::from_millis(100));
        for now_ms in (0..5_000).step_by(250) {
            if talking {
                receipts.set(0, 1, now_ms);
                receipts.set(1, 0, now_ms);
            }
            check.update(&at(xs), |one, other| !roomless[one] && !roomless[other], &receipts, now_ms);
        }
        (check.pairs_checked(), check.unheard_pairs())
    }

    #[test]
    fn pairs_near_for_three_seconds_must_receive_both_ways() {
        assert_eq!(watch(&[0.0, 50.0], 100, true), (1, 0));
        assert_eq!(watch(&[0.0, 50.0], 100, false), (1, 1));
        assert_eq!(watch(&[0.0, 51.0], 100, false), (0, 0), "not near");
        assert_eq!(watch(&[0.0, 50.0, 130.0, 210.0], 3, false), (0, 0), "a group above the limit");
        assert_eq!(watch(&[0.0, 50.0, 131.0], 2, false), (1, 1), "the third bot is outside the group");
        assert_eq!(watch_with(&[0.0, 50.0], &[false, true], 100, false), (0, 0), "one bot is in no room");
    }

    #[test]
    fn one_way_delivery_counts_as_unheard() {
        let receipts = ReceiptTimes::new(2);
        let mut check = ProximityCheck::new(9, Duration::from_millis(100));
        for now_ms in (0..4_000).step_by(250) {
            receipts.set(0, 1, now_ms);
            check.update(&at(&[0.0, 1.0]), |_, _| true, &receipts, now_ms);
        }
        assert_eq!((check.unheard_pairs(), check.unheard_pairs_now()), (1, 1));
        // From now on both receive each other.
        for now_ms in (4_000..5_000).step_by(250) {
            receipts.set(0, 1, now_ms);
            receipts.set(1, 0, now_ms);
            check.update(&at(&[0.0, 1.0]), |_, _| true, &receipts, now_ms);
        }
        assert_eq!((check.unheard_pairs(), check.unheard_pairs_now()), (1, 0));
    }
}
