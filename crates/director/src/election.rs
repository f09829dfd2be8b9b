//! A director's part in the leader election.

use std::time::{Duration, Instant};

use bus::{Bus, Candidate, ElectionState, Headers};
use protocol::{Subject, timing::LISTEN_TIME};
use tokio::runtime::Handle;

/// The lease of the director that leads.
const LEASE_NAME: &str = "director";

/// The leader election as one of several directors sees it.
///
/// A director without state asks gateways to repeat the heartbeats of all clients, collects them for a while
/// and only then campaigns. Otherwise it would send every client a new assignment.
pub(crate) struct Election {
    bus: Bus,
    /// How long it collects heartbeats; zero within a process, where no peer exists before the director.
    listen_time: Duration,
    /// The runtime of the campaign, which must not be delayed by a flush.
    runtime: Handle,
    phase: Phase,
}

enum Phase {
    ListeningUntil(Instant),
    Campaigning(Candidate),
}

impl Election {
    pub(crate) fn new(bus: Bus, runtime: Handle) -> Self {
        let listen_time = if bus.is_shared() { LISTEN_TIME } else { Duration::ZERO };
        let mut election = Self { bus, listen_time, runtime, phase: Phase::ListeningUntil(Instant::now()) };
        election.start_listening();
        election
    }

    /// Starts to collect heartbeats, and ends the campaign if there is one.
    pub(crate) fn start_listening(&mut self) {
        self.request_peers();
        let listening = Phase::ListeningUntil(Instant::now() + self.listen_time);
        if let Phase::Campaigning(candidate) = std::mem::replace(&mut self.phase, listening) {
            // If the lease is still held, its release saves the others the wait for its expiry.
            self.runtime.spawn(candidate.resign());
        }
    }

    /// Asks gateways to repeat the heartbeats of all clients.
    pub(crate) fn request_peers(&self) {
        self.bus.publish(&Subject::PeersWanted, Headers::default(), "");
    }

    /// Whether it campaigns. Before that, [`Election::state`] returns a state that is not based on the lease.
    pub(crate) fn is_campaigning(&self) -> bool {
        matches!(self.phase, Phase::Campaigning(_))
    }

    /// The state at this moment. Starts the campaign once heartbeats were collected for long enough.
    pub(crate) fn state(&mut self) -> ElectionState {
        let until = match &mut self.phase {
            Phase::Campaigning(candidate) => return candidate.state(),
            Phase::ListeningUntil(until) => until,
        };
        let now = Instant::now();
        if self.bus.is_disconnected() {
            // Heartbeats cannot be received: the time starts again.
            *until = now + self.listen_time;
        }
        if now < *until {
            return ElectionState::Standby;
        }
        let _runtime = self.runtime.enter();
        let candidate = self.bus.campaign(LEASE_NAME);
        let state = candidate.state();
        self.phase = Phase::Campaigning(candidate);
        state
    }

    /// Releases the lease for good, so that another director takes over at once.
    pub(crate) async fn resign(self) {
        if let Phase::Campaigning(candidate) = self.phase {
            candidate.resign().await;
        }
    }
}
