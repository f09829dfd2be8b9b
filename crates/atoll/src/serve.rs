//! `atoll serve`: every role in one process.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use admission::{Contracts, Verifier};
use anyhow::{Context, Result};
use axum::Router;
use axum_server::{Handle, accept::Accept};
use bus::Bus;
use director::Director;
use gateway::{FixedRoom, Gateway};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use rooms::Rooms;
use stats::Stats;
use tokio::{net::TcpStream, signal, sync::oneshot, time};
use transports::ws_room;

use crate::{
    admin, api,
    config::{Parsed, Settings},
    http, process, rules, telemetry,
};

/// Runs a realm until it is told to stop.
pub(crate) async fn serve(settings: Settings, parsed: Parsed) -> Result<()> {
    telemetry::log(&settings)?;
    let metrics = telemetry::metrics()?;
    // Each socket is a file; the soft limit of most systems is far below the hard one.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    let listener =
        TcpListener::bind(parsed.listen).with_context(|| format!("cannot listen on {}", parsed.listen))?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;
    let urls = Urls::new(parsed.public_url.as_deref(), local);
    let admin = match parsed.admin {
        Some(address) => admin_listener(address, &settings)?,
        None => None,
    };
    let bus = match parsed.bus.clone() {
        Some(nats) => Bus::nats(nats).await.context("no bus")?,
        None => Bus::in_process(),
    };
    let realm = Realm::assemble(&settings, &parsed, &urls, bus)?;
    let app = realm.router(metrics.clone());
    let director = realm.director()?;
    let console = director.console();
    let roles = tokio::spawn(realm.clone().run(director, metrics));
    let handle = Handle::new();
    let patience = Patience {
        head: seconds(settings.server.header_timeout_s),
        write: seconds(settings.server.write_timeout_s),
    };
    let server = tokio::spawn(listen(listener, app, handle.clone(), patience)?);
    urls.print();
    if let Some(listener) = admin {
        urls.print_admin(listener.local_addr()?);
        tokio::spawn(listen(listener, admin::router(console.clone()), handle.clone(), patience)?);
    }
    if let Some((file, rules)) = parsed.rules {
        tracing::info!(file = %file.display(), count = rules.rules.len(), "rules hold");
        tokio::spawn(rules::watch(file, rules, console));
    }
    tracing::info!(%local, files, "serving");

    let stop = stop_signal()?;
    tokio::select! {
        () = stop => {}
        ended = roles => anyhow::bail!("a role ended: {ended:?}"),
        ended = server => anyhow::bail!("the server ended: {ended:?}"),
    }
    tracing::info!("draining; stop again to end at once");
    let drained = time::timeout(seconds(settings.server.drain_timeout_s), realm.drain());
    tokio::select! {
        drained = drained => match drained {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::warn!(sockets = realm.sockets_count(), "sockets were left open"),
        },
        () = stop_signal()? => tracing::warn!(sockets = realm.sockets_count(), "ended before it was drained"),
    }
    handle.shutdown();
    Ok(())
}

/// The listener for operators. Where nobody has set the address, another realm on this machine may
/// have it: then this one does without.
fn admin_listener(address: SocketAddr, settings: &Settings) -> Result<Option<TcpListener>> {
    match admin::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.server.admin == Settings::default().server.admin => {
            tracing::warn!("nobody can ask this realm why: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Where everything is.
struct Urls {
    http: String,
    ws: String,
}

impl Urls {
    fn new(public_url: Option<&str>, local: SocketAddr) -> Self {
        let http =
            public_url.map_or_else(|| format!("http://{local}"), |url| url.trim_end_matches('/').to_owned());
        // http becomes ws and https wss.
        let ws = http.replacen("http", "ws", 1);
        Self { http, ws }
    }

    /// Says where everything is. Whoever does not listen any more is not told.
    fn print(&self) {
        let Self { http, ws } = self;
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(
            std::io::stdout(),
            "Atoll {version}: a realm in one process\n\
             \x20 gateway             {http}\n\
             \x20 about               {http}/about\n\
             \x20 archipelago socket  {ws}/archipelago/ws\n\
             \x20 rpc                 {ws}/bff/rpc\n\
             \x20 rooms               {ws}/rooms/{{island}}\n\
             \x20 presence            {http}/peers /islands /parcels /hot-scenes /rooms/status\n\
             \x20 live feed           {http}/events\n\
             \x20 description         {http}/openapi.json\n\
             \x20 health              {http}/health/ready\n\
             \x20 metrics             {http}/metrics\n\
             Send people in: atoll bots --count 20 --url {http}"
        );
    }

    fn print_admin(&self, admin: SocketAddr) {
        let _ = writeln!(std::io::stdout(), "Ask it why:     atoll explain --at 0,0 --admin http://{admin}");
    }
}

/// The roles of a realm.
#[derive(Clone)]
pub(crate) struct Realm {
    bus: Bus,
    gateway: Gateway,
    rooms: Rooms,
    stats: Stats,
    director: director::Settings,
    secret: String,
    token_ttl: Duration,
}

/// How often metrics are tidied up.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often a drain looks whether it is over.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How long a drain waits for readers of the live feed.
const FEED_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

impl Realm {
    fn assemble(settings: &Settings, parsed: &Parsed, urls: &Urls, bus: Bus) -> Result<Self> {
        let mut secrets = parsed.token_secrets.clone();
        if secrets.is_empty() {
            secrets.push(hex::encode(admission::random::<32>()?));
        }
        let mut verifier = Verifier::new(settings.identity());
        if let Some(contracts) = settings.contracts() {
            verifier = verifier.with_contracts(Contracts::new(contracts)?);
        }
        let token_ttl = seconds(settings.rooms.token_ttl_s);
        let fixed_room = parsed.realm.room.clone().zip(parsed.nodes.first().cloned());
        let fixed_room = fixed_room.map(|(name, node)| {
            let minter = ws_room::Minter::new(secrets[0].as_bytes(), token_ttl);
            FixedRoom { name, node, minter }
        });
        let tokens = ws_room::Verifier::new(secrets.iter().map(String::as_bytes));
        Ok(Self {
            gateway: Gateway::new(
                settings.gateway(&parsed.realm, &urls.http, &urls.ws),
                bus.clone(),
                verifier.clone(),
                fixed_room,
                Arc::new(process::usage),
            ),
            rooms: Rooms::new(
                settings.rooms(&parsed.nodes, parsed.realm.room.as_ref(), &urls.ws),
                tokens,
                verifier,
            ),
            stats: Stats::new(settings.stats(parsed.positions, &urls.http))?,
            director: settings.director(parsed.transports.clone(), parsed.rules()),
            secret: secrets.swap_remove(0),
            token_ttl,
            bus,
        })
    }

    fn router(&self, metrics: metrics_exporter_prometheus::PrometheusHandle) -> Router {
        let presence = self.stats.router().merge(self.rooms.status_router());
        let sockets = self.gateway.router().merge(self.rooms.router());
        api::router(presence, http::router(self.clone(), metrics), sockets)
    }

    /// A director, which listens from now on.
    fn director(&self) -> Result<Director> {
        let minter = ws_room::Minter::new(self.secret.as_bytes(), self.token_ttl);
        Ok(Director::new(self.director.clone(), self.bus.clone(), minter)?)
    }

    /// Runs every role. Does not return.
    async fn run(
        self,
        director: Director,
        metrics: metrics_exporter_prometheus::PrometheusHandle,
    ) -> Result<()> {
        let upkeep = async move {
            let mut ticks = time::interval(UPKEEP_INTERVAL);
            loop {
                ticks.tick().await;
                metrics.run_upkeep();
            }
        };
        // Each in a task of its own: what one does, the others do not wait for.
        // All of them listen before anybody speaks.
        let Self { gateway, stats, rooms, bus, .. } = self;
        let to_gateway = gateway.subscribe();
        let to_stats = stats.subscribe(&bus);
        let to_rooms = rooms.subscribe(&bus);
        let asked_by_stats = bus.clone();
        tokio::select! {
            ended = tokio::spawn(async move { gateway.run(to_gateway).await }) => ended?,
            ended = tokio::spawn(async move { stats.run(asked_by_stats, to_stats).await }) => ended?,
            ended = tokio::spawn(async move { rooms.run(bus, to_rooms).await }) => ended?,
            ended = on_its_own_thread(director) => ended?,
            () = upkeep => {}
        }
        Ok(())
    }

    /// Whether who signs in now will get an island and a room.
    pub(crate) fn is_ready(&self) -> bool {
        self.gateway.is_ready()
    }

    /// Sets the gauges to what holds now.
    pub(crate) fn observe(&self) {
        self.gateway.observe();
        self.rooms.observe();
    }

    fn sockets_count(&self) -> usize {
        self.gateway.sockets_count() + self.rooms.sockets_count()
    }

    /// Sends everybody away, and waits until they have gone.
    async fn drain(&self) {
        self.gateway.drain();
        self.rooms.drain(&self.bus);
        self.stats.drain();
        while self.sockets_count() > 0 {
            time::sleep(DRAIN_POLL).await;
        }
        // Who reads the live feed hears that it ends; who does not read holds nobody up.
        let ended = async {
            while self.stats.feed_readers_count() > 0 {
                time::sleep(DRAIN_POLL).await;
            }
        };
        let _ = time::timeout(FEED_DRAIN_TIMEOUT, ended).await;
        // Others hear who has gone.
        self.bus.flush().await;
    }
}

/// Runs the director on a thread and a timer that nothing else keeps busy, so that its clock holds
/// under any load; what it has to tell is told by the others.
async fn on_its_own_thread(director: Director) -> Result<()> {
    let messengers = tokio::runtime::Handle::current();
    let (ended, end) = oneshot::channel();
    let direct = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(director.run(messengers));
        Ok(())
    };
    // Ends with the process.
    std::thread::Builder::new().name("director".to_owned()).spawn(move || ended.send(direct()))?;
    end.await?
}

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until the head of a request is there.
    head: Duration,
    /// While it takes nothing of what it is sent.
    write: Duration,
}

/// Serves HTTP/1.1 on the listener. A connection that says nothing, or its request too slowly, or
/// does not take its answer, is closed.
fn listen(
    listener: TcpListener,
    app: Router,
    handle: Handle<SocketAddr>,
    patience: Patience,
) -> Result<impl Future<Output = std::io::Result<()>> + Send> {
    let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(Punctual(patience));
    // Without the guess at the version, which waits for first bytes for ever.
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(patience.head);
    *server.http_builder() = http;
    Ok(server.serve(app.into_make_service_with_connect_info::<SocketAddr>()))
}

/// Takes connections whose first byte comes in time: until then the HTTP server runs no timer. While
/// nothing of what they are sent is taken, their time runs, too.
#[derive(Clone)]
struct Punctual(Patience);

impl<S: Send + 'static> Accept<TcpStream, S> for Punctual {
    type Stream = TcpStream;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<(TcpStream, S)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Self(patience) = *self;
        Box::pin(async move {
            stream.set_nodelay(true)?;
            // The HTTP server has no timer for writes either; the kernel does.
            #[cfg(any(target_os = "android", target_os = "linux"))]
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(patience.write))?;
            time::timeout(patience.head, stream.peek(&mut [0])).await??;
            Ok((stream, service))
        })
    }
}

/// Ends with the first Ctrl-C or SIGTERM from now on.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal::unix::signal(signal::unix::SignalKind::interrupt())?;
    let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
