//! The shared state of a gateway, and the conditions under which the gateway rejects new users.

use std::sync::Arc;

use admission::{ConnectionLimiter, Verifier};
use bus::Bus;
use metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    director_status::DirectorStatus,
    load_monitor::LoadMonitor,
    login::state::Login,
    realm_services::RealmService,
    session::{registry::SessionRegistry, resync::Resync},
    settings::Settings,
    topics::Topics,
};

/// The state that the sockets and the endpoints of a gateway share.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) verifier: Verifier,
    pub(crate) bus: Bus,
    pub(crate) sessions: SessionRegistry,
    pub(crate) heartbeats: Counter,
    pub(crate) handshakes: ConnectionLimiter,
    /// For requests and connections of the signalling proxy for LiveKit.
    pub(crate) livekit_proxy: ConnectionLimiter,
    pub(crate) topics: Arc<Topics>,
    pub(crate) content: RealmService,
    pub(crate) lambdas: RealmService,
    pub(crate) load: LoadMonitor,
    pub(crate) login: Login,
    /// Changes when a process on the bus requests the roster: each session then republishes its heartbeat.
    pub(crate) roster_requests: watch::Sender<()>,
    pub(crate) resync: Resync,
    pub(crate) director_status: Mutex<DirectorStatus>,
    /// Cloned once for each open socket; the reference count is the number of sockets.
    pub(crate) sockets: Arc<()>,
}

impl Shared {
    /// The reason why `/about` and signed logins reject new users, if there is one.
    ///
    /// Sign-ins on a socket are rejected at the session limit, but not when memory or CPU is over its limit.
    /// Clients that read `/about` choose another realm. A rejection of the other clients as late as the
    /// sign-in would not help existing sessions.
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
