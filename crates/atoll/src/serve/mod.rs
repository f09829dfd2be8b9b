//! `atoll serve`: runs all roles of a realm, or some of them, in one process.

mod api;
mod app;
mod banner;
mod http;
mod listeners;
mod livekit_webhook;
mod rooms_status;
mod routers;
mod throttle;

use std::{pin::pin, time::Duration};

use anyhow::{Context, Result};
use bus::Bus;
use director::{AdminHandle, Director};
use protocol::timing::RESIGN_TIMEOUT;
use tokio::{signal, task::JoinHandle, time};

use crate::{config::Configuration, rules, telemetry};
use app::App;
use banner::Urls;
use listeners::{Listeners, Servers};
use routers::routers;
use throttle::Throttle;

/// How long requests in flight may take at the end.
const LAST_RESPONSES_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a realm, or a part of one, until a signal stops it.
pub(crate) async fn serve(configuration: Configuration) -> Result<()> {
    let settings = &configuration.settings;
    telemetry::log(settings)?;
    for warning in settings.rooms.warnings() {
        tracing::warn!("{warning}");
    }
    // From here on signals are handled, in every phase of the start: the bus may respond late, or
    // never.
    let mut stop = pin!(stop_signal()?);
    let started = tokio::select! {
        started = start(&configuration) => started?,
        () = &mut stop => {
            tracing::info!("stopped during the start");
            return Ok(());
        }
    };
    let RunningApp { app, director_handle, roles, mut servers } = started;
    tokio::select! {
        () = stop => {}
        ended = roles => {
            ended.context("a role failed")??;
            anyhow::bail!("a role ended");
        }
        ended = servers.tasks.join_next() => anyhow::bail!("a listener ended: {ended:?}"),
    }
    tracing::info!("draining; stop again to end at once");
    let limit = settings.server.drain_timeout_s.duration();
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
    drop(servers.stop);
    let _ = time::timeout(LAST_RESPONSES_TIMEOUT, servers.tasks.join_all()).await;
    Ok(())
}

/// The running roles and listeners of a process.
struct RunningApp {
    app: App,
    /// The handle of the director, if it runs here.
    director_handle: Option<AdminHandle>,
    /// The task that runs the roles. It ends when a role fails.
    roles: JoinHandle<Result<()>>,
    servers: Servers,
}

/// Binds the listeners, connects to the bus, and starts the roles and the listeners. Tasks are spawned
/// only after the last await, so that a cancelled start leaves nothing behind.
async fn start(configuration: &Configuration) -> Result<RunningApp> {
    let Configuration { settings, rules } = configuration;
    let metrics = telemetry::install_recorder()?;
    let listeners = Listeners::bind(settings).await?;
    let addresses = listeners.addresses()?;
    let urls = Urls::new(&settings.server.public_url, addresses.public);
    let bus = match settings.bus.settings() {
        Some(nats) => Bus::nats(nats).await.context("no bus")?,
        None => Bus::in_process(),
    };
    let (app, director) = App::build(configuration, &urls, bus)?;
    let director_handle = director.as_ref().map(Director::admin);
    let throttle = settings.stats.request_rate().map(Throttle::new);
    let has_metrics_listener = addresses.metrics.is_some();
    let routers = routers(&app, director_handle.clone(), metrics.clone(), has_metrics_listener, throttle);
    let roles = tokio::spawn(app.clone().run(director, metrics));
    let files = listeners.files;
    let servers = listeners.serve(settings, routers);
    urls.print(&settings.server.roles(), addresses.metrics, addresses.admin);
    if let (Some(director_handle), Some((file, loaded))) = (&director_handle, rules) {
        tracing::info!(file = %file.display(), count = loaded.rules.len(), "rules apply");
        tokio::spawn(rules::watch::watch(file.clone(), director_handle.clone()));
    }
    tracing::info!(local = %addresses.public, files, roles = settings.server.roles.text(), "serving");
    Ok(RunningApp { app, director_handle, roles, servers })
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
