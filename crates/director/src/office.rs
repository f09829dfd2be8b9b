//! When a director may lead.

use std::time::{Duration, Instant};

use bus::{Bus, Candidacy, Headers, Standing};
use protocol::Subject;
use tokio::runtime::Handle;

/// The word for what one director at a time holds.
const OFFICE: &str = "director";
/// For how long it is listened who is there: gateways say it within a second.
const LISTEN: Duration = Duration::from_millis(1_500);

/// The office of the director that leads, as one of several directors sees it.
///
/// Whoever knows nothing has everybody repeat where they are, listens for a while and only then
/// stands for it: it would tell everybody everything otherwise.
pub(crate) struct Office {
    bus: Bus,
    /// For how long it listens; within a process nobody is there before it.
    listen: Duration,
    /// Where the campaign runs, which must not wait for a flush.
    runtime: Handle,
    stage: Stage,
}

enum Stage {
    ListensUntil(Instant),
    Stands(Candidacy),
}

impl Office {
    pub(crate) fn new(bus: Bus, runtime: Handle) -> Self {
        let listen = if bus.is_shared() { LISTEN } else { Duration::ZERO };
        let mut office = Self { bus, listen, runtime, stage: Stage::ListensUntil(Instant::now()) };
        office.listen();
        office
    }

    /// Begins to listen. Who stood for the office stands for it no more.
    pub(crate) fn listen(&mut self) {
        self.ask_who_is_there();
        let listens = Stage::ListensUntil(Instant::now() + self.listen);
        if let Stage::Stands(candidacy) = std::mem::replace(&mut self.stage, listens) {
            // If it is still ours, others need not wait for its end.
            self.runtime.spawn(candidacy.resign());
        }
    }

    /// Has gateways repeat where their clients are.
    pub(crate) fn ask_who_is_there(&self) {
        self.bus.publish(&Subject::PeersWanted, Headers::default(), "");
    }

    /// Whether it competes for the lease. Before that, what [`Office::standing`] returns is no knowledge of a leader.
    pub(crate) fn is_campaigning(&self) -> bool {
        matches!(self.stage, Stage::Stands(_))
    }

    /// How it is right now. Stands for it from now on if that is long enough to have listened.
    pub(crate) fn standing(&mut self) -> Standing {
        let until = match &mut self.stage {
            Stage::Stands(candidacy) => return candidacy.standing(),
            Stage::ListensUntil(until) => until,
        };
        let now = Instant::now();
        if self.bus.is_away() {
            // Nobody can be heard.
            *until = now + self.listen;
        }
        if now < *until {
            return Standing::Follows;
        }
        let _runtime = self.runtime.enter();
        let candidacy = self.bus.stand(OFFICE);
        let standing = candidacy.standing();
        self.stage = Stage::Stands(candidacy);
        standing
    }

    /// Gives it up for good, so that the next one takes over at once.
    pub(crate) async fn resign(self) {
        if let Stage::Stands(candidacy) = self.stage {
            candidacy.resign().await;
        }
    }
}
