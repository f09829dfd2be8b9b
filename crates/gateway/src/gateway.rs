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

/// A gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Shared>);

/// What a gateway hears from the bus: what it must not miss, and topics, which cannot crowd it out.
#[derive(Debug)]
pub struct BusSubscriptions {
    engine: Subscription,
    topics: Subscription,
}

/// What all sockets of a gateway share.
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
    /// Changes when somebody on the bus asks who is there.
    pub(crate) presence_requests: watch::Sender<()>,
    /// Whether other gateways are reporting their sessions, as this one has just asked them.
    resync_pending: watch::Sender<bool>,
    sampler: Sampler,
    director_status: Mutex<DirectorStatus>,
    /// One clone a socket.
    sockets: Arc<()>,
}

/// Messages from the bus that may wait for the gateway; at the bound the newest is dropped and
/// counted.
const BUS_QUEUE_MESSAGES: usize = 262_144;
/// The same, for what is said under topics: each may have up to 64 KiB.
const TOPICS_QUEUE_MESSAGES: usize = 4_096;
/// The same, of heartbeats while it is asked who is there; who is missed is not known to be elsewhere.
const RESYNC_QUEUE_MESSAGES: usize = 262_144;
/// For how long answers to that are waited for: gateways answer within a second.
const RESYNC_DURATION: Duration = Duration::from_secs(2);
/// How long those answers may take. After that a client whose session was not reported cannot resume it.
const RESYNC_ANSWER_WINDOW: Duration = Duration::from_millis(1_200);
/// How often a client that waits to be reported is looked up meanwhile.
const RESUME_POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Gateway {
    /// A gateway with these settings. `sample` tells what the process uses of the machine.
    pub fn new(
        settings: Settings,
        bus: Bus,
        verifier: Verifier,
        room: Option<FixedRoom>,
        sample: Sampler,
    ) -> Self {
        let handshakes = ConnectionLimiter::new("gateway", settings.handshakes);
        let sessions = SessionRegistry::new(bus.clone(), &settings);
        let heartbeats = metrics::counter!("atoll_gateway_heartbeats_total");
        let (topics, peers_wanted, directory, sockets) = Default::default();
        let census = watch::Sender::new(bus.is_shared());
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
            presence_requests: peers_wanted,
            resync_pending: census,
            sampler: sample,
            director_status: directory,
            sockets,
        }))
    }

    /// The endpoints: `/archipelago/ws`, `/ws`, `/rpc`, `/bff/rpc`, `/about` and `/signed-login`.
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

    /// What the gateway has to hear from now on, for [`Gateway::run`].
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

    /// Hands what the bus says to the sessions that it is for, and looks after what `/about` says.
    /// Does not return.
    pub async fn run(&self, subscriptions: BusSubscriptions) {
        let BusSubscriptions { mut engine, mut topics } = subscriptions;
        let hear_engine = async {
            while let Some(envelope) = engine.next().await {
                self.0.handle_bus_message(&envelope);
            }
        };
        // A task of its own, so that what people say to many keeps nobody from hearing where they
        // belong. It ends with this one.
        let shared = self.0.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(envelope) = topics.next().await {
                shared.handle_topic_message(&envelope);
            }
        });
        let Shared { content, lambdas, load, sampler: sample, .. } = &*self.0;
        let about = async { tokio::join!(content.probe(), lambdas.probe(), load.run(sample)) };
        tokio::join!(hear_engine, about, self.0.resync_on_reconnect());
    }

    /// Signs nobody in any more, and tells those who are in to come back elsewhere.
    pub fn drain(&self) {
        self.0.handshakes.close();
        self.0.sessions.drain();
    }

    /// How many sockets are open: signed in, on their way in, or on their way out.
    pub fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.0.sockets) - 1
    }

    /// Sets the gauges to what holds now.
    pub fn observe(&self) {
        metrics::gauge!("explorer_bff_connected_users").set(self.0.sessions.count() as f64);
        metrics::gauge!("atoll_gateway_sockets").set(self.sockets_count() as f64);
        metrics::gauge!("atoll_gateway_topic_subscriptions").set(self.0.topics.count() as f64);
        metrics::gauge!("atoll_gateway_signing_in").set(self.0.handshakes.permits_count() as f64);
        metrics::gauge!("atoll_gateway_accepting").set(f64::from(self.0.rejection_reason().is_none()));
    }

    /// Whether a director has been heard of lately, so that who signs in gets an island.
    pub fn is_ready(&self) -> bool {
        self.0.director_status().is_healthy() && !self.0.sessions.is_draining()
    }
}

impl Shared {
    pub(crate) fn director_status(&self) -> MutexGuard<'_, DirectorStatus> {
        self.director_status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports on the bus that a client is at `position`; `None`: somewhere.
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
            // Foreign services expect a position.
            SubjectScheme::ArchipelagoWorkers => match position {
                Some(position) => state.encode_client_heartbeat(position),
                None => return,
            },
        };
        self.bus.publish(&Subject::PeerHeartbeat(address), headers, report);
        self.heartbeats.increment(1);
    }

    /// Puts what a client says under a topic on the bus.
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
        // Both messages have the same fields.
        let who = JoinIslandMessage::decode(&envelope.payload[..]).ok();
        let who = who.and_then(|message| message.peer_id.parse().ok());
        let Some(peer) = who else { return };
        self.sessions.observe_member_change(island, peer, envelope.headers.session, joined);
        if self.settings.send_member_changes
            && let Ok(topic) = subject.to_string().parse()
        {
            let change = Arc::new(MemberChange { joined, topic, message: envelope.payload.clone() });
            self.sessions.broadcast_member_change(island, peer, envelope.headers.session, &change);
        }
    }

    /// Takes a census now, and whenever the bus was away.
    async fn resync_on_reconnect(&self) {
        let mut returns = self.bus.reconnects();
        loop {
            self.resync_pending.send_replace(self.bus.is_shared());
            let answered = async {
                time::sleep(RESYNC_ANSWER_WINDOW).await;
                self.resync_pending.send_replace(false);
            };
            tokio::join!(self.resync_presence(), answered);
            if returns.changed().await.is_err() {
                return;
            }
        }
    }

    /// Begins a session, or gives the close code that refuses it: see [`SessionRegistry::begin`].
    pub(crate) async fn begin_session(
        &self,
        applicant: SignInRequest,
        network: Network,
    ) -> Result<(SessionId, SessionReceiver), Close> {
        let (Ok(random), Ok(secret)) = (admission::random(), admission::random()) else {
            return Err(Close::Restarting);
        };
        self.wait_for_resync(&applicant).await;
        self.sessions.begin(applicant, network, [random, secret])
    }

    /// Waits until another gateway has reported the session that a client wants to resume. This gateway
    /// has just begun: once all reports have arrived, it waits no longer.
    async fn wait_for_resync(&self, applicant: &SignInRequest) {
        if applicant.presented_hash.is_none() {
            return;
        }
        let reported = async {
            while !self.sessions.can_resume(applicant) {
                time::sleep(RESUME_POLL_INTERVAL).await;
            }
        };
        let mut census = self.resync_pending.subscribe();
        tokio::select! {
            _ = census.wait_for(|under_way| !under_way) => {}
            () = reported => {}
        }
    }

    /// Asks the bus who is there, and hears it: who signed in elsewhere while nobody here heard it, its
    /// older session here must go.
    async fn resync_presence(&self) {
        let mut heartbeats =
            self.bus.subscribe("gateway-census", &[subject::PEER_HEARTBEATS], RESYNC_QUEUE_MESSAGES);
        self.bus.publish(&Subject::PeersWanted, Headers::default(), Bytes::new());
        let hear = async {
            while let Some(envelope) = heartbeats.next().await {
                if let (Some(Subject::PeerHeartbeat(peer)), Some(session)) =
                    (envelope.subject(), envelope.headers.session)
                {
                    let (island, hash) = decode_presence(&envelope.payload);
                    self.sessions.observe_session(peer, session, island, hash);
                }
            }
        };
        let _ = time::timeout(RESYNC_DURATION, hear).await;
    }

    fn handle_bus_message(&self, envelope: &Envelope) {
        match envelope.subject() {
            Some(Subject::PeerIslandChanged(peer)) => {
                let (Headers { session, node, .. }, message) = (&envelope.headers, &envelope.payload);
                // Whoever sent what names no island is not the director.
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
                self.presence_requests.send_replace(());
            }
            _ => {}
        }
    }
}

/// What is read of an `IslandChangedMessage`, which goes on as it came.
#[derive(Clone, PartialEq, prost::Message)]
struct IslandIdOnly {
    #[prost(string, tag = "1")]
    island_id: String,
}

/// The island that the client of an encoded `GatewayHeartbeat` was sent last, and the hash of its session's
/// resumption secret.
fn decode_presence(heartbeat: &Bytes) -> (Option<IslandId>, Option<ResumeHash>) {
    let heartbeat = GatewayHeartbeat::decode(&heartbeat[..]).unwrap_or_default();
    let island = heartbeat.told.and_then(|told| told.island.parse().ok());
    (island, ResumeHash::try_from(&heartbeat.resume_hash[..]).ok())
}

/// The island that an encoded `IslandChangedMessage` tells of.
fn decode_island_id(change: &Bytes) -> Option<IslandId> {
    IslandIdOnly::decode(&change[..]).ok()?.island_id.parse().ok()
}

/// Opens an archipelago socket.
async fn open_archipelago_socket(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    open_socket(shared, network, request, protocol::ARCHIPELAGO_SUBPROTOCOL, archipelago_socket::serve).await
}

/// Opens an RPC socket.
async fn open_rpc_socket(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    open_socket(shared, network, request, protocol::RPC_SUBPROTOCOL, rpc_socket::serve).await
}

/// Opens a socket, if its network may begin another handshake, and has it served.
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
        Err(full) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], full.to_string())
                .into_response();
        }
    };
    let ws::Upgrade { response, stream } = match ws::upgrade(&mut request, &[subprotocol]) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
    let socket_count = shared.sockets.clone();
    tokio::spawn(async move {
        let _socket = socket_count;
        if let Some(stream) = stream.stream().await {
            let socket = ClientSocket::new(stream, &shared.settings);
            serve(shared, socket, permit).await;
        }
    });
    response.map(|()| Body::empty())
}
