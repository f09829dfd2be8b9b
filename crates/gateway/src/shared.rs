//! The state that the sockets and the endpoints of a gateway share.

use std::sync::Arc;

use admission::{ConnectionLimiter, Network, Verifier};
use bus::{Bus, Headers};
use bytes::Bytes;
use ::metrics::Counter;
use parking_lot::Mutex;
use protocol::{Address, Close, Position, SceneTopic, SessionId, Subject, Topic, subject::SubjectScheme};
use tokio::sync::watch;

use crate::{
    director_status::DirectorStatus,
    load_monitor::{LoadMonitor, Sampler},
    login::state::Login,
    metrics,
    realm_services::RealmService,
    session::{
        handshake::SignInRequest,
        registry::{NewSession, SessionRegistry},
        resync::Resync,
        state::SessionState,
    },
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

    /// Publishes the heartbeat of a client at `position`; `None`: the position is unknown.
    pub(crate) fn publish_heartbeat(
        &self,
        address: Address,
        session: SessionId,
        state: &mut SessionState,
        position: Option<Position>,
    ) {
        let headers = Headers::for_session(session);
        let report = match self.bus.subject_scheme() {
            SubjectScheme::CommsV3 => state.encode_heartbeat(position, self.bus.latest_epoch()),
            // Services of archipelago-workers expect a position.
            SubjectScheme::ArchipelagoWorkers => match position {
                Some(position) => state.encode_client_heartbeat(position),
                None => return,
            },
        };
        self.bus.publish(&Subject::PeerHeartbeat(address), headers, report);
        self.heartbeats.increment(1);
    }

    /// Publishes a message of a client under a topic: a scene topic with the sender in a header, any other
    /// topic under a subject that contains the sender.
    pub(crate) fn publish_topic(&self, address: Address, session: SessionId, topic: Topic, payload: Bytes) {
        metrics::topic_messages().increment(1);
        let mut headers = Headers::for_session(session);
        let subject = match SceneTopic::try_from(topic) {
            Ok(topic) => {
                headers.sender = Some(address);
                Subject::SceneTopic(topic)
            }
            Err(topic) => Subject::PeerTopic(address, topic),
        };
        self.bus.publish(&subject, headers, payload);
    }

    /// Begins a session, or returns the close code of its rejection: see [`SessionRegistry::begin`].
    pub(crate) async fn begin_session(
        &self,
        request: SignInRequest,
        network: Network,
    ) -> Result<NewSession, Close> {
        let (Ok(random), Ok(secret)) = (admission::random(), admission::random()) else {
            return Err(Close::Restarting);
        };
        self.resync.wait_for_report(&self.sessions, &request).await;
        self.sessions.begin(request, network, [random, secret])
    }
}
