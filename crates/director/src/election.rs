//! When a director may lead.

use std::time::{Duration, Instant};

use bus::{Bus, Candidate, ElectionState, Headers};
use protocol::Subject;
use tokio::runtime::Handle;

/// The word for what one director at a time holds.
const LEASE_NAME: &str = "director";
/// For how long it is listened who is there: gateways say it within a second.
const LISTEN_TIME: Duration = Duration::from_millis(1_500);

/// The office of the director that leads, as one of several directors sees it.
///
/// Whoever knows nothing has everybody repeat where they are, listens for a while and only then
/// stands for it: it would tell everybody everything otherwise.
pub(crate) struct Election {
    bus: Bus,
    /// For how long it listens; within a process nobody is there before it.
    listen_time: Duration,
    /// Where the campaign runs, which must not wait for a flush.
    runtime: Handle,
    phase: Phase,
}

enum Phase {
    ListeningUntil(Instant),
    Campaigning(Candidate),
}

impl Election {
    pub(crate) fn new(bus: Bus, runtime: Handle) -> Self {
        let listen = if bus.is_shared() { LISTEN_TIME } else { Duration::ZERO };
        let mut office =
            Self { bus, listen_time: listen, runtime, phase: Phase::ListeningUntil(Instant::now()) };
        office.start_listening();
        office
    }

    /// Begins to listen. Who stood for the office stands for it no more.
    pub(crate) fn start_listening(&mut self) {
        self.request_peers();
        let listens = Phase::ListeningUntil(Instant::now() + self.listen_time);
        if let Phase::Campaigning(candidacy) = std::mem::replace(&mut self.phase, listens) {
            // If it is still ours, others need not wait for its end.
            self.runtime.spawn(candidacy.resign());
        }
    }

    /// Has gateways repeat where their clients are.
    pub(crate) fn request_peers(&self) {
        self.bus.publish(&Subject::PeersWanted, Headers::default(), "");
    }

    /// Whether it competes for the lease. Before that, what [`Election::state`] returns is no knowledge of a leader.
    pub(crate) fn is_campaigning(&self) -> bool {
        matches!(self.phase, Phase::Campaigning(_))
    }

    /// How it is right now. Stands for it from now on if that is long enough to have listened.
    pub(crate) fn state(&mut self) -> ElectionState {
        let until = match &mut self.phase {
            Phase::Campaigning(candidacy) => return candidacy.state(),
            Phase::ListeningUntil(until) => until,
        };
        let now = Instant::now();
        if self.bus.is_disconnected() {
            // Nobody can be heard.
            *until = now + self.listen_time;
        }
        if now < *until {
            return ElectionState::Standby;
        }
        let _runtime = self.runtime.enter();
        let candidacy = self.bus.campaign(LEASE_NAME);
        let standing = candidacy.state();
        self.phase = Phase::Campaigning(candidacy);
        standing
    }

    /// Gives it up for good, so that the next one takes over at once.
    pub(crate) async fn resign(self) {
        if let Phase::Campaigning(candidacy) = self.phase {
            candidacy.resign().await;
        }
    }
}
