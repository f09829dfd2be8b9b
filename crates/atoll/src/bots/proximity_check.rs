//! Who was near whom and did not hear them.
//!
//! Pairs within 50 m of each other for 3 s, in a group that fits the limit of an island, must hear
//! each other; where they are is the bots' own knowledge, not the server's.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use protocol::Position;

use super::bot_pool::{MAX_PAIRWISE_BOTS, ReceiptTimes};

const NEAR_M: f32 = 50.0;
/// Groups are what hops of at most this connect.
const GROUP_HOP_M: f32 = 80.0;
const MIN_NEAR_MS: u32 = 3_000;
/// Whoever was not heard for this long, or for three of its steps if they take longer, is not heard.
const MAX_SILENCE_MS: u32 = 1_000;

pub(crate) struct ProximityCheck {
    limit: usize,
    silent_ms: u32,
    /// Since when each pair has been near.
    near: HashMap<(usize, usize), NearPair>,
    judged: u64,
    unheard: u64,
    /// Of those who are near now.
    unheard_now: u64,
}

#[derive(Clone, Copy)]
struct NearPair {
    since_ms: u32,
    judged: bool,
    unheard: bool,
}

impl ProximityCheck {
    /// A referee of bots that say where they are every `step`.
    pub(crate) fn new(limit: usize, step: Duration) -> Self {
        let silent_ms = MAX_SILENCE_MS.max(u32::try_from(3 * step.as_millis()).unwrap_or(u32::MAX));
        Self { limit, silent_ms, near: HashMap::new(), judged: 0, unheard: 0, unheard_now: 0 }
    }

    /// Looks at where everybody is now, and at who was heard when. Of those near each other, the pairs
    /// that `can_communicate` are judged.
    pub(crate) fn update(
        &mut self,
        standing: &[Option<Position>],
        may_hear: impl Fn(usize, usize) -> bool,
        heard: &ReceiptTimes,
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
            let near =
                self.near.entry(pair).or_insert(NearPair { since_ms: now_ms, judged: false, unheard: false });
            if now_ms - near.since_ms < MIN_NEAR_MS {
                continue;
            }
            self.judged += u64::from(!std::mem::replace(&mut near.judged, true));
            let silent = |bot, sender| {
                heard.last(bot, sender).is_none_or(|at| now_ms.saturating_sub(at) > self.silent_ms)
            };
            if silent(pair.0, pair.1) || silent(pair.1, pair.0) {
                self.unheard_now += 1;
                // Once for each time that they are near.
                self.unheard += u64::from(!std::mem::replace(&mut near.unheard, true));
            }
        }
    }

    /// How often a pair was near for long enough.
    pub(crate) fn pairs_checked(&self) -> u64 {
        self.judged
    }

    /// How often such a pair did not hear each other.
    pub(crate) fn unheard_pairs(&self) -> u64 {
        self.unheard
    }

    /// How many such pairs did not when it last looked.
    pub(crate) fn unheard_pairs_now(&self) -> u64 {
        self.unheard_now
    }
}

/// Pairs that are near each other, in groups that fit the limit.
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

    /// Looks every 250 ms for five seconds, while the two nearest hear each other or do not.
    fn watch(xs: &[f32], limit: usize, talking: bool) -> (u64, u64) {
        watch_with(xs, &vec![false; xs.len()], limit, talking)
    }

    fn watch_with(xs: &[f32], roomless: &[bool], limit: usize, talking: bool) -> (u64, u64) {
        let heard = ReceiptTimes::new(xs.len());
        let mut referee = ProximityCheck::new(limit, Duration::from_millis(100));
        for now_ms in (0..5_000).step_by(250) {
            if talking {
                heard.set(0, 1, now_ms);
                heard.set(1, 0, now_ms);
            }
            referee.update(&at(xs), |one, other| !roomless[one] && !roomless[other], &heard, now_ms);
        }
        (referee.pairs_checked(), referee.unheard_pairs())
    }

    #[test]
    fn pairs_near_for_three_seconds_must_receive_both_ways() {
        assert_eq!(watch(&[0.0, 50.0], 100, true), (1, 0));
        assert_eq!(watch(&[0.0, 50.0], 100, false), (1, 1));
        assert_eq!(watch(&[0.0, 51.0], 100, false), (0, 0), "not near");
        assert_eq!(watch(&[0.0, 50.0, 130.0, 210.0], 3, false), (0, 0), "a group above the limit");
        assert_eq!(watch(&[0.0, 50.0, 131.0], 2, false), (1, 1), "the third is not of the group");
        assert_eq!(watch_with(&[0.0, 50.0], &[false, true], 100, false), (0, 0), "one is in no room");
    }

    #[test]
    fn one_way_delivery_counts_as_unheard() {
        let heard = ReceiptTimes::new(2);
        let mut referee = ProximityCheck::new(9, Duration::from_millis(100));
        for now_ms in (0..4_000).step_by(250) {
            heard.set(0, 1, now_ms);
            referee.update(&at(&[0.0, 1.0]), |_, _| true, &heard, now_ms);
        }
        assert_eq!((referee.unheard_pairs(), referee.unheard_pairs_now()), (1, 1));
        // From now on they do.
        for now_ms in (4_000..5_000).step_by(250) {
            heard.set(0, 1, now_ms);
            heard.set(1, 0, now_ms);
            referee.update(&at(&[0.0, 1.0]), |_, _| true, &heard, now_ms);
        }
        assert_eq!((referee.unheard_pairs(), referee.unheard_pairs_now()), (1, 0));
    }
}
