//! The gateway: its endpoints, its background tasks, its drain and its gauges.

use std::sync::Arc;

use admission::{ConnectionLimiter, ConnectionLimits, Network, Verifier};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bus::Bus;
use tokio::{task::JoinSet, time::Instant};
use transports::livekit::Admission;

use crate::{
    about,
    bus_messages::{self, BusSubscriptions},
    client_socket::ClientSocket,
    dialect::{Dialect, archipelago::ArchipelagoDialect, rpc::RpcDialect},
    livekit_proxy::{MembershipCheck, SignallingProxy},
    load_monitor::{LoadMonitor, Sampler},
    login::{
        endpoint::handle_login,
        state::{FixedRoom, LOGIN_PATH, Login},
    },
    metrics,
    realm_services::RealmService,
    session::{connection::Connection, driver, registry::SessionRegistry, resync::Resync},
    settings::Settings,
    shared::Shared,
};

/// A gateway. Clones share all state and are cheap.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Shared>);

impl Gateway {
    /// Creates a gateway. `sampler` reports the memory and CPU use of the process.
    pub fn new(
        settings: Settings,
        bus: Bus,
        verifier: Verifier,
        room: Option<FixedRoom>,
        sampler: Sampler,
    ) -> Self {
        let (topics, roster_requests, director_status, sockets) = Default::default();
        Self(Arc::new(Shared {
            verifier,
            sessions: SessionRegistry::new(bus.clone(), &settings),
            heartbeats: metrics::heartbeats(),
            handshakes: ConnectionLimiter::new("gateway", settings.handshakes),
            livekit_proxy: ConnectionLimiter::new("livekit-proxy", proxy_limits(&settings)),
            topics,
            content: RealmService::new("content", &settings.realm.content_url),
            lambdas: RealmService::new("lambdas", &settings.realm.lambdas_url),
            load: LoadMonitor::new(settings.load_limits, sampler),
            login: Login::new(room, &settings),
            roster_requests,
            resync: Resync::new(&bus),
            director_status,
            sockets,
            bus,
            settings: Arc::new(settings),
        }))
    }

    /// The HTTP and WebSocket endpoints: `/archipelago/ws`, `/ws`, `/rpc`, `/bff/rpc`, `/about`,
    /// `/signed-login`, and those below `/livekit/<node>/rtc` if there are proxied LiveKit servers.
    pub fn router(&self) -> Router {
        let proxied = &self.0.settings.proxied_livekit;
        let proxy = (!proxied.is_empty()).then(|| {
            let limiter = self.0.livekit_proxy.clone();
            SignallingProxy::new(proxied, membership_check(self.0.clone()), limiter).router()
        });
        let sockets = Router::new()
            .route("/archipelago/ws", get(open_archipelago_socket))
            .route("/ws", get(open_archipelago_socket))
            .route("/rpc", get(open_rpc_socket))
            .route("/bff/rpc", get(open_rpc_socket))
            .route("/about", get(about::handle_about))
            .route(LOGIN_PATH, post(handle_login))
            .with_state(self.0.clone());
        sockets.merge(proxy.unwrap_or_default())
    }

    /// Subscribes to the bus, for [`Gateway::run`]. Messages from this call on are queued.
    pub fn subscribe(&self) -> BusSubscriptions {
        bus_messages::subscribe(&self.0.bus)
    }

    /// Delivers bus messages to the sessions, probes the services and the load that `/about` reports, and
    /// resynchronizes with other gateways. Does not return.
    pub async fn run(&self, subscriptions: BusSubscriptions) {
        let BusSubscriptions { mut engine, mut topics } = subscriptions;
        let handle_engine = async {
            while let Some(envelope) = engine.next().await {
                bus_messages::handle_engine_message(&self.0, &envelope);
            }
        };
        // Topic messages have a task of their own, so that their fan-out does not delay assignments. The
        // join set ends that task together with this one.
        let shared = self.0.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(envelope) = topics.next().await {
                bus_messages::handle_topic_message(&shared.topics, &envelope);
            }
        });
        let Shared { content, lambdas, load, bus, sessions, resync, .. } = &*self.0;
        let about = async { tokio::join!(content.probe(), lambdas.probe(), load.run()) };
        tokio::join!(handle_engine, about, resync.run(bus, sessions));
    }

    /// Refuses new handshakes, and closes existing sessions with
    /// [`Close::Restarting`](protocol::Close::Restarting) so that their clients reconnect to another gateway.
    pub fn drain(&self) {
        self.0.handshakes.close();
        self.0.livekit_proxy.close();
        self.0.sessions.drain();
    }

    /// Number of open sockets: signed in, in the handshake, or in the closing handshake.
    pub fn sockets_count(&self) -> usize {
        Arc::strong_count(&self.0.sockets) - 1
    }

    /// Updates the gauges of the gateway.
    pub fn observe(&self) {
        metrics::connected_users().set(self.0.sessions.count() as f64);
        metrics::sockets().set(self.sockets_count() as f64);
        metrics::topic_subscriptions().set(self.0.topics.count() as f64);
        metrics::signing_in().set(self.0.handshakes.permits_count() as f64);
        metrics::livekit_proxy_connections().set(self.0.livekit_proxy.permits_count() as f64);
        metrics::accepting().set(f64::from(self.0.rejection_reason().is_none()));
    }

    /// Whether a new session would be assigned an island: a director published its status recently, and the
    /// gateway does not drain.
    pub fn is_ready(&self) -> bool {
        self.0.director_status.lock().is_healthy() && !self.0.sessions.is_draining()
    }
}

/// The limits of the signalling proxy: a peer that moves between two rooms has two connections.
fn proxy_limits(settings: &Settings) -> ConnectionLimits {
    let twice = |sessions: usize| sessions.saturating_mul(2);
    let (total, per_network) = (settings.max_sessions, settings.max_sessions_per_network);
    ConnectionLimits { total: twice(total), per_network: per_network.map(twice), rate: None }
}

/// Answers whether a participant is a member of the island of a LiveKit room, which has the name of the island.
fn membership_check(shared: Arc<Shared>) -> MembershipCheck {
    Arc::new(move |admission: Admission| {
        let shared = shared.clone();
        Box::pin(async move {
            match (admission.identity.parse(), admission.room.parse()) {
                (Ok(peer), Ok(island)) => shared.sessions.is_member(peer, &island).await,
                _ => false,
            }
        })
    })
}

/// Handles the upgrade to an archipelago socket.
async fn open_archipelago_socket(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    let new_dialect = |_: &Shared| ArchipelagoDialect::default();
    open_socket(shared, network, request, protocol::ARCHIPELAGO_SUBPROTOCOL, new_dialect)
}

/// Handles the upgrade to an RPC socket.
async fn open_rpc_socket(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    let new_dialect =
        |shared: &Shared| RpcDialect::new(shared.topics.clone(), &shared.settings, Instant::now());
    open_socket(shared, network, request, protocol::RPC_SUBPROTOCOL, new_dialect)
}

/// Upgrades a request to a WebSocket and serves it in a task. Responds 503 if the client network has no
/// handshake left.
fn open_socket<D: Dialect + 'static>(
    shared: Arc<Shared>,
    network: Network,
    mut request: Request,
    subprotocol: &'static str,
    new_dialect: impl FnOnce(&Shared) -> D + Send + 'static,
) -> Response {
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
        if let Some(stream) = stream.stream().await {
            let socket = ClientSocket::new(stream, &shared.settings);
            let connection = Connection::new(socket, new_dialect(&shared), open_socket);
            driver::serve(shared, connection, permit).await;
        }
    });
    response.map(|()| Body::empty())
}
