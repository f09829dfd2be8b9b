//! `atoll serve`: the roles of a realm, all of them or some, in one process.

mod banner;
mod listen;
mod realm;

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context, Result};
use axum_server::Handle;
use bus::Bus;
use tokio::{signal, time};

use crate::{
    admin,
    config::{Parsed, Settings},
    role::Role,
    rules, telemetry,
};
use banner::Urls;
use listen::{Patience, listen};

pub(crate) use realm::Realm;

/// How long a director may take to tell what it has decided, and to resign.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a realm, or a part of one, until it is told to stop.
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
    // What operators ask, a director answers.
    let admin = match parsed.admin.filter(|_| parsed.roles.contains(&Role::Director)) {
        Some(address) => admin_listener(address, &settings)?,
        None => None,
    };
    let bus = match parsed.bus.clone() {
        Some(nats) => Bus::nats(nats).await.context("no bus")?,
        None => Bus::in_process(),
    };
    let (realm, director) = Realm::assemble(&settings, &parsed, &urls, bus)?;
    let app = realm.router(metrics.clone());
    let console = director.as_ref().map(director::Director::console);
    let roles = tokio::spawn(realm.clone().run(director, metrics));
    let handle = Handle::new();
    let patience = Patience {
        head: Duration::from_secs(settings.server.header_timeout_s),
        write: Duration::from_secs(settings.server.write_timeout_s),
    };
    let server = tokio::spawn(listen(listener, app, handle.clone(), patience)?);
    let admin_local = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    urls.print(&parsed.roles, admin_local);
    if let Some(console) = console.clone() {
        if let Some(listener) = admin {
            tokio::spawn(listen(listener, admin::router(console.clone()), handle.clone(), patience)?);
        }
        if let Some((file, rules)) = parsed.rules {
            tracing::info!(file = %file.display(), count = rules.rules.len(), "rules hold");
            tokio::spawn(rules::watch(file, rules, console));
        }
    }
    tracing::info!(%local, files, roles = settings.server.roles, "serving");

    let stop = stop_signal()?;
    tokio::select! {
        () = stop => {}
        ended = roles => {
            ended.context("a role failed")??;
            anyhow::bail!("a role ended");
        }
        ended = server => anyhow::bail!("the server ended: {ended:?}"),
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
