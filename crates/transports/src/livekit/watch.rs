//! Probes a LiveKit server, and reports its health.

use std::{fmt, sync::Arc, time::Duration};

use protocol::timing::NODE_ANNOUNCE_INTERVAL;
use tokio::{
    task::JoinSet,
    time::{self, Instant, Interval, MissedTickBehavior},
};

use super::{
    api::{ApiClient, ApiError},
    health::{Health, HealthState},
};

/// Probes a server every second, also while earlier probes are unanswered, and reports its state every second.
/// A probe lists the rooms of the server: a reply shows that it runs and accepts the API key.
pub struct HealthWatch {
    api: Arc<ApiClient>,
    health: Health,
    ticks: Interval,
    probes: JoinSet<(Instant, Result<Vec<String>, ApiError>)>,
    /// The rooms of the last reply, until they are reported.
    rooms: Option<Vec<String>>,
    latency: Option<Duration>,
    reported: HealthState,
}

/// The state of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// Whether it is healthy, or why it is not.
    pub health: Result<(), ApiError>,
    /// Whether this is the first report, or the server became healthy or unhealthy with it.
    pub changed: bool,
    /// The names of its rooms; `None` if it has sent no list since the last report.
    pub rooms: Option<Vec<String>>,
    /// How long the last reply took; `None` before the first.
    pub latency: Option<Duration>,
}

/// At most so many probes are unanswered; none is sent beyond. More than the seconds of the longest hang timeout.
const MAX_PROBES: usize = 64;

impl HealthWatch {
    /// Starts to watch a server. It is dead if it replies to no probe for `hang_timeout`, and healthy again
    /// after it has been well for `settling`, or for longer if it died again soon. Needs a runtime with timers
    /// and sockets.
    pub fn new(api: Arc<ApiClient>, hang_timeout: Duration, settling: Duration) -> Self {
        let mut ticks = time::interval(NODE_ANNOUNCE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            api,
            health: Health::new(hang_timeout, settling),
            ticks,
            probes: JoinSet::new(),
            rooms: None,
            latency: None,
            reported: HealthState::Unknown,
        }
    }

    /// The state of the server: once it is known, and again every second and at each change. Cancel-safe.
    pub async fn next(&mut self) -> HealthReport {
        loop {
            let deadline = self.health.hang_deadline();
            let mut is_tick = false;
            tokio::select! {
                biased;
                Some(probe) = self.probes.join_next() => {
                    // A probe neither panics nor is cancelled.
                    if let Ok((sent_at, result)) = probe {
                        self.observe(sent_at, result);
                    }
                }
                () = time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
                _ = self.ticks.tick() => {
                    is_tick = true;
                    self.start_probe();
                }
            }
            self.health.advance(Instant::now());
            if let Some(report) = self.report(is_tick) {
                return report;
            }
        }
    }

    fn observe(&mut self, sent_at: Instant, result: Result<Vec<String>, ApiError>) {
        let now = Instant::now();
        match result {
            Ok(rooms) => {
                self.health.answered(sent_at, now);
                self.latency = Some(now - sent_at);
                self.rooms = Some(rooms);
            }
            Err(error) => {
                if self.health.failed(error, sent_at, now) {
                    self.start_probe();
                }
            }
        }
    }

    fn start_probe(&mut self) {
        if self.probes.len() < MAX_PROBES {
            self.health.probe_sent(Instant::now());
            let api = self.api.clone();
            self.probes.spawn(async move {
                let sent_at = Instant::now();
                let result = api.rooms().await;
                (sent_at, result)
            });
        }
    }

    /// The report that is due: a changed state, or on a tick the same again. A server without a report for some
    /// seconds counts as gone.
    fn report(&mut self, is_tick: bool) -> Option<HealthReport> {
        let state = self.health.state();
        let is_dead = |state: &HealthState| matches!(state, HealthState::Dead(_));
        let changed = self.reported == HealthState::Unknown || is_dead(state) != is_dead(&self.reported);
        let health = match state {
            HealthState::Unknown => return None,
            HealthState::Healthy => Ok(()),
            HealthState::Dead(error) => Err(error.clone()),
        };
        if !changed && !is_tick {
            return None;
        }
        self.reported = state.clone();
        Some(HealthReport { health, changed, rooms: self.rooms.take(), latency: self.latency })
    }
}

impl fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthWatch")
            .field("api", &self.api)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::livekit::stub::{Behaviour, LONG_TIMEOUT, Stub};

    const SECOND: Duration = Duration::from_secs(1);

    async fn watch(behaviour: Behaviour, hang_timeout: Duration) -> (Stub, HealthWatch) {
        let server = Stub::start(behaviour).await;
        let api = Arc::new(server.client(LONG_TIMEOUT));
        (server, HealthWatch::new(api, hang_timeout, SECOND))
    }

    /// The next report of a change. Until then the state is reported every second.
    async fn next_change(watch: &mut HealthWatch) -> HealthReport {
        for _ in 0..30 {
            let report = watch.next().await;
            if report.changed {
                return report;
            }
        }
        panic!("no change")
    }

    #[tokio::test]
    async fn hung_server_is_dead_after_the_hang_timeout() {
        let (server, mut watch) = watch(Behaviour::Answers, SECOND / 2).await;
        let first = watch.next().await;
        assert_eq!((first.health, first.changed), (Ok(()), true));
        assert_eq!(first.rooms.map(|rooms| rooms.len()), Some(3));
        assert!(!watch.next().await.changed, "the same, a second later");
        server.set_behaviour(Behaviour::Hangs);
        let began = Instant::now();
        let dead = next_change(&mut watch).await;
        assert_eq!(dead.health, Err(ApiError::TimedOut(SECOND / 2)));
        assert!(began.elapsed() >= SECOND / 2);
        server.set_behaviour(Behaviour::Answers);
        let began = Instant::now();
        assert_eq!(next_change(&mut watch).await.health, Ok(()));
        assert!(began.elapsed() >= SECOND / 2, "it has to be well for the settling time");
    }

    #[tokio::test]
    async fn unanswered_probes_change_nothing_before_the_timeout() {
        let (server, mut watch) = watch(Behaviour::Answers, LONG_TIMEOUT).await;
        assert!(watch.next().await.changed);
        server.set_behaviour(Behaviour::Hangs);
        for _ in 0..4 {
            let report = watch.next().await;
            assert_eq!((report.health, report.changed), (Ok(()), false));
        }
        assert!(server.requests() >= 3, "one each second");
    }

    #[tokio::test]
    async fn server_that_refuses_the_key_is_dead_after_two_probes() {
        let (server, mut watch) = watch(Behaviour::RefusesInJson, LONG_TIMEOUT).await;
        let report = watch.next().await;
        assert_eq!((report.health, report.changed), (Err(ApiError::Refused), true));
        assert_eq!(server.requests(), 2);
    }
}
