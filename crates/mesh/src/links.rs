//! The states of links, from the reports of both ends.
//!
//! A link is up while both ends report it. A pair is
//!
//! - *avoided* after its link was lost: one end reports it no longer;
//! - *blocked* after its link failed: both ends reported so, or one end and the link did not come up within
//!   [`ONE_SIDED_FAILURE`], or one end disconnected the other for flooding.
//!
//! Both end when the link is up again, or after a pause that doubles with each time, from
//! [`Settings::retry_after`](crate::Settings::retry_after) to 5 minutes. A link that was up for [`STABLE`] starts with
//! the shortest pause again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::Address;

use crate::settings::MAX_RETRY_AFTER;

/// A link that one end reported as failed, and that is not up after this time, has failed.
const ONE_SIDED_FAILURE: Duration = Duration::from_secs(5);
/// A link that was up for this long has no former failures.
const STABLE: Duration = Duration::from_secs(30);

/// Two members, the smaller address first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair(pub(crate) Address, pub(crate) Address);

impl Pair {
    pub(crate) fn new(a: Address, b: Address) -> Self {
        Self(a.min(b), a.max(b))
    }

    pub(crate) fn contains(self, member: Address) -> bool {
        self.0 == member || self.1 == member
    }
}

/// The lists of a report, resolved to members.
#[derive(Debug, Default)]
pub(crate) struct ReportedLinks {
    pub(crate) connected_to: BTreeSet<Address>,
    /// Only targets of a plan that the member had when it reported.
    pub(crate) failed: BTreeSet<Address>,
    pub(crate) flooding: BTreeSet<Address>,
}

/// The changes that a report made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkChanges {
    /// A link came up.
    pub(crate) came_up: bool,
    /// A link was lost or failed.
    pub(crate) obstructed: bool,
}

/// The states of all links of a mesh.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    retry_after: Duration,
    /// The members that each member is connected to, by its last report.
    connected_to: BTreeMap<Address, BTreeSet<Address>>,
    histories: BTreeMap<Pair, History>,
}

/// The past of a pair that was linked, or that failed to link.
#[derive(Debug, Clone, Default)]
struct History {
    up_since: Option<Duration>,
    /// When the smaller and when the greater address first reported a failure of the current attempt.
    failed_at: [Option<Duration>; 2],
    failures: u32,
    obstacle: Option<(Obstacle, Duration)>,
}

/// A reason against a link, until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Lost,
    Failed,
}

impl Links {
    pub(crate) fn new(retry_after: Duration) -> Self {
        Self { retry_after, connected_to: BTreeMap::new(), histories: BTreeMap::new() }
    }

    /// Whether both ends report the link.
    pub(crate) fn is_up(&self, Pair(a, b): Pair) -> bool {
        let reports = |from: Address, to: Address| {
            self.connected_to.get(&from).is_some_and(|links| links.contains(&to))
        };
        reports(a, b) && reports(b, a)
    }

    /// The links that are up, in order.
    pub(crate) fn up(&self) -> impl Iterator<Item = Pair> + '_ {
        self.connected_to.iter().flat_map(|(&member, others)| {
            let later = others.range(member..).filter(move |&&other| other != member);
            later.map(move |&other| Pair(member, other)).filter(|&pair| self.is_up(pair))
        })
    }

    /// Pairs that must not be linked now.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = Pair> + '_ {
        self.with_obstacle(Obstacle::Failed)
    }

    /// Pairs that should not be linked now if there is a choice.
    pub(crate) fn avoided(&self) -> impl Iterator<Item = Pair> + '_ {
        self.with_obstacle(Obstacle::Lost)
    }

    fn with_obstacle(&self, wanted: Obstacle) -> impl Iterator<Item = Pair> + '_ {
        let matches = move |history: &History| history.obstacle.is_some_and(|(kind, _)| kind == wanted);
        self.histories.iter().filter(move |(_, history)| matches(history)).map(|(&pair, _)| pair)
    }

    /// Removes a member and all its links.
    pub(crate) fn remove(&mut self, member: Address) {
        self.connected_to.remove(&member);
        for others in self.connected_to.values_mut() {
            others.remove(&member);
        }
        self.histories.retain(|pair, _| !pair.contains(member));
    }

    /// Records that a pair is no longer a target: a later attempt starts without failures of this one.
    pub(crate) fn forget_attempt(&mut self, pair: Pair) {
        if let Some(history) = self.histories.get_mut(&pair) {
            history.failed_at = [None; 2];
        }
    }

    /// Applies the report of a member.
    pub(crate) fn report(&mut self, member: Address, report: ReportedLinks, now: Duration) -> LinkChanges {
        let ReportedLinks { connected_to, failed, flooding } = report;
        let former = self.connected_to.get(&member).cloned().unwrap_or_default();
        let was_up: BTreeSet<Address> =
            former.into_iter().filter(|&other| self.is_up(Pair::new(member, other))).collect();
        self.connected_to.insert(member, connected_to.clone());
        let mut changes = LinkChanges::default();
        for &other in was_up.union(&connected_to) {
            let pair = Pair::new(member, other);
            let is_up = self.is_up(pair);
            if is_up == was_up.contains(&other) {
                continue;
            }
            let history = self.histories.entry(pair).or_default();
            if is_up {
                history.came_up(now);
                changes.came_up = true;
            } else {
                changes.obstructed = true;
                history.set_obstacle(Obstacle::Lost, self.retry_after, now);
            }
        }
        for &other in &failed {
            let pair = Pair::new(member, other);
            if !self.is_up(pair) {
                let history = self.histories.entry(pair).or_default();
                history.failed_at[usize::from(pair.1 == member)].get_or_insert(now);
                changes.obstructed |= history.block_if_failed(self.retry_after, now);
            }
        }
        for &other in &flooding {
            let history = self.histories.entry(Pair::new(member, other)).or_default();
            if history.obstacle.is_none_or(|(obstacle, _)| obstacle == Obstacle::Lost) {
                history.set_obstacle(Obstacle::Failed, self.retry_after, now);
                changes.obstructed = true;
            }
        }
        changes
    }

    /// Ends obstacles that are over, and blocks pairs that one end reported as failed. Returns whether anything changed.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        let mut is_changed = false;
        for history in self.histories.values_mut() {
            if history.obstacle.is_some_and(|(_, until)| until <= now) {
                history.obstacle = None;
                is_changed = true;
            }
            is_changed |= history.block_if_failed(self.retry_after, now);
        }
        is_changed
    }

    /// Whether [`expire`](Self::expire) may change something later.
    pub(crate) fn is_waiting(&self) -> bool {
        let is_waiting =
            |history: &History| history.obstacle.is_some() || history.failed_at.iter().any(Option::is_some);
        self.histories.values().any(is_waiting)
    }
}

impl History {
    fn came_up(&mut self, now: Duration) {
        self.up_since = Some(now);
        self.failed_at = [None; 2];
        // A neighbour that flooded stays blocked while its link still counts as up.
        if self.obstacle.is_some_and(|(obstacle, _)| obstacle == Obstacle::Lost) {
            self.obstacle = None;
        }
    }

    fn block_if_failed(&mut self, retry_after: Duration, now: Duration) -> bool {
        let has_failed = match self.failed_at {
            [Some(_), Some(_)] => true,
            [Some(at), None] | [None, Some(at)] => now.saturating_sub(at) >= ONE_SIDED_FAILURE,
            [None, None] => false,
        };
        if has_failed {
            self.set_obstacle(Obstacle::Failed, retry_after, now);
        }
        has_failed
    }

    fn set_obstacle(&mut self, obstacle: Obstacle, retry_after: Duration, now: Duration) {
        if self.up_since.take().is_some_and(|since| now.saturating_sub(since) >= STABLE) {
            self.failures = 0;
        }
        let pause = retry_after.saturating_mul(1 << self.failures.min(16)).min(MAX_RETRY_AFTER);
        self.failures = self.failures.saturating_add(1);
        self.failed_at = [None; 2];
        self.obstacle = Some((obstacle, now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = Address::new([1; 20]);
    const B: Address = Address::new([2; 20]);
    const PAIR: Pair = Pair(A, B);
    const UNCHANGED: LinkChanges = LinkChanges { came_up: false, obstructed: false };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn links() -> Links {
        Links::new(at(10))
    }

    fn connected(other: Address) -> ReportedLinks {
        ReportedLinks { connected_to: [other].into(), ..Default::default() }
    }

    fn failed(other: Address) -> ReportedLinks {
        ReportedLinks { failed: [other].into(), ..Default::default() }
    }

    #[test]
    fn link_is_up_while_both_ends_report_it() {
        let mut links = links();
        assert_eq!(links.report(A, connected(B), at(0)), UNCHANGED);
        assert!(!links.is_up(PAIR));
        assert!(links.report(B, connected(A), at(0)).came_up);
        assert_eq!(links.up().collect::<Vec<_>>(), [PAIR]);
        assert!(links.report(A, ReportedLinks::default(), at(1)).obstructed);
        assert!(!links.is_up(PAIR) && links.avoided().eq([PAIR]));
    }

    #[test]
    fn pair_that_both_report_failed_is_blocked_for_longer_each_time() {
        let mut links = links();
        let mut now = at(0);
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(links.report(A, failed(B), now), UNCHANGED);
            assert!(links.report(B, failed(A), now).obstructed);
            assert!(links.blocked().eq([PAIR]));
            assert!(!links.expire(now + at(pause - 1)));
            now += at(pause);
            assert!(links.expire(now) && links.blocked().next().is_none());
        }
    }

    #[test]
    fn failure_of_one_end_blocks_after_five_seconds() {
        let mut links = links();
        links.report(A, failed(B), at(0));
        links.report(A, failed(B), at(4));
        assert!(!links.expire(at(4)) && links.is_waiting());
        assert!(links.expire(at(5)) && links.blocked().eq([PAIR]));
    }

    #[test]
    fn failure_of_one_end_is_forgotten_when_the_link_is_up() {
        let mut links = links();
        links.report(A, failed(B), at(0));
        links.report(A, connected(B), at(1));
        links.report(B, connected(A), at(1));
        assert!(!links.expire(at(9)) && !links.is_waiting());
    }

    #[test]
    fn stable_link_is_avoided_for_the_shortest_pause() {
        let mut links = links();
        for (start, up_for, pause) in [(0, 1, 10), (100, 1, 20), (200, 30, 10)] {
            links.report(A, connected(B), at(start));
            links.report(B, connected(A), at(start));
            links.report(B, ReportedLinks::default(), at(start + up_for));
            assert!(!links.expire(at(start + up_for + pause - 1)) && links.avoided().eq([PAIR]));
            assert!(links.expire(at(start + up_for + pause)) && links.avoided().next().is_none());
        }
    }

    #[test]
    fn flooding_neighbour_is_blocked_at_once() {
        let mut links = links();
        let flooding = || ReportedLinks { flooding: [B].into(), ..Default::default() };
        assert!(links.report(A, flooding(), at(0)).obstructed && links.blocked().eq([PAIR]));
        assert_eq!(links.report(A, flooding(), at(1)), UNCHANGED);
    }

    #[test]
    fn removed_member_has_no_links_and_no_history() {
        let mut links = links();
        links.report(A, connected(B), at(0));
        links.report(B, connected(A), at(0));
        links.report(A, ReportedLinks::default(), at(1));
        links.remove(A);
        assert!(links.avoided().next().is_none() && links.up().next().is_none() && !links.is_waiting());
    }
}
