use std::time::Duration;

use protocol::Close;
use tokio::{
    sync::watch,
    time::{self, Instant, Interval, MissedTickBehavior},
};
use ws::{KeepAlive, Liveness};

use crate::{
    Settings,
    gateway::Shared,
    session_state::{SessionAction, SessionState},
};

/// Over how long the clients of a gateway are spread when it is asked who is there.
const REPUBLISH_SPREAD: Duration = Duration::from_secs(1);

/// When something is done for a client that did not ask for it.
#[derive(Debug)]
pub(crate) struct SessionTimers<'a> {
    settings: &'a Settings,
    keep_alive: KeepAlive,
    idle_checks: Interval,
    republish_ticks: Interval,
    /// Somebody on the bus asks who is there.
    presence_requests: watch::Receiver<()>,
}

impl<'a> SessionTimers<'a> {
    /// The timers of a session that begins now.
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let settings = &shared.settings;
        let keep_alive = KeepAlive::new(settings.ping_interval, Instant::now());
        let mut idle_checks = time::interval(settings.ping_interval);
        let mut vouches = time::interval(settings.republish_interval);
        idle_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        vouches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_checks.reset();
        vouches.reset();
        Self {
            settings,
            keep_alive,
            idle_checks,
            republish_ticks: vouches,
            presence_requests: shared.presence_requests.subscribe(),
        }
    }

    /// What is to be done next. Cancel-safe.
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
            // The other end lives as long as the gateway.
            _ = self.presence_requests.changed() => {
                state.request_republish(Instant::now() + REPUBLISH_SPREAD.mul_f64(rand::random()));
                SessionAction::Ignore
            }
        }
    }

    /// Records that something arrived from the client.
    pub(crate) fn record_arrival(&mut self) {
        self.keep_alive.record_activity();
    }

    /// Replaces [`Live::CheckLiveness`] by its outcome for a client that was active last at `active`. Any other step
    /// is returned as it is.
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

/// Waits until then; without a time, for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
