//! `atoll serve`: runs all roles of a realm, or some of them, in one process.

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

/// How long a director may take to publish its last decisions and to release the lease.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long requests in flight may take at the end.
const LAST_RESPONSES_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a realm, or a part of one, until a signal stops it.
pub(crate) async fn serve(settings: Settings, parsed: ValidatedSettings) -> Result<()> {
    telemetry::log(&settings)?;
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    // From here on signals are handled, in every phase of the start: the bus may respond late, or
    // never.
    let mut stop = pin!(stop_signal()?);
    let started = tokio::select! {
        started = start(&settings, parsed) => started?,
        () = &mut stop => {
            tracing::info!("stopped during the start");
            return Ok(());
        }
    };
    let RunningApp { app, director_handle, roles, mut servers, stop_listeners } = started;
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
        let drained = time::timeout(limit, app.drain(limit / 2)).await;
        // The director resigns last: until the drain is over it moves islands to other nodes. With the
        // resignation a standby need not wait for the end of the lease.
        if let Some(director_handle) = director_handle {
            let _ = time::timeout(RESIGN_TIMEOUT, director_handle.resign()).await;
        }
        drained
    };
    tokio::select! {
        drained = drained => match drained {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::warn!(sockets = app.sockets_count(), "sockets were left open"),
        },
        () = stop_signal()? => tracing::warn!(sockets = app.sockets_count(), "ended before it was drained"),
    }
    drop(stop_listeners);
    let _ = time::timeout(LAST_RESPONSES_TIMEOUT, servers.join_all()).await;
    Ok(())
}

/// The running roles and listeners of a process.
struct RunningApp {
    app: App,
    /// The handle of the director, if it runs here.
    director_handle: Option<AdminHandle>,
    /// The task that runs the roles. It ends when a role fails.
    roles: JoinHandle<Result<()>>,
    /// The tasks of the listeners.
    servers: JoinSet<()>,
    /// Dropping it stops the listeners.
    stop_listeners: watch::Sender<()>,
}

/// Binds the listeners, connects to the bus, and starts the roles and the listeners. Tasks are spawned
/// only after the last await, so that a cancelled start leaves nothing behind.
async fn start(settings: &Settings, parsed: ValidatedSettings) -> Result<RunningApp> {
    let metrics = telemetry::metrics()?;
    // Each socket is a file; the soft limit of most systems is far below the hard one. 0 (unknown) limits the
    // listener to its minimum of connections.
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
    // Only a process with a director has admin endpoints.
    let admin = match parsed.admin.filter(|_| parsed.roles.contains(&Role::Director)) {
        Some(address) => admin_listener(address, settings).await?,
        None => None,
    };
    let admin_local = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let bus = match parsed.bus.clone() {
        Some(nats) => Bus::nats(nats).await.context("no bus")?,
        None => Bus::in_process(),
    };
    let (app, director) = App::build(settings, &parsed, &urls, bus)?;
    let throttle = settings.presence_rate().map(Throttle::new);
    let (public_router, metrics_router) = app.routers(metrics.clone(), metrics_listener.is_some(), throttle);
    let director_handle = director.as_ref().map(director::Director::admin);
    let roles = tokio::spawn(app.clone().run(director, metrics));
    let (stop_listeners, stopped) = watch::channel(());
    let stop_signal = || {
        let mut stopped = stopped.clone();
        // `changed` also returns when the sender is dropped.
        async move { drop(stopped.changed().await) }
    };
    let mut servers = JoinSet::new();
    let public = settings.public_listener(parsed.client_addresses.clone(), files);
    servers.spawn(listener::serve(listener, public_router, public, stop_signal()));
    if let Some(listener) = metrics_listener {
        servers.spawn(listener::serve(
            listener,
            metrics_router,
            settings.operator_listener("metrics"),
            stop_signal(),
        ));
    }
    urls.print(&parsed.roles, metrics_local, admin_local);
    if let Some(director_handle) = director_handle.clone() {
        if let Some(listener) = admin {
            let router = admin::router(director_handle.clone());
            servers.spawn(listener::serve(
                listener,
                router,
                settings.operator_listener("admin"),
                stop_signal(),
            ));
        }
        if let Some((file, rules)) = parsed.rules {
            tracing::info!(file = %file.display(), count = rules.rules.len(), "rules apply");
            tokio::spawn(rules::watch(file, rules, director_handle));
        }
    }
    tracing::info!(%local, files, roles = settings.server.roles, "serving");
    Ok(RunningApp { app, director_handle, roles, servers, stop_listeners })
}

/// Binds the metrics listener.
async fn bind_metrics(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (server.metrics_listen) for metrics"))
}

/// Binds the operators' listener. If its address is the default, another realm on this machine may use
/// it: then this one runs without.
async fn admin_listener(address: SocketAddr, settings: &Settings) -> Result<Option<TcpListener>> {
    match admin::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.server.admin == Settings::default().server.admin => {
            tracing::warn!("this realm has no admin endpoints: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A future that ends with the first Ctrl-C or SIGTERM from now on.
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
