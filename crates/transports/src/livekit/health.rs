//! Decides from the replies to probes whether a LiveKit server is healthy. No I/O.

use std::time::Duration;

use tokio::time::Instant;

use super::api::ApiError;

/// The health of a server, from the replies to its probes.
///
/// A server with a slow API still serves media, and each change of its health moves islands. So a late reply
/// is as good as an early one. A server is dead after two failures in a row, or when it has replied to no probe
/// for the hang timeout. It is healthy again after it has replied without a failure for the settling time. That
/// time doubles whenever the server died within [`RELAPSE_WINDOW`] of its last recovery. If the state is
/// unknown, the first reply makes the server healthy.
#[derive(Debug)]
pub(crate) struct Health {
    hang_timeout: Duration,
    settling: Duration,
    state: HealthState,
    /// Failures in a row.
    failures: u32,
    /// When the first probe was sent that no reply has followed yet.
    unanswered_since: Option<Instant>,
    /// When the latest of the answered probes was sent.
    last_answered: Option<Instant>,
    /// Since when a dead server has replied without a failure.
    well_since: Option<Instant>,
    recovered_at: Option<Instant>,
    /// How often in a row the server died soon after its recovery.
    relapses: u32,
}

/// The state of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HealthState {
    /// No probe has been answered, and it has not failed for long enough.
    Unknown,
    /// It serves rooms.
    Healthy,
    /// It does not, for this reason.
    Dead(ApiError),
}

/// A failure that is followed by a reply is ignored.
const FAILURES_TO_DEAD: u32 = 2;
/// A server that dies this soon after its recovery has to be well for longer the next time.
const RELAPSE_WINDOW: Duration = Duration::from_secs(600);
/// The longest time for which a server has to be well.
const MAX_SETTLING: Duration = Duration::from_secs(600);
/// Keeps the doubled time within bounds.
const MAX_RELAPSES: u32 = 16;

impl Health {
    pub(crate) fn new(hang_timeout: Duration, settling: Duration) -> Self {
        Self {
            hang_timeout,
            settling,
            state: HealthState::Unknown,
            failures: 0,
            unanswered_since: None,
            last_answered: None,
            well_since: None,
            recovered_at: None,
            relapses: 0,
        }
    }

    pub(crate) fn state(&self) -> &HealthState {
        &self.state
    }

    /// A probe was sent.
    pub(crate) fn probe_sent(&mut self, now: Instant) {
        self.unanswered_since.get_or_insert(now);
    }

    /// The probe that was sent at `sent_at` was answered.
    pub(crate) fn answered(&mut self, sent_at: Instant, now: Instant) {
        (self.failures, self.unanswered_since) = (0, None);
        self.last_answered = self.last_answered.max(Some(sent_at));
        match self.state {
            HealthState::Unknown => self.state = HealthState::Healthy,
            HealthState::Healthy => {}
            HealthState::Dead(_) => drop(self.well_since.get_or_insert(now)),
        }
    }

    /// The probe that was sent at `sent_at` failed. Returns whether to probe again at once: one failure proves nothing,
    /// and that of a probe from before the last answered one nothing either, such as a probe that was lost.
    pub(crate) fn failed(&mut self, error: ApiError, sent_at: Instant, now: Instant) -> bool {
        if self.last_answered.is_some_and(|answered| sent_at <= answered) {
            return false;
        }
        (self.unanswered_since, self.well_since) = (None, None);
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_TO_DEAD {
            return !matches!(self.state, HealthState::Dead(_));
        }
        self.die(error, now);
        false
    }

    /// Applies the time that has passed.
    pub(crate) fn advance(&mut self, now: Instant) {
        if self.hang_deadline().is_some_and(|deadline| deadline <= now) {
            self.die(ApiError::TimedOut(self.hang_timeout), now);
        }
        if let Some(since) = self.well_since
            && now.saturating_duration_since(since) >= self.required_settling()
        {
            (self.state, self.well_since, self.recovered_at) = (HealthState::Healthy, None, Some(now));
        }
    }

    /// When the server counts as dead unless it replies.
    pub(crate) fn hang_deadline(&self) -> Option<Instant> {
        Some(self.unanswered_since? + self.hang_timeout)
    }

    fn die(&mut self, error: ApiError, now: Instant) {
        // While it hangs, the next deadline is one timeout later.
        (self.unanswered_since, self.well_since) = (None, None);
        if !matches!(self.state, HealthState::Dead(_)) {
            let is_relapse =
                self.recovered_at.is_some_and(|at| now.saturating_duration_since(at) < RELAPSE_WINDOW);
            self.relapses = if is_relapse { (self.relapses + 1).min(MAX_RELAPSES) } else { 0 };
        }
        self.state = HealthState::Dead(error);
    }

    /// How long a dead server has to be well.
    fn required_settling(&self) -> Duration {
        self.settling.saturating_mul(1 << self.relapses).min(MAX_SETTLING.max(self.settling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server that is watched from second 0 on.
    struct Watched {
        health: Health,
        start: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Self { health: Health::new(3 * SECOND, 3 * SECOND), start: Instant::now() }
        }

        fn at(&self, second: f64) -> Instant {
            self.start + Duration::from_secs_f64(second)
        }

        fn healthy() -> Self {
            let mut watched = Self::new();
            watched.answer(0.0);
            assert!(watched.is_healthy());
            watched
        }

        fn answer(&mut self, second: f64) {
            let now = self.at(second);
            self.health.probe_sent(now);
            self.health.answered(now, now);
            self.health.advance(now);
        }

        fn fail(&mut self, second: f64) -> bool {
            let now = self.at(second);
            self.health.probe_sent(now);
            let again = self.health.failed(ApiError::Failed, now, now);
            self.health.advance(now);
            again
        }

        fn is_healthy(&self) -> bool {
            self.health.state == HealthState::Healthy
        }

        /// When it is healthy again, if it answers every second from now on.
        fn recovery(&mut self, from: u32) -> u32 {
            (from..from + 2_000)
                .find(|&second| {
                    self.answer(f64::from(second));
                    self.is_healthy()
                })
                .unwrap()
        }
    }

    #[test]
    fn server_is_dead_after_two_failures_in_a_row() {
        let mut watched = Watched::healthy();
        assert!(watched.fail(1.0), "probed again at once");
        assert!(watched.is_healthy());
        watched.answer(1.0);
        assert!(watched.fail(2.0));
        assert!(!watched.fail(2.0));
        assert_eq!(watched.health.state, HealthState::Dead(ApiError::Failed));
        let mut unknown = Watched::new();
        assert!(unknown.fail(0.0));
        assert_eq!(unknown.health.state, HealthState::Unknown);
        unknown.fail(0.0);
        assert_eq!(unknown.health.state, HealthState::Dead(ApiError::Failed));
    }

    #[test]
    fn slow_server_stays_healthy_and_hung_server_does_not() {
        let mut watched = Watched::healthy();
        for second in 1..60 {
            let sent = watched.at(f64::from(second) * 3.0);
            watched.health.probe_sent(sent);
            watched.health.advance(sent + SECOND * 29 / 10);
            assert!(watched.is_healthy());
            watched.health.answered(sent, sent + SECOND * 29 / 10);
        }
        let sent = watched.at(200.0);
        watched.health.probe_sent(sent);
        watched.health.probe_sent(sent + SECOND);
        assert_eq!(watched.health.hang_deadline(), Some(sent + 3 * SECOND), "of the first unanswered probe");
        watched.health.advance(sent + 3 * SECOND);
        assert_eq!(watched.health.state, HealthState::Dead(ApiError::TimedOut(3 * SECOND)));
    }

    #[test]
    fn late_failure_of_a_lost_probe_is_ignored() {
        let mut watched = Watched::healthy();
        let lost = [1.0, 2.0].map(|second| watched.at(second));
        lost.iter().for_each(|sent| watched.health.probe_sent(*sent));
        watched.answer(2.5);
        for sent in lost {
            assert!(!watched.health.failed(ApiError::TimedOut(10 * SECOND), sent, sent + 10 * SECOND));
        }
        assert!(watched.is_healthy());
    }

    #[test]
    fn recovery_takes_the_settling_time_without_a_failure() {
        let mut watched = Watched::healthy();
        watched.fail(1.0);
        watched.fail(1.0);
        watched.answer(2.0);
        watched.answer(4.0);
        watched.fail(4.5);
        assert_eq!(watched.recovery(5), 8);
    }

    #[test]
    fn relapse_doubles_the_settling_time_up_to_a_limit() {
        let mut watched = Watched::healthy();
        let mut second = 10;
        let mut times = Vec::new();
        for _ in 0..10 {
            watched.fail(f64::from(second));
            watched.fail(f64::from(second));
            let recovered = watched.recovery(second + 1);
            times.push(recovered - second - 1);
            second = recovered + 1;
        }
        assert_eq!(times, [3, 6, 12, 24, 48, 96, 192, 384, 600, 600]);
        second += 700;
        watched.fail(f64::from(second));
        watched.fail(f64::from(second));
        assert_eq!(watched.recovery(second + 1), second + 4, "it was well for long");
    }
}
