use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use admission::{Limiter, Network, Permit, Verifier};
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
    subject::{self, Layout},
    v3::{JoinIslandMessage, ServiceDiscoveryMessage},
};
use tokio::{sync::watch, task::JoinSet, time};

use crate::{
    FixedRoom, Sampler, Settings,
    about::{self, Directory},
    bff,
    frames::Socket,
    handshake::Applicant,
    live::LiveState,
    load::Load,
    login::{self, Login},
    services::Service,
    sessions::{Inbox, IslandChange, MemberChange, Sessions},
    socket,
    topics::Topics,
};

/// A gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Shared>);

/// What a gateway hears from the bus: what it must not miss, and topics, which cannot crowd it out.
#[derive(Debug)]
pub struct Inbound {
    engine: Subscription,
    topics: Subscription,
}

/// What all sockets of a gateway share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) verifier: Verifier,
    pub(crate) bus: Bus,
    pub(crate) sessions: Sessions,
    pub(crate) heartbeats: Counter,
    pub(crate) handshakes: Limiter,
    pub(crate) topics: Arc<Topics>,
    pub(crate) content: Service,
    pub(crate) lambdas: Service,
    pub(crate) load: Load,
    pub(crate) login: Login,
    /// Changes when somebody on the bus asks who is there.
    pub(crate) peers_wanted: watch::Sender<()>,
    /// Whether other gateways are reporting their sessions, as this one has just asked them.
    census: watch::Sender<bool>,
    sample: Sampler,
    directory: Mutex<Directory>,
    /// One clone a socket.
    sockets: Arc<()>,
}

/// Messages from the bus that may wait for the gateway; at the bound the newest is dropped and
/// counted.
const BUS_QUEUE: usize = 262_144;
/// The same, for what is said under topics: each may have up to 64 KiB.
const TOPICS_QUEUE: usize = 4_096;
/// The same, of heartbeats while it is asked who is there; who is missed is not known to be elsewhere.
const CENSUS_QUEUE: usize = 262_144;
/// For how long answers to that are waited for: gateways answer within a second.
const CENSUS: Duration = Duration::from_secs(2);
/// How long those answers may take. After that a client whose session was not reported cannot resume it.
const CENSUS_ANSWERS: Duration = Duration::from_millis(1_200);
/// How often a client that waits to be reported is looked up meanwhile.
const LOOK_UP_INTERVAL: Duration = Duration::from_millis(50);

impl Gateway {
    /// A gateway with these settings. `sample` tells what the process uses of the machine.
    pub fn new(
        settings: Settings,
        bus: Bus,
        verifier: Verifier,
        room: Option<FixedRoom>,
        sample: Sampler,
    ) -> Self {
        let handshakes = Limiter::new("gateway", settings.handshakes);
        let sessions = Sessions::new(bus.clone(), &settings);
        let heartbeats = metrics::counter!("atoll_gateway_heartbeats_total");
        let (topics, peers_wanted, directory, sockets) = Default::default();
        let census = watch::Sender::new(bus.is_shared());
        let content = Service::new("content", &settings.realm.content_url);
        let lambdas = Service::new("lambdas", &settings.realm.lambdas_url);
        let (load, login) = (Load::new(settings.load), Login::new(room, &settings));
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
            peers_wanted,
            census,
            sample,
            directory,
            sockets,
        }))
    }

    /// The endpoints: `/archipelago/ws`, `/ws`, `/rpc`, `/bff/rpc`, `/about` and `/signed-login`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/archipelago/ws", get(enter_archipelago))
            .route("/ws", get(enter_archipelago))
            .route("/rpc", get(enter_rpc))
            .route("/bff/rpc", get(enter_rpc))
            .route("/about", get(about::about))
            .route(login::PATH, post(login::login))
            .with_state(self.0.clone())
    }

    /// What the gateway has to hear from now on, for [`Gateway::run`].
    pub fn subscribe(&self) -> Inbound {
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
        Inbound {
            engine: self.0.bus.subscribe("gateway", &patterns, BUS_QUEUE),
            topics: self.0.bus.subscribe("gateway-topics", &topics, TOPICS_QUEUE),
        }
    }

    /// Hands what the bus says to the sessions that it is for, and looks after what `/about` says.
    /// Does not return.
    pub async fn run(&self, inbound: Inbound) {
        let Inbound { mut engine, mut topics } = inbound;
        let hear_engine = async {
            while let Some(envelope) = engine.next().await {
                self.0.hear(&envelope);
            }
        };
        // A task of its own, so that what people say to many keeps nobody from hearing where they
        // belong. It ends with this one.
        let shared = self.0.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(envelope) = topics.next().await {
                shared.hear_topic(&envelope);
            }
        });
        let Shared { content, lambdas, load, sample, .. } = &*self.0;
        let about = async { tokio::join!(content.watch(), lambdas.watch(), load.measure(sample)) };
        tokio::join!(hear_engine, about, self.0.take_censuses());
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
        metrics::gauge!("atoll_gateway_accepting").set(f64::from(self.0.unwilling().is_none()));
    }

    /// Whether a director has been heard of lately, so that who signs in gets an island.
    pub fn is_ready(&self) -> bool {
        self.0.directory().is_healthy() && !self.0.sessions.is_draining()
    }
}

impl Shared {
    pub(crate) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports on the bus that a client is at `position`; `None`: somewhere.
    pub(crate) fn publish_heartbeat(
        &self,
        address: Address,
        session: SessionId,
        state: &mut LiveState,
        position: Option<Position>,
    ) {
        let headers = Headers::of_session(session);
        let report = match self.bus.layout() {
            Layout::CommsV3 => state.report(position, self.bus.epoch()),
            // Foreign services expect a position.
            Layout::ArchipelagoWorkers => match position {
                Some(position) => state.report_plainly(position),
                None => return,
            },
        };
        self.bus.publish(&Subject::PeerHeartbeat(address), headers, report);
        self.heartbeats.increment(1);
    }

    /// Puts what a client says under a topic on the bus.
    pub(crate) fn publish_topic(&self, address: Address, session: SessionId, topic: Topic, payload: Bytes) {
        metrics::counter!("atoll_gateway_topic_messages_total").increment(1);
        let mut headers = Headers::of_session(session);
        let subject = match SceneTopic::try_from(topic) {
            Ok(topic) => {
                headers.sender = Some(address);
                Subject::SceneTopic(topic)
            }
            Err(topic) => Subject::PeerTopic(address, topic),
        };
        self.bus.publish(&subject, headers, payload);
    }

    fn hear_topic(&self, envelope: &Envelope) {
        if envelope.missed > 0 {
            self.topics.missed(envelope.missed);
        }
        match envelope.subject() {
            Some(Subject::PeerTopic(sender, topic)) => {
                self.topics.heard_peer(sender, &topic, &envelope.payload);
            }
            Some(Subject::SceneTopic(topic)) => {
                self.topics.heard_in_scene(envelope.headers.sender, &topic, &envelope.payload);
            }
            Some(Subject::SystemTopic(topic)) => self.topics.heard_system(&topic, &envelope.payload),
            _ => {}
        }
    }

    fn hear_member(&self, subject: &Subject, envelope: &Envelope) {
        let (island, joined) = match subject {
            Subject::IslandPeerJoin(island) => (island, true),
            Subject::IslandPeerLeft(island) => (island, false),
            _ => return,
        };
        // Both messages have the same fields.
        let who = JoinIslandMessage::decode(&envelope.payload[..]).ok();
        let who = who.and_then(|message| message.peer_id.parse().ok());
        let Some(peer) = who else { return };
        self.sessions.moved(island, peer, envelope.headers.session, joined);
        if self.settings.tell_members
            && let Ok(topic) = subject.to_string().parse()
        {
            let change = Arc::new(MemberChange { joined, topic, message: envelope.payload.clone() });
            self.sessions.change_member(island, peer, envelope.headers.session, &change);
        }
    }

    /// Takes a census now, and whenever the bus was away.
    async fn take_censuses(&self) {
        let mut returns = self.bus.returns();
        loop {
            self.census.send_replace(self.bus.is_shared());
            let answered = async {
                time::sleep(CENSUS_ANSWERS).await;
                self.census.send_replace(false);
            };
            tokio::join!(self.take_census(), answered);
            if returns.changed().await.is_err() {
                return;
            }
        }
    }

    /// Begins a session, or gives the close code that refuses it: see [`Sessions::begin`].
    pub(crate) async fn begin(
        &self,
        applicant: Applicant,
        network: Network,
    ) -> Result<(SessionId, Inbox), Close> {
        let (Ok(random), Ok(secret)) = (admission::random(), admission::random()) else {
            return Err(Close::Restarting);
        };
        self.await_report(&applicant).await;
        self.sessions.begin(applicant, network, [random, secret])
    }

    /// Waits until another gateway has reported the session that a client wants to resume. This gateway
    /// has just begun: once all reports have arrived, it waits no longer.
    async fn await_report(&self, applicant: &Applicant) {
        if applicant.presented.is_none() {
            return;
        }
        let reported = async {
            while !self.sessions.can_resume(applicant) {
                time::sleep(LOOK_UP_INTERVAL).await;
            }
        };
        let mut census = self.census.subscribe();
        tokio::select! {
            _ = census.wait_for(|under_way| !under_way) => {}
            () = reported => {}
        }
    }

    /// Asks the bus who is there, and hears it: who signed in elsewhere while nobody here heard it, its
    /// older session here must go.
    async fn take_census(&self) {
        let mut heartbeats = self.bus.subscribe("gateway-census", &[subject::PEER_HEARTBEATS], CENSUS_QUEUE);
        self.bus.publish(&Subject::PeersWanted, Headers::default(), Bytes::new());
        let hear = async {
            while let Some(envelope) = heartbeats.next().await {
                if let (Some(Subject::PeerHeartbeat(peer)), Some(session)) =
                    (envelope.subject(), envelope.headers.session)
                {
                    let (island, hash) = reported(&envelope.payload);
                    self.sessions.heard(peer, session, island, hash);
                }
            }
        };
        let _ = time::timeout(CENSUS, hear).await;
    }

    fn hear(&self, envelope: &Envelope) {
        match envelope.subject() {
            Some(Subject::PeerIslandChanged(peer)) => {
                let (Headers { session, node, .. }, message) = (&envelope.headers, &envelope.payload);
                // Whoever sent what names no island is not the director.
                let Some(island) = island_of(message) else { return };
                let change = IslandChange { island, node: node.clone(), message: message.clone() };
                self.sessions.change_island(peer, *session, change);
            }
            Some(subject @ (Subject::IslandPeerJoin(_) | Subject::IslandPeerLeft(_))) => {
                self.hear_member(&subject, envelope);
            }
            Some(Subject::PeerConnect(peer)) => {
                if let Some(session) = envelope.headers.session {
                    self.sessions.heard(peer, session, None, envelope.headers.resumption().hash);
                }
            }
            Some(Subject::PeerDisconnect(peer)) => self.sessions.ended(peer, envelope.headers.session),
            Some(Subject::EngineDiscovery) => {
                if let Ok(discovery) = ServiceDiscoveryMessage::decode(&envelope.payload[..]) {
                    self.directory().heard(&discovery);
                }
            }
            Some(Subject::TransportAnnounce(_)) => {
                if let Ok(announcement) = TransportAnnouncement::decode(&envelope.payload[..]) {
                    self.login.heard(announcement);
                }
            }
            Some(Subject::PeersWanted) => {
                self.peers_wanted.send_replace(());
            }
            _ => {}
        }
    }
}

/// What is read of an `IslandChangedMessage`, which goes on as it came.
#[derive(Clone, PartialEq, prost::Message)]
struct OfIsland {
    #[prost(string, tag = "1")]
    island_id: String,
}

/// The island that the client of an encoded `GatewayHeartbeat` was sent last, and the hash of its session's
/// resumption secret.
fn reported(heartbeat: &Bytes) -> (Option<IslandId>, Option<ResumeHash>) {
    let heartbeat = GatewayHeartbeat::decode(&heartbeat[..]).unwrap_or_default();
    let island = heartbeat.told.and_then(|told| told.island.parse().ok());
    (island, ResumeHash::try_from(&heartbeat.resume_hash[..]).ok())
}

/// The island that an encoded `IslandChangedMessage` tells of.
fn island_of(change: &Bytes) -> Option<IslandId> {
    OfIsland::decode(&change[..]).ok()?.island_id.parse().ok()
}

/// Opens an archipelago socket.
async fn enter_archipelago(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    enter(shared, network, request, protocol::ARCHIPELAGO_SUBPROTOCOL, socket::serve).await
}

/// Opens an RPC socket.
async fn enter_rpc(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    enter(shared, network, request, protocol::RPC_SUBPROTOCOL, bff::serve).await
}

/// Opens a socket, if its network may begin another handshake, and has it served.
async fn enter<S>(
    shared: Arc<Shared>,
    network: Network,
    mut request: Request,
    subprotocol: &'static str,
    serve: impl FnOnce(Arc<Shared>, Socket, Permit) -> S + Send + 'static,
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
            let socket = Socket::new(stream, &shared.settings);
            serve(shared, socket, permit).await;
        }
    });
    response.map(|()| Body::empty())
}
