//! The listeners of a process: the public one, and those for metrics and for operators.

use std::{io, net::SocketAddr};

use anyhow::{Context, Result};
use axum::Router;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{admin, config::Settings, role::Role};

/// The bound listeners.
pub(super) struct Listeners {
    public: TcpListener,
    metrics: Option<TcpListener>,
    admin: Option<TcpListener>,
    /// The number of files that the process may open.
    pub(super) files: u64,
}

/// The addresses of the bound listeners.
pub(super) struct Addresses {
    pub(super) public: SocketAddr,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
}

/// The endpoints of each listener. An endpoint without a listener is not served.
pub(super) struct Routers {
    pub(super) public: Router,
    pub(super) metrics: Router,
    pub(super) admin: Router,
}

/// Listeners that accept connections.
pub(super) struct Servers {
    /// The tasks of the listeners. They end when the last connection is closed.
    pub(super) tasks: JoinSet<()>,
    /// Dropping it stops the listeners.
    pub(super) stop: watch::Sender<()>,
}

impl Listeners {
    pub(super) async fn bind(settings: &Settings) -> Result<Self> {
        let server = &settings.server;
        // Each socket is a file; the soft limit of most systems is far below the hard one. 0 (unknown) limits the
        // listener to its minimum of connections.
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
        let public = TcpListener::bind(server.listen.0)
            .await
            .with_context(|| format!("cannot listen on {}", server.listen.0))?;
        let metrics = match &*server.metrics_listen {
            Some(address) => Some(bind_metrics(address.0).await?),
            None => None,
        };
        let admin = match &*server.admin {
            // Only a process with a director has admin endpoints.
            Some(address) if server.roles.contains(&Role::Director) => {
                bind_admin(address.0, server.admin == Settings::default().server.admin).await?
            }
            _ => None,
        };
        Ok(Self { public, metrics, admin, files })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            public: self.public.local_addr()?,
            metrics: self.metrics.as_ref().map(TcpListener::local_addr).transpose()?,
            admin: self.admin.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }

    /// Starts a task for each listener.
    pub(super) fn serve(self, settings: &Settings, routers: Routers) -> Servers {
        let server = &settings.server;
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        let mut serve = |listener, router, settings| {
            let mut stopped = stopped.clone();
            // `changed` also returns when the sender is dropped.
            let stop_signal = async move { drop(stopped.changed().await) };
            tasks.spawn(listener::serve(listener, router, settings, stop_signal));
        };
        serve(self.public, routers.public, server.public_listener(self.files));
        if let Some(listener) = self.metrics {
            serve(listener, routers.metrics, server.operator_listener("metrics"));
        }
        if let Some(listener) = self.admin {
            serve(listener, routers.admin, server.operator_listener("admin"));
        }
        Servers { tasks, stop }
    }
}

/// Binds the metrics listener.
async fn bind_metrics(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (server.metrics_listen) for metrics"))
}

/// Binds the operators' listener. If its address is the default, another realm on this machine may use
/// it: then this one runs without.
async fn bind_admin(address: SocketAddr, is_default: bool) -> Result<Option<TcpListener>> {
    match admin::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if is_default => {
            tracing::warn!("this realm has no admin endpoints: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
