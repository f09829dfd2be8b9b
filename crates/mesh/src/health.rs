//! Decides whether the mesh can hold its island.
//!
//! It cannot when one of these holds:
//!
//! - For [`UNSERVED_LIMIT`] a member had neither a path to another nor a usable fallback to it.
//! - For [`SHARE_LIMIT`] more than the [share](crate::Settings::max_fallback_share) of deliveries needed the fallback.
//!
//! A new member has no links yet, so nothing is held against the mesh that concerns a member in
//! [formation](crate::Settings::formation). Its grace begins when it joins, and is not extended: a link that fails later
//! is no excuse. A mesh that never forms is therefore reported after the formation and the limit.
//!
//! Deliveries to members in formation are not distinguished in a report. The mesh infers them: a sender delivers to all
//! others alike, so of its deliveries at most the part `unreached / others` needs the fallback, where `unreached` counts
//! the members past formation that it has no path to. The rest of its fallback deliveries is not counted. A member also
//! counts with no more deliveries than the median of the senders, so that one member cannot condemn a larger mesh by
//! false numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use protocol::Address;

/// How long a pair may be without path and fallback.
const UNSERVED_LIMIT: Duration = Duration::from_secs(5);
/// How long the share of the fallback may be too high.
const SHARE_LIMIT: Duration = Duration::from_secs(10);
/// The share is measured over this time: twice the interval at which clients of 2022 reported.
const SHARE_WINDOW: Duration = Duration::from_secs(6);
/// The most pairs that a failure names.
const MAX_PAIRS: usize = 16;

/// The mesh cannot hold its island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The limit that was exceeded.
    pub cause: FailureCause,
    /// Pairs past formation of which the first has no path to the second: the first 16 by address. With
    /// [`FailureCause::Unserved`] only those without a usable fallback for 5 s.
    pub pairs: Vec<(Address, Address)>,
    /// The number of all such pairs.
    pub pair_count: usize,
    /// Members past formation that have never reported, by address. Their clients may not support the mesh.
    pub never_reported: Vec<Address>,
}

/// A reason for which a mesh cannot hold its island.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// A pair had neither a path nor a usable fallback for 5 s.
    Unserved,
    /// Too many deliveries needed the fallback for 10 s.
    FallbackShare,
}

/// The deliveries of one report.
#[derive(Debug, Clone, Copy)]
struct Deliveries {
    at: Duration,
    sender: Address,
    sent: f64,
    by_fallback: f64,
}

/// The members without a path to another, and the bounds of the fallback.
pub(crate) struct Paths<'a, F> {
    /// Pairs of which the first member has no path to the second, in order.
    pub(crate) unreached: &'a mut dyn Iterator<Item = (Address, Address)>,
    pub(crate) is_in_formation: F,
    pub(crate) max_fallback: usize,
    pub(crate) max_fallback_share: f64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// Pairs past formation without path and usable fallback, since when.
    unserved: BTreeMap<(Address, Address), Duration>,
    deliveries: VecDeque<Deliveries>,
    /// Since when the share of the fallback is too high.
    excess_since: Option<Duration>,
    is_failing: bool,
}

impl Health {
    /// Records the deliveries of a sender. `unreached` of its `others` are past formation and have no path.
    pub(crate) fn record(
        &mut self,
        sender: Address,
        (sent, by_fallback): (u32, u32),
        (unreached, others): (usize, usize),
        now: Duration,
    ) {
        if sent == 0 || others == 0 {
            return;
        }
        let sent = f64::from(sent);
        let by_fallback = f64::from(by_fallback).min(sent * unreached as f64 / others as f64);
        self.deliveries.push_back(Deliveries { at: now, sender, sent, by_fallback });
    }

    /// Removes a member.
    pub(crate) fn remove(&mut self, member: Address) {
        self.unserved.retain(|&(from, to), _| from != member && to != member);
        self.deliveries.retain(|deliveries| deliveries.sender != member);
    }

    /// Whether [`check`](Self::check) may find something later without further inputs.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.unserved.is_empty() || !self.deliveries.is_empty() || self.excess_since.is_some()
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Evaluates both limits. Returns a failure, without `never_reported`, at the first check that finds one after
    /// checks that did not.
    pub(crate) fn check<F: Fn(Address) -> bool>(
        &mut self,
        paths: Paths<'_, F>,
        now: Duration,
    ) -> Option<Failure> {
        let max_share = paths.max_fallback_share;
        let unreached = self.update_unserved(paths, now);
        self.update_share(max_share, now);
        let has_lasted = |since: Duration, limit: Duration| now.saturating_sub(since) >= limit;
        let unserved = self.unserved.iter().filter(|&(_, &since)| has_lasted(since, UNSERVED_LIMIT));
        let unserved: Vec<(Address, Address)> = unserved.map(|(&pair, _)| pair).collect();
        let has_excess = self.excess_since.is_some_and(|since| has_lasted(since, SHARE_LIMIT));
        let was_failing = std::mem::replace(&mut self.is_failing, has_excess || !unserved.is_empty());
        if was_failing || !self.is_failing {
            return None;
        }
        let (cause, mut pairs) = if unserved.is_empty() {
            (FailureCause::FallbackShare, unreached)
        } else {
            (FailureCause::Unserved, unserved)
        };
        let pair_count = pairs.len();
        pairs.truncate(MAX_PAIRS);
        Some(Failure { cause, pairs, pair_count, never_reported: Vec::new() })
    }

    /// Updates the pairs without path and usable fallback. Returns all pairs past formation without a path.
    fn update_unserved<F: Fn(Address) -> bool>(
        &mut self,
        paths: Paths<'_, F>,
        now: Duration,
    ) -> Vec<(Address, Address)> {
        let former = std::mem::take(&mut self.unserved);
        let mut past_formation = Vec::new();
        let (mut sender, mut served_by_fallback) = (None, 0);
        for pair in paths.unreached {
            if sender != Some(pair.0) {
                (sender, served_by_fallback) = (Some(pair.0), 0);
            }
            served_by_fallback += 1;
            if (paths.is_in_formation)(pair.0) || (paths.is_in_formation)(pair.1) {
                continue;
            }
            past_formation.push(pair);
            if served_by_fallback > paths.max_fallback {
                self.unserved.insert(pair, former.get(&pair).copied().unwrap_or(now));
            }
        }
        past_formation
    }

    fn update_share(&mut self, max_share: f64, now: Duration) {
        while self.deliveries.front().is_some_and(|first| now.saturating_sub(first.at) >= SHARE_WINDOW) {
            self.deliveries.pop_front();
        }
        self.excess_since = (self.share() > max_share).then(|| self.excess_since.unwrap_or(now));
    }

    /// The share of deliveries that needed the fallback; no sender counts with more than the median of all.
    fn share(&self) -> f64 {
        let mut by_sender: BTreeMap<Address, (f64, f64)> = BTreeMap::new();
        for deliveries in &self.deliveries {
            let (sent, by_fallback) = by_sender.entry(deliveries.sender).or_default();
            *sent += deliveries.sent;
            *by_fallback += deliveries.by_fallback;
        }
        let mut volumes: Vec<f64> = by_sender.values().map(|&(sent, _)| sent).collect();
        volumes.sort_by(f64::total_cmp);
        let Some(&median) = volumes.get(volumes.len() / 2) else { return 0.0 };
        let (mut total, mut total_by_fallback) = (0.0, 0.0);
        for &(sent, by_fallback) in by_sender.values() {
            let weight = (median / sent).min(1.0);
            total += sent * weight;
            total_by_fallback += by_fallback * weight;
        }
        total_by_fallback / total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8) -> Address {
        Address::new([number; 20])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Checks with these pairs without path, of which members from 100 on are in formation.
    fn check(health: &mut Health, pairs: &[(u8, u8)], max_fallback: usize, now: u64) -> Option<Failure> {
        let mut unreached = pairs.iter().map(|&(from, to)| (member(from), member(to)));
        let is_in_formation = |address: Address| address.as_bytes()[0] >= 100;
        let paths =
            Paths { unreached: &mut unreached, is_in_formation, max_fallback, max_fallback_share: 0.2 };
        health.check(paths, at(now))
    }

    #[test]
    fn pair_without_fallback_fails_after_five_seconds() {
        let mut health = Health::default();
        assert_eq!(check(&mut health, &[(1, 2), (1, 3)], 1, 0), None);
        assert_eq!(check(&mut health, &[(1, 2), (1, 3)], 1, 4), None);
        let failure = check(&mut health, &[(1, 2), (1, 3)], 1, 5).unwrap();
        assert_eq!((failure.cause, failure.pair_count), (FailureCause::Unserved, 1));
        assert_eq!(failure.pairs, [(member(1), member(3))]);
    }

    #[test]
    fn path_in_between_starts_the_five_seconds_anew() {
        let mut health = Health::default();
        for (now, pairs) in [(0, &[(1, 2)][..]), (3, &[]), (4, &[(1, 2)]), (8, &[(1, 2)])] {
            assert_eq!(check(&mut health, pairs, 0, now), None);
        }
        assert!(check(&mut health, &[(1, 2)], 0, 9).is_some());
    }

    #[test]
    fn failing_episode_is_reported_once() {
        let mut health = Health::default();
        let failures =
            (0..20).filter(|&now| check(&mut health, &[(1, 2)], 0, now).is_some()).collect::<Vec<_>>();
        assert_eq!(failures, [5]);
        assert!(check(&mut health, &[], 0, 20).is_none() && !health.is_failing());
        assert!(check(&mut health, &[(1, 2)], 0, 21).is_none());
        assert!(check(&mut health, &[(1, 2)], 0, 26).is_some());
    }

    #[test]
    fn member_in_formation_is_not_held_against_the_mesh() {
        let mut health = Health::default();
        assert!((0..60).all(|now| check(&mut health, &[(1, 100), (100, 1)], 0, now).is_none()));
    }

    #[test]
    fn list_of_pairs_is_bounded() {
        let mut health = Health::default();
        let pairs: Vec<(u8, u8)> = (2..90).map(|to| (1, to)).collect();
        check(&mut health, &pairs, 0, 0);
        let failure = check(&mut health, &pairs, 0, 5).unwrap();
        assert_eq!((failure.pairs.len(), failure.pair_count), (MAX_PAIRS, 88));
    }

    /// Checks each second, after one report of each of four senders with these deliveries by fallback of 100. The
    /// sender 1 has no path to one other.
    fn first_failure(by_fallback: [u32; 4], unreached: usize, seconds: std::ops::Range<u64>) -> Option<u64> {
        let mut health = Health::default();
        (0..40).find(|&now| {
            for (sender, by_fallback) in (1..).zip(by_fallback).filter(|_| seconds.contains(&now)) {
                health.record(member(sender), (100, by_fallback), (unreached, 4), at(now));
            }
            check(&mut health, &[(1, 2)], 9, now).is_some()
        })
    }

    #[test]
    fn share_above_the_limit_fails_after_ten_seconds() {
        assert_eq!(first_failure([25; 4], 1, 0..40), Some(10));
        assert_eq!(first_failure([20; 4], 1, 0..40), None);
    }

    #[test]
    fn short_burst_of_fallback_is_no_failure() {
        assert_eq!(first_failure([100; 4], 4, 3..7), None);
        assert_eq!(first_failure([100; 4], 4, 3..9), Some(13));
    }

    #[test]
    fn fallback_to_reachable_members_is_not_counted() {
        assert_eq!(first_failure([100; 4], 0, 0..40), None);
    }

    #[test]
    fn one_sender_cannot_condemn_the_mesh() {
        let mut health = Health::default();
        for now in 0..40 {
            for sender in 1..=10 {
                health.record(member(sender), (100, 11), (1, 9), at(now));
            }
            health.record(member(11), (u32::MAX, u32::MAX), (9, 9), at(now));
            assert_eq!(check(&mut health, &[(1, 11)], 9, now), None);
        }
    }
}
