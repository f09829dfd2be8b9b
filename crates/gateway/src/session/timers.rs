//! The timers of a session: liveness checks, idle checks and the republication of its last heartbeat.

use std::{pin::Pin, time::Duration};

use protocol::timing::REPUBLISH_SPREAD;
use tokio::{
    sync::watch,
    time::{self, Instant, Sleep},
};
use ws::{KeepAlive, Liveness};

use crate::settings::Settings;

/// The timers of one session. They share one timer of the runtime, which is set to the earliest of them.
#[derive(Debug)]
pub(crate) struct SessionTimers {
    keep_alive: KeepAlive,
    idle_checks: Ticks,
    republish_ticks: Ticks,
    /// Changes when a process on the bus requests the roster.
    roster_requests: watch::Receiver<()>,
    sleep: Pin<Box<Sleep>>,
}

/// A timer that is due.
#[derive(Debug, PartialEq, Eq)]
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

/// A periodic timer. After a late tick the next one is due one period later.
#[derive(Debug)]
struct Ticks {
    period: Duration,
    due_at: Instant,
}

impl Ticks {
    fn new(period: Duration, now: Instant) -> Self {
        Self { period, due_at: now + period }
    }

    /// Whether a tick is due. If so, schedules the next one.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due_at <= now;
        if is_due {
            self.due_at = now + self.period;
        }
        is_due
    }
}

impl SessionTimers {
    /// Starts the timers of a new session.
    pub(crate) fn new(settings: &Settings, roster_requests: watch::Receiver<()>) -> Self {
        let now = Instant::now();
        let keep_alive = KeepAlive::new(settings.ping_interval, now);
        let sleep = Box::pin(time::sleep_until(keep_alive.due_at()));
        let idle_checks = Ticks::new(settings.ping_interval, now);
        let republish_ticks = Ticks::new(settings.republish_interval, now);
        Self { keep_alive, idle_checks, republish_ticks, roster_requests, sleep }
    }

    /// Waits for the next timer, or until the scheduled republication. Cancel-safe. The caller must respond to
    /// [`Timer::Liveness`] with [`Self::check_liveness`], and to [`Timer::RepublishScheduled`] with the
    /// republication, because these stay due until then.
    pub(crate) async fn next(&mut self, republish_at: Option<Instant>) -> Timer {
        let earliest = self.earliest(republish_at);
        if self.sleep.deadline() != earliest {
            self.sleep.as_mut().reset(earliest);
        }
        tokio::select! {
            biased;
            () = &mut self.sleep => self.take_due(Instant::now().max(earliest)),
            // `changed` cannot fail: the sender lives as long as the gateway.
            _ = self.roster_requests.changed() => {
                let delay = REPUBLISH_SPREAD.mul_f64(rand::random());
                Timer::RosterRequest { republish_at: Instant::now() + delay }
            }
        }
    }

    fn earliest(&self, republish_at: Option<Instant>) -> Instant {
        let earliest = self.keep_alive.due_at().min(self.idle_checks.due_at).min(self.republish_ticks.due_at);
        republish_at.map_or(earliest, |at| at.min(earliest))
    }

    /// The first timer that is due, in the order of their priority. The earliest one must be due.
    fn take_due(&mut self, now: Instant) -> Timer {
        if self.keep_alive.due_at() <= now {
            Timer::Liveness
        } else if self.idle_checks.take(now) {
            Timer::Idle
        } else if self.republish_ticks.take(now) {
            Timer::Republish
        } else {
            Timer::RepublishScheduled
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[tokio::test(start_paused = true)]
    async fn timers_are_due_in_order_of_time_and_then_priority() {
        let (start, requests) = (Instant::now(), watch::Sender::new(()));
        let at = |second| start + Duration::from_secs(second);
        let mut timers = SessionTimers::new(&settings(), requests.subscribe());
        assert_eq!((timers.next(Some(at(2))).await, Instant::now()), (Timer::RepublishScheduled, at(2)));
        assert_eq!((timers.next(None).await, Instant::now()), (Timer::Republish, at(5)));
        for expected in [Timer::Liveness, Timer::Idle, Timer::Republish, Timer::RepublishScheduled] {
            assert_eq!((timers.next(Some(at(10))).await, Instant::now()), (expected, at(10)));
            timers.check_liveness(at(9), at(10));
        }
        requests.send_replace(());
        let Timer::RosterRequest { republish_at } = timers.next(None).await else { panic!("no request") };
        assert!((at(10)..=at(10) + REPUBLISH_SPREAD).contains(&republish_at));
        tokio::time::advance(Duration::from_secs(100)).await;
        for expected in [Timer::Liveness, Timer::Idle, Timer::Republish] {
            assert_eq!((timers.next(None).await, Instant::now()), (expected, at(110)), "late ticks");
            timers.check_liveness(at(109), at(110));
        }
        assert_eq!((timers.next(None).await, Instant::now()), (Timer::Republish, at(115)));
    }
}
