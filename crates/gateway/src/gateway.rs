//! The gateway: its endpoints, its bus subscriptions, the distribution of bus messages to sessions, and the
//! resynchronization with other gateways.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use admission::{ConnectionLimiter, Network, Permit, Verifier};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bus::{Bus, Envelope, Headers, Subscription};
use bytes::Bytes;
use metrics::Counter;
use protocol::{
    Address, Close, IslandId, Message as _, Position, ResumeHash, SceneTopic, SessionId, Subject, Topic,
    atoll_bus::{GatewayHeartbeat, TransportAnnouncement},
    subject::{self, SubjectScheme},
    v3::{JoinIslandMessage, ServiceDiscoveryMessage},
};
use tokio::{sync::watch, task::JoinSet, time};

use crate::{
    FixedRoom, Sampler, Settings,
    about::{self, DirectorStatus},
    archipelago_socket,
    client_socket::ClientSocket,
    handshake::SignInRequest,
    load_monitor::LoadMonitor,
    login::{self, Login},
    realm_services::RealmService,
    rpc_socket,
    session_registry::{IslandChange, MemberChange, SessionReceiver, SessionRegistry},
    session_state::SessionState,
    topics::Topics,
};

/// A gateway. Clones share all state and are cheap.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Shared>);

/// The bus subscriptions of a gateway. Messages of the engine and topic messages have separate queues, so
/// that a flood of topic messages cannot displace assignments.
#[derive(Debug)]
pub struct BusSubscriptions {
    engine: Subscription,
    topics: Subscription,
}

/// State that all sockets of a gateway share.
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
    /// Whether a resync runs: this gateway requested the rosters of the others and awaits their reports.
    resync_pending: watch::Sender<bool>,
    sampler: Sampler,
    director_status: Mutex<DirectorStatus>,
    /// Cloned once for each open socket; the reference count is the number of sockets.
    sockets: Arc<()>,
}

/// Bound of the queue of engine messages from the bus. When it is full, the newest message is dropped and
/// counted.
const BUS_QUEUE_MESSAGES: usize = 262_144;
/// Bound of the queue of topic messages, each of up to 64 KiB; same overflow rule.
const TOPICS_QUEUE_MESSAGES: usize = 4_096;
/// Bound of the queue of heartbeats during a resync; same overflow rule. If a report is dropped, this gateway
/// does not know its session as a remote one.
const RESYNC_QUEUE_MESSAGES: usize = 262_144;
/// Duration for which a resync receives heartbeats. Gateways send theirs within a second.
const RESYNC_DURATION: Duration = Duration::from_secs(2);
/// Time after which a sign-in no longer waits for the resync. A session that was not reported by then cannot
/// be resumed.
const RESYNC_ANSWER_WINDOW: Duration = Duration::from_millis(1_200);
/// Interval at which a waiting sign-in checks whether its older session was reported.
const RESUME_POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Gateway {
    /// Creates a gateway. `sampler` reports the memory and CPU use of the process.
    pub fn new(
        settings: Settings,
        bus: Bus,
        verifier: Verifier,
        room: Option<FixedRoom>,
        sampler: Sampler,
    ) -> Self {
        let handshakes = ConnectionLimiter::new("gateway", settings.handshakes);
        let sessions = SessionRegistry::new(bus.clone(), &settings);
        let heartbeats = metrics::counter!("atoll_gateway_heartbeats_total");
        let (topics, roster_requests, director_status, sockets) = Default::default();
        let resync_pending = watch::Sender::new(bus.is_shared());
        let content = RealmService::new("content", &settings.realm.content_url);
        let lambdas = RealmService::new("lambdas", &settings.realm.lambdas_url);
        let (load, login) = (LoadMonitor::new(settings.load_limits), Login::new(room, &settings));
        Self(Arc::new(Shared {
            settings,
            verifier,
            bus,
            sessions,
            heartbeats,
            handshakes,
            topics,
            content,
            lambdas,
            load,
            login,
            roster_requests,
            resync_pending,
            sampler,
            director_status,
            sockets,
        }))
    }

    /// The HTTP and WebSocket endpoints: `/archipelago/ws`, `/ws`, `/rpc`, `/bff/rpc`, `/about` and
    /// `/signed-login`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/archipelago/ws", get(open_archipelago_socket))
            .route("/ws", get(open_archipelago_socket))
            .route("/rpc", get(open_rpc_socket))
            .route("/bff/rpc", get(open_rpc_socket))
            .route("/about", get(about::handle_about))
            .route(login::LOGIN_PATH, post(login::handle_login))
            .with_state(self.0.clone())
    }

    /// Subscribes to the bus, for [`Gateway::run`]. Messages from this call on are queued.
    pub fn subscribe(&self) -> BusSubscriptions {
        let patterns = [
            subject::PEER_ISLAND_CHANGES,
            subject::PEER_CONNECTS,
            subject::PEER_DISCONNECTS,
            subject::ISLAND_PEER_JOINS,
            subject::ISLAND_PEER_LEAVES,
            subject::ENGINE_DISCOVERY,
            subject::TRANSPORT_ANNOUNCEMENTS,
            subject::PEERS_WANTED,
        ];
        let topics = [subject::TOPICS, subject::SCENE_TOPICS];
        BusSubscriptions {
            engine: self.0.bus.subscribe("gateway", &patterns, BUS_QUEUE_MESSAGES),
            topics: self.0.bus.subscribe("gateway-topics", &topics, TOPICS_QUEUE_MESSAGES),
        }
    }

    /// Delivers bus messages to the sessions, probes the services and the load that `/about` reports, and
    /// resynchronizes with other gateways. Does not return.
    pub async fn run(&self, subscriptions: BusSubscriptions) {
        let BusSubscriptions { mut engine, mut topics } = subscriptions;
        let handle_engine = async {
            while let Some(envelope) = engine.next().await {
                self.0.handle_bus_message(&envelope);
            }
        };
        // Topic messages have a task of their own, so that their fan-out does not delay assignments. The
        // join set ends that task together with this one.
        let shared = self.0.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(envelope) = topics.next().await {
                shared.handle_topic_message(&envelope);
            }
        });
        let Shared { content, lambdas, load, sampler, .. } = &*self.0;
        let about = async { tokio::join!(content.probe(), lambdas.probe(), load.run(sampler)) };
        tokio::join!(handle_engine, about, self.0.resync_on_reconnect());
    }

    /// Refuses new handshakes, and closes existing sessions with [`Close::Restarting`] so that their clients
    /// reconnect to another gateway.
    pub fn drain(&self) {
        self.0.handshakes.close();
        self.0.sessions.drain();
    }

    /// Number of open sockets: signed in, in the handshake, or in the closing handshake.
    pub fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.0.sockets) - 1
    }

    /// Updates the gauges of the gateway.
    pub fn observe(&self) {
        metrics::gauge!("explorer_bff_connected_users").set(self.0.sessions.count() as f64);
        metrics::gauge!("atoll_gateway_sockets").set(self.sockets_count() as f64);
        metrics::gauge!("atoll_gateway_topic_subscriptions").set(self.0.topics.count() as f64);
        metrics::gauge!("atoll_gateway_signing_in").set(self.0.handshakes.permits_count() as f64);
        metrics::gauge!("atoll_gateway_accepting").set(f64::from(self.0.rejection_reason().is_none()));
    }

    /// Whether a new session would be assigned an island: a director published its status recently, and the
    /// gateway does not drain.
    pub fn is_ready(&self) -> bool {
        self.0.director_status().is_healthy() && !self.0.sessions.is_draining()
    }
}

impl Shared {
    pub(crate) fn director_status(&self) -> MutexGuard<'_, DirectorStatus> {
        self.director_status.lock().unwrap_or_else(PoisonError::into_inner)
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
        metrics::counter!("atoll_gateway_topic_messages_total").increment(1);
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

    fn handle_topic_message(&self, envelope: &Envelope) {
        if envelope.missed > 0 {
            self.topics.record_missed(envelope.missed);
        }
        match envelope.subject() {
            Some(Subject::PeerTopic(sender, topic)) => {
                self.topics.deliver_peer(sender, &topic, &envelope.payload);
            }
            Some(Subject::SceneTopic(topic)) => {
                self.topics.deliver_scene(envelope.headers.sender, &topic, &envelope.payload);
            }
            Some(Subject::SystemTopic(topic)) => self.topics.deliver_system(&topic, &envelope.payload),
            _ => {}
        }
    }

    fn handle_member_change(&self, subject: &Subject, envelope: &Envelope) {
        let (island, joined) = match subject {
            Subject::IslandPeerJoin(island) => (island, true),
            Subject::IslandPeerLeft(island) => (island, false),
            _ => return,
        };
        // `JoinIslandMessage` and `LeftIslandMessage` have the same fields.
        let message = JoinIslandMessage::decode(&envelope.payload[..]).ok();
        let Some(peer) = message.and_then(|message| message.peer_id.parse().ok()) else { return };
        self.sessions.observe_member_change(island, peer, envelope.headers.session, joined);
        if self.settings.send_member_changes
            && let Ok(topic) = subject.to_string().parse()
        {
            let change = Arc::new(MemberChange { joined, topic, message: envelope.payload.clone() });
            self.sessions.broadcast_member_change(island, peer, envelope.headers.session, &change);
        }
    }

    /// Resynchronizes at start, and after each reconnect to the bus, because messages were missed meanwhile.
    async fn resync_on_reconnect(&self) {
        let mut reconnects = self.bus.reconnects();
        loop {
            self.resync_pending.send_replace(self.bus.is_shared());
            let end_wait = async {
                time::sleep(RESYNC_ANSWER_WINDOW).await;
                self.resync_pending.send_replace(false);
            };
            tokio::join!(self.resync_rosters(), end_wait);
            if reconnects.changed().await.is_err() {
                return;
            }
        }
    }

    /// Begins a session, or returns the close code of its rejection: see [`SessionRegistry::begin`].
    pub(crate) async fn begin_session(
        &self,
        request: SignInRequest,
        network: Network,
    ) -> Result<(SessionId, SessionReceiver), Close> {
        let (Ok(random), Ok(secret)) = (admission::random(), admission::random()) else {
            return Err(Close::Restarting);
        };
        self.wait_for_resync(&request).await;
        self.sessions.begin(request, network, [random, secret])
    }

    /// Waits until another gateway has reported the session that a client wants to resume, or until no resync
    /// runs. A resync runs only after the start and after a reconnect to the bus; otherwise this returns at
    /// once.
    async fn wait_for_resync(&self, request: &SignInRequest) {
        if request.presented_hash.is_none() {
            return;
        }
        let reported = async {
            while !self.sessions.can_resume(request) {
                time::sleep(RESUME_POLL_INTERVAL).await;
            }
        };
        let mut resync_pending = self.resync_pending.subscribe();
        tokio::select! {
            _ = resync_pending.wait_for(|pending| !pending) => {}
            () = reported => {}
        }
    }

    /// Requests the rosters of the other gateways and processes the heartbeats that they publish. If a wallet
    /// signed in on another gateway while this one received nothing, its older session here ends.
    async fn resync_rosters(&self) {
        let mut heartbeats =
            self.bus.subscribe("gateway-census", &[subject::PEER_HEARTBEATS], RESYNC_QUEUE_MESSAGES);
        self.bus.publish(&Subject::PeersWanted, Headers::default(), Bytes::new());
        let handle_heartbeats = async {
            while let Some(envelope) = heartbeats.next().await {
                if let (Some(Subject::PeerHeartbeat(peer)), Some(session)) =
                    (envelope.subject(), envelope.headers.session)
                {
                    let (island, hash) = decode_roster_entry(&envelope.payload);
                    self.sessions.observe_session(peer, session, island, hash);
                }
            }
        };
        let _ = time::timeout(RESYNC_DURATION, handle_heartbeats).await;
    }

    fn handle_bus_message(&self, envelope: &Envelope) {
        match envelope.subject() {
            Some(Subject::PeerIslandChanged(peer)) => {
                let (Headers { session, node, .. }, message) = (&envelope.headers, &envelope.payload);
                // A change without a valid island id does not come from a director.
                let Some(island) = decode_island_id(message) else { return };
                let change = IslandChange { island, node: node.clone(), message: message.clone() };
                self.sessions.deliver_island_change(peer, *session, change);
            }
            Some(subject @ (Subject::IslandPeerJoin(_) | Subject::IslandPeerLeft(_))) => {
                self.handle_member_change(&subject, envelope);
            }
            Some(Subject::PeerConnect(peer)) => {
                if let Some(session) = envelope.headers.session {
                    self.sessions.observe_session(peer, session, None, envelope.headers.resumption().hash);
                }
            }
            Some(Subject::PeerDisconnect(peer)) => self.sessions.observe_end(peer, envelope.headers.session),
            Some(Subject::EngineDiscovery) => {
                if let Ok(discovery) = ServiceDiscoveryMessage::decode(&envelope.payload[..]) {
                    self.director_status().record(&discovery);
                }
            }
            Some(Subject::TransportAnnounce(_)) => {
                if let Ok(announcement) = TransportAnnouncement::decode(&envelope.payload[..]) {
                    self.login.observe_node(announcement);
                }
            }
            Some(Subject::PeersWanted) => {
                self.roster_requests.send_replace(());
            }
            _ => {}
        }
    }
}

/// The only field of an `IslandChangedMessage` that is decoded. Its bytes are forwarded unchanged.
#[derive(Clone, PartialEq, prost::Message)]
struct IslandIdOnly {
    #[prost(string, tag = "1")]
    island_id: String,
}

/// Decodes a `GatewayHeartbeat`: the island of the assignment that was sent to the client last, and the hash
/// of its session's resumption secret.
fn decode_roster_entry(heartbeat: &Bytes) -> (Option<IslandId>, Option<ResumeHash>) {
    let heartbeat = GatewayHeartbeat::decode(&heartbeat[..]).unwrap_or_default();
    let island = heartbeat.told.and_then(|told| told.island.parse().ok());
    (island, ResumeHash::try_from(&heartbeat.resume_hash[..]).ok())
}

/// Decodes the island id of an `IslandChangedMessage`.
fn decode_island_id(change: &Bytes) -> Option<IslandId> {
    IslandIdOnly::decode(&change[..]).ok()?.island_id.parse().ok()
}

/// Handles the upgrade to an archipelago socket.
async fn open_archipelago_socket(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    open_socket(shared, network, request, protocol::ARCHIPELAGO_SUBPROTOCOL, archipelago_socket::serve).await
}

/// Handles the upgrade to an RPC socket.
async fn open_rpc_socket(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    open_socket(shared, network, request, protocol::RPC_SUBPROTOCOL, rpc_socket::serve).await
}

/// Upgrades a request to a WebSocket and serves it in a task. Responds 503 if the client network has no
/// handshake left.
async fn open_socket<S>(
    shared: Arc<Shared>,
    network: Network,
    mut request: Request,
    subprotocol: &'static str,
    serve: impl FnOnce(Arc<Shared>, ClientSocket, Permit) -> S + Send + 'static,
) -> Response
where
    S: Future<Output = ()> + Send,
{
    let permit = match shared.handshakes.acquire(network) {
        Ok(permit) => permit,
        Err(limit) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], limit.to_string())
                .into_response();
        }
    };
    let ws::Upgrade { response, stream } = match ws::upgrade(&mut request, &[subprotocol]) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
    // The reference count of `sockets` is the number of open sockets.
    let open_socket = shared.sockets.clone();
    tokio::spawn(async move {
        let _open_socket = open_socket;
        if let Some(stream) = stream.stream().await {
            let socket = ClientSocket::new(stream, &shared.settings);
            serve(shared, socket, permit).await;
        }
    });
    response.map(|()| Body::empty())
}
