//! The timers of a session: liveness checks, idle checks and the republication of its last heartbeat.

use std::time::Duration;

use protocol::Close;
use tokio::{
    sync::watch,
    time::{self, Instant, Interval, MissedTickBehavior},
};
use ws::{KeepAlive, Liveness};

use crate::{
    session::state::{SessionAction, SessionState},
    settings::Settings,
    shared::Shared,
};

/// Period over which the sessions of a gateway spread their responses to a roster request, at random.
const REPUBLISH_SPREAD: Duration = Duration::from_secs(1);

/// The timers of one session.
#[derive(Debug)]
pub(crate) struct SessionTimers<'a> {
    settings: &'a Settings,
    keep_alive: KeepAlive,
    idle_checks: Interval,
    republish_ticks: Interval,
    /// Changes when a process on the bus requests the roster.
    roster_requests: watch::Receiver<()>,
}

impl<'a> SessionTimers<'a> {
    /// Starts the timers of a new session.
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let settings = &shared.settings;
        let keep_alive = KeepAlive::new(settings.ping_interval, Instant::now());
        let mut idle_checks = time::interval(settings.ping_interval);
        let mut republish_ticks = time::interval(settings.republish_interval);
        idle_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        republish_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_checks.reset();
        republish_ticks.reset();
        Self {
            settings,
            keep_alive,
            idle_checks,
            republish_ticks,
            roster_requests: shared.roster_requests.subscribe(),
        }
    }

    /// Waits for the next timer and returns its action. Cancel-safe.
    pub(crate) async fn next(&mut self, state: &mut SessionState) -> SessionAction {
        tokio::select! {
            biased;
            () = self.keep_alive.due() => SessionAction::CheckLiveness,
            _ = self.idle_checks.tick() => state.check_idle(self.settings, Instant::now()),
            _ = self.republish_ticks.tick() => {
                state.republish_if_due(self.settings, self.keep_alive.is_unresponsive(), Instant::now())
            }
            () = sleep_until(state.republish_at()) => {
                state.republish(self.settings, self.keep_alive.is_unresponsive(), Instant::now())
            }
            // `changed` cannot fail: the sender lives as long as the gateway.
            _ = self.roster_requests.changed() => {
                state.request_republish(Instant::now() + REPUBLISH_SPREAD.mul_f64(rand::random()));
                SessionAction::Ignore
            }
        }
    }

    /// Records that something arrived from the client.
    pub(crate) fn record_arrival(&mut self) {
        self.keep_alive.record_activity();
    }

    /// Replaces [`SessionAction::CheckLiveness`] by its outcome for a client that was last active at
    /// `active`. Any other action is returned unchanged.
    pub(crate) fn resolve_check(&mut self, next_step: SessionAction, active: Instant) -> SessionAction {
        if next_step != SessionAction::CheckLiveness {
            return next_step;
        }
        match self.keep_alive.check(active, Instant::now()) {
            Liveness::Alive => SessionAction::Ignore,
            Liveness::Silent => SessionAction::Ping,
            Liveness::Dead => SessionAction::End(Close::Silent),
        }
    }
}

/// Waits until the given time; without one, forever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
