use std::time::Duration;

use tokio::{
    sync::watch,
    time::{self, Instant, Interval, MissedTickBehavior},
};

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
    pings: Interval,
    vouches: Interval,
    /// Somebody on the bus asks who is there.
    wanted: watch::Receiver<()>,
}

impl<'a> Timers<'a> {
    /// The timers of a session that begins now.
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let settings = &shared.settings;
        let mut pings = time::interval(settings.ping_interval);
        let mut vouches = time::interval(settings.vouch_interval);
        // A process that was stopped for a while does not blame its clients.
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        vouches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        vouches.reset();
        Self { settings, pings, vouches, wanted: shared.peers_wanted.subscribe() }
    }

    /// What is to be done next. Cancel-safe.
    pub(crate) async fn next(&mut self, state: &mut LiveState) -> Live {
        tokio::select! {
            biased;
            _ = self.pings.tick() => state.ping(self.settings, Instant::now()),
            _ = self.vouches.tick() => state.vouch(self.settings, Instant::now()),
            () = until(state.repeat_at()) => state.repeat(self.settings, Instant::now()),
            // The other end lives as long as the gateway.
            _ = self.wanted.changed() => {
                state.wanted(Instant::now() + SPREAD.mul_f64(rand::random()));
                Live::Ignore
            }
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
