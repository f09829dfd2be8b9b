//! `atoll serve`: the roles of a realm, all of them or some, in one process.

mod app;
mod banner;
mod throttle;

use std::{net::SocketAddr, pin::pin, time::Duration};

use anyhow::{Context, Result};
use bus::Bus;
use director::AdminHandle;
use tokio::{
    net::TcpListener,
    signal,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time,
};

use crate::{
    admin,
    config::{Settings, ValidatedSettings},
    role::Role,
    rules, telemetry,
};
use banner::Urls;

pub(crate) use app::App;
pub(crate) use throttle::{Throttle, throttle};

/// How long a director may take to tell what it has decided, and to resign.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long requests that are under way at the end may take to be answered.
const LAST_RESPONSES_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a realm, or a part of one, until it is told to stop.
pub(crate) async fn serve(settings: Settings, parsed: ValidatedSettings) -> Result<()> {
    telemetry::log(&settings)?;
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    // Signals count from here on, in every phase of the start: the bus may take its time, or never answer.
    let mut stop = pin!(stop_signal()?);
    let started = tokio::select! {
        started = start(&settings, parsed) => started?,
        () = &mut stop => {
            tracing::info!("stopped during the start");
            return Ok(());
        }
    };
    let RunningApp { realm, console, roles, mut servers, stop_listeners } = started;
    tokio::select! {
        () = stop => {}
        ended = roles => {
            ended.context("a role failed")??;
            anyhow::bail!("a role ended");
        }
        ended = servers.join_next() => anyhow::bail!("a listener ended: {ended:?}"),
    }
    tracing::info!("draining; stop again to end at once");
    let limit = Duration::from_secs(settings.server.drain_timeout_s);
    let drained = async {
        let drained = time::timeout(limit, realm.drain(limit / 2)).await;
        // Only then: it sends people elsewhere until they have gone. Another director need not wait for
        // the end of its term.
        if let Some(console) = console {
            let _ = time::timeout(RESIGN_TIMEOUT, console.resign()).await;
        }
        drained
    };
    tokio::select! {
        drained = drained => match drained {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::warn!(sockets = realm.sockets_count(), "sockets were left open"),
        },
        () = stop_signal()? => tracing::warn!(sockets = realm.sockets_count(), "ended before it was drained"),
    }
    drop(stop_listeners);
    let _ = time::timeout(LAST_RESPONSES_TIMEOUT, servers.join_all()).await;
    Ok(())
}

/// A realm, or a part of one, that serves.
struct RunningApp {
    realm: App,
    /// Of the director, where one runs.
    console: Option<AdminHandle>,
    /// Ends when a role fails.
    roles: JoinHandle<Result<()>>,
    /// The listeners.
    servers: JoinSet<()>,
    /// Dropping it stops the listeners.
    stop_listeners: watch::Sender<()>,
}

/// Binds what has to be bound, connects to the bus, and starts the roles and the listeners. Tasks are spawned only after
/// the last wait, so that a start that is cancelled leaves nothing behind.
async fn start(settings: &Settings, parsed: ValidatedSettings) -> Result<RunningApp> {
    let metrics = telemetry::metrics()?;
    // Each socket is a file; the soft limit of most systems is far below the hard one.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    let listener = TcpListener::bind(parsed.listen)
        .await
        .with_context(|| format!("cannot listen on {}", parsed.listen))?;
    let local = listener.local_addr()?;
    let metrics_listener = match parsed.metrics_listen {
        Some(address) => Some(bind_metrics(address).await?),
        None => None,
    };
    let metrics_local = metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let urls = Urls::new(parsed.public_url.as_deref(), local);
    // What operators ask, a director answers.
    let admin = match parsed.admin.filter(|_| parsed.roles.contains(&Role::Director)) {
        Some(address) => admin_listener(address, settings).await?,
        None => None,
    };
    let admin_local = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let bus = match parsed.bus.clone() {
        Some(nats) => Bus::nats(nats).await.context("no bus")?,
        None => Bus::in_process(),
    };
    let (realm, director) = App::build(settings, &parsed, &urls, bus)?;
    let throttle = settings.presence_rate().map(Throttle::new);
    let (app, metrics_app) = realm.routers(metrics.clone(), metrics_listener.is_some(), throttle);
    let console = director.as_ref().map(director::Director::admin);
    let roles = tokio::spawn(realm.clone().run(director, metrics));
    let (stop_listeners, stopped) = watch::channel(());
    let stopped = || {
        let mut stopped = stopped.clone();
        // The end of the sender counts, too.
        async move { drop(stopped.changed().await) }
    };
    let mut servers = JoinSet::new();
    let public = settings.public_listener(parsed.client_addresses.clone(), files);
    servers.spawn(listener::serve(listener, app, public, stopped()));
    if let Some(listener) = metrics_listener {
        servers.spawn(listener::serve(
            listener,
            metrics_app,
            settings.operator_listener("metrics"),
            stopped(),
        ));
    }
    urls.print(&parsed.roles, metrics_local, admin_local);
    if let Some(console) = console.clone() {
        if let Some(listener) = admin {
            let app = admin::router(console.clone());
            servers.spawn(listener::serve(listener, app, settings.operator_listener("admin"), stopped()));
        }
        if let Some((file, rules)) = parsed.rules {
            tracing::info!(file = %file.display(), count = rules.rules.len(), "rules hold");
            tokio::spawn(rules::watch(file, rules, console));
        }
    }
    tracing::info!(%local, files, roles = settings.server.roles, "serving");
    Ok(RunningApp { realm, console, roles, servers, stop_listeners })
}

/// The listener for metrics.
async fn bind_metrics(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (server.metrics_listen) for metrics"))
}

/// The listener for operators. Where nobody has set the address, another realm on this machine may
/// have it: then this one does without.
async fn admin_listener(address: SocketAddr, settings: &Settings) -> Result<Option<TcpListener>> {
    match admin::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.server.admin == Settings::default().server.admin => {
            tracing::warn!("nobody can ask this realm why: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error),
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
