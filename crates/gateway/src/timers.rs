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
    live::{Live, LiveState},
};

/// Over how long the clients of a gateway are spread when it is asked who is there.
const SPREAD: Duration = Duration::from_secs(1);

/// When something is done for a client that did not ask for it.
#[derive(Debug)]
pub(crate) struct Timers<'a> {
    settings: &'a Settings,
    keep_alive: KeepAlive,
    idle_checks: Interval,
    vouches: Interval,
    /// Somebody on the bus asks who is there.
    wanted: watch::Receiver<()>,
}

impl<'a> Timers<'a> {
    /// The timers of a session that begins now.
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let settings = &shared.settings;
        let keep_alive = KeepAlive::new(settings.ping_interval, Instant::now());
        let mut idle_checks = time::interval(settings.ping_interval);
        let mut vouches = time::interval(settings.vouch_interval);
        idle_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        vouches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_checks.reset();
        vouches.reset();
        Self { settings, keep_alive, idle_checks, vouches, wanted: shared.peers_wanted.subscribe() }
    }

    /// What is to be done next. Cancel-safe.
    pub(crate) async fn next(&mut self, state: &mut LiveState) -> Live {
        tokio::select! {
            biased;
            () = self.keep_alive.due() => Live::Check,
            _ = self.idle_checks.tick() => state.check_idle(self.settings, Instant::now()),
            _ = self.vouches.tick() => {
                state.vouch(self.settings, self.keep_alive.is_in_doubt(), Instant::now())
            }
            () = until(state.repeat_at()) => {
                state.repeat(self.settings, self.keep_alive.is_in_doubt(), Instant::now())
            }
            // The other end lives as long as the gateway.
            _ = self.wanted.changed() => {
                state.wanted(Instant::now() + SPREAD.mul_f64(rand::random()));
                Live::Ignore
            }
        }
    }

    /// Records that something arrived from the client.
    pub(crate) fn arrived(&mut self) {
        self.keep_alive.arrived();
    }

    /// Replaces [`Live::Check`] by its outcome for a client that was active last at `active`. Any other step
    /// is returned as it is.
    pub(crate) fn checked(&mut self, next_step: Live, active: Instant) -> Live {
        if next_step != Live::Check {
            return next_step;
        }
        match self.keep_alive.check(active, Instant::now()) {
            Liveness::Alive => Live::Ignore,
            Liveness::Silent => Live::Ping,
            Liveness::Dead => Live::End(Close::Silent),
        }
    }
}

/// Waits until then; without a time, for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
