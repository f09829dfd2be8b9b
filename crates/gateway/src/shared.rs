//! The state that the sockets and the endpoints of a gateway share.

use std::sync::Arc;

use admission::{ConnectionLimiter, Verifier};
use bus::Bus;
use metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    director_status::DirectorStatus,
    load_monitor::{LoadMonitor, Sampler},
    login::state::Login,
    realm_services::RealmService,
    session::{registry::SessionRegistry, resync::Resync},
    settings::Settings,
    topics::Topics,
};

/// The state that the sockets and the endpoints of a gateway share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) verifier: Verifier,
    pub(crate) bus: Bus,
    pub(crate) sessions: SessionRegistry,
    pub(crate) heartbeats: Counter,
    pub(crate) handshakes: ConnectionLimiter,
    pub(crate) topics: Arc<Topics>,
    pub(crate) content: RealmService,
    pub(crate) lambdas: RealmService,
    pub(crate) load: LoadMonitor,
    pub(crate) login: Login,
    /// Changes when a process on the bus requests the roster: each session then republishes its heartbeat.
    pub(crate) roster_requests: watch::Sender<()>,
    pub(crate) resync: Resync,
    pub(crate) director_status: Mutex<DirectorStatus>,
    pub(crate) sampler: Sampler,
    /// Cloned once for each open socket; the reference count is the number of sockets.
    pub(crate) sockets: Arc<()>,
}

impl Shared {
    /// The reason for which `/about` and signed logins turn new users away, if there is one.
    ///
    /// A client that connects regardless is refused if the sessions are full, but admitted if memory or CPU
    /// is short. Clients that read `/about` choose another realm, and a late refusal of the others would not
    /// help the sessions that exist.
    pub(crate) fn rejection_reason(&self) -> Option<&'static str> {
        if self.sessions.is_draining() {
            Some("the realm is restarting, come back later")
        } else if self.sessions.count() >= self.settings.max_sessions {
            Some("the realm is full, come back later")
        } else if self.load.is_overloaded() {
            Some("the realm is too busy, come back later")
        } else {
            None
        }
    }
}
