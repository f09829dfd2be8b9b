//! The timers of a session: liveness checks, idle checks and the republication of its last heartbeat.

use protocol::timing::REPUBLISH_SPREAD;
use tokio::{
    sync::watch,
    time::{self, Instant, Interval, MissedTickBehavior},
};
use ws::{KeepAlive, Liveness};

use crate::settings::Settings;

/// The timers of one session.
#[derive(Debug)]
pub(crate) struct SessionTimers {
    keep_alive: KeepAlive,
    idle_checks: Interval,
    republish_ticks: Interval,
    /// Changes when a process on the bus requests the roster.
    roster_requests: watch::Receiver<()>,
}

/// A timer that is due.
#[derive(Debug)]
pub(crate) enum Timer {
    /// Check whether the client was active recently.
    Liveness,
    /// Check whether the client sends heartbeats.
    Idle,
    /// Check whether the last publication is long ago.
    Republish,
    /// The time that the session scheduled for a republication.
    RepublishScheduled,
    /// The roster was requested: republish at this time.
    RosterRequest { republish_at: Instant },
}

impl SessionTimers {
    /// Starts the timers of a new session.
    pub(crate) fn new(settings: &Settings, roster_requests: watch::Receiver<()>) -> Self {
        let keep_alive = KeepAlive::new(settings.ping_interval, Instant::now());
        let mut idle_checks = time::interval(settings.ping_interval);
        let mut republish_ticks = time::interval(settings.republish_interval);
        idle_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        republish_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_checks.reset();
        republish_ticks.reset();
        Self { keep_alive, idle_checks, republish_ticks, roster_requests }
    }

    /// Waits for the next timer, or until the scheduled republication. Cancel-safe.
    pub(crate) async fn next(&mut self, republish_at: Option<Instant>) -> Timer {
        tokio::select! {
            biased;
            () = time::sleep_until(self.keep_alive.due_at()) => Timer::Liveness,
            _ = self.idle_checks.tick() => Timer::Idle,
            _ = self.republish_ticks.tick() => Timer::Republish,
            () = sleep_until(republish_at) => Timer::RepublishScheduled,
            // `changed` cannot fail: the sender lives as long as the gateway.
            _ = self.roster_requests.changed() => {
                let delay = REPUBLISH_SPREAD.mul_f64(rand::random());
                Timer::RosterRequest { republish_at: Instant::now() + delay }
            }
        }
    }

    /// Records that something arrived from the client.
    pub(crate) fn record_arrival(&mut self) {
        self.keep_alive.record_activity();
    }

    /// The liveness of a client that was last active at `active`. Schedules the next check.
    pub(crate) fn check_liveness(&mut self, active: Instant, now: Instant) -> Liveness {
        self.keep_alive.check(active, now)
    }

    /// Whether all allowed pings are unanswered.
    pub(crate) fn is_unresponsive(&self) -> bool {
        self.keep_alive.is_unresponsive()
    }
}

/// Waits until the given time; without one, forever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
