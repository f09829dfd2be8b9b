//! The number of servers of a NATS cluster that store the lease stream.
//!
//! With one replica, no director leads while its server is down. With three, one server may be down.

use std::time::Duration;

use async_nats::{
    Client,
    connection::State,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamError, CreateStreamErrorKind},
        stream::Config,
    },
};
use tokio::{sync::watch, time};

use super::lease::STREAM;
use crate::election::{ElectionState, ObservedState};

/// Replicas in a cluster with enough servers, unless a setting overrides it.
const DEFAULT_REPLICAS: usize = 3;
/// How often the leader compares the stream with the setting: the cluster may have grown.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The same interval after a request that the server refused for another reason, or did not permit.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// How many replicas the stream should have.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplicaTarget {
    /// `None`: [`DEFAULT_REPLICAS`] in a cluster.
    setting: Option<usize>,
}

impl ReplicaTarget {
    pub(super) fn new(setting: Option<usize>) -> Self {
        Self { setting }
    }

    /// How many replicas to request. The server that receives the request knows whether the cluster has
    /// enough servers with JetStream. The addresses in its INFO do not show it: operators may hide them, and
    /// the client library keeps those of the first connect.
    pub(super) fn resolve(self, client: &Client) -> usize {
        let is_clustered = client.server_info().cluster.is_some();
        self.setting.unwrap_or(if is_clustered { DEFAULT_REPLICAS } else { 1 })
    }
}

/// Whether a stream of several replicas was refused for a reason that may allow a stream of one: too few
/// servers, or the limits of an account.
pub(super) fn may_fit_single_replica(error: &CreateStreamError) -> bool {
    !matches!(
        code(error),
        None | Some(
            ErrorCode::STREAM_NAME_EXIST
                | ErrorCode::JETSTREAM_NOT_ENABLED
                | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
                | ErrorCode::CLUSTER_NOT_AVAILABLE
        )
    )
}

/// Whether the cluster has fewer servers than the stream should have replicas.
fn lacks_servers(error: &CreateStreamError) -> bool {
    matches!(
        code(error),
        Some(
            ErrorCode::CLUSTER_NO_PEERS
                | ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
        )
    )
}

/// The error code of JetStream's reply, if there was one.
fn code(error: &CreateStreamError) -> Option<ErrorCode> {
    match error.kind() {
        CreateStreamErrorKind::JetStream(error) => Some(error.error_code()),
        _ => None,
    }
}

/// The task that adds replicas to the stream while this candidate leads. It never removes any.
pub(super) struct ReplicaGrower {
    client: Client,
    jetstream: jetstream::Context,
    target: ReplicaTarget,
    observed: watch::Receiver<ObservedState>,
    /// The error that was logged last: an unchanged one is logged once.
    last_logged: Option<String>,
}

/// Why the stream has fewer replicas than it should.
#[derive(Debug, thiserror::Error)]
enum GrowError {
    /// More servers may join later.
    #[error("the cluster has too few servers: {0}")]
    TooFewServers(CreateStreamError),
    #[error(transparent)]
    Update(CreateStreamError),
    #[error(transparent)]
    Read(#[from] jetstream::context::GetStreamError),
}

impl ReplicaGrower {
    pub(super) fn new(
        client: Client,
        target: ReplicaTarget,
        observed: watch::Receiver<ObservedState>,
    ) -> Self {
        Self { jetstream: jetstream::new(client.clone()), client, target, observed, last_logged: None }
    }

    /// Runs for as long as the campaign does.
    pub(super) async fn run(mut self) {
        // Only the leader changes the stream: one candidate is enough, and the leader has opened the stream.
        let is_leader = |observed: &ObservedState| matches!(observed.now(), ElectionState::Leader(term) if term.epoch.is_some());
        while self.observed.wait_for(is_leader).await.is_ok() {
            let pause = match self.grow().await {
                Ok(()) => {
                    self.last_logged = None;
                    CHECK_INTERVAL
                }
                Err(error) => {
                    self.log(&error);
                    if let GrowError::Update(_) = error { RETRY_INTERVAL } else { CHECK_INTERVAL }
                }
            };
            time::sleep(pause).await;
        }
        // If this task ended, `join_next` would take its end for that of the lease task.
        std::future::pending().await
    }

    async fn grow(&self) -> Result<(), GrowError> {
        let wanted = self.target.resolve(&self.client);
        if wanted == 1 || self.client.connection_state() != State::Connected {
            return Ok(());
        }
        let stream = self.jetstream.get_stream(STREAM).await?;
        let config = stream.cached_info().config.clone();
        let before = config.num_replicas;
        if before >= wanted {
            return Ok(());
        }
        let updated = self.jetstream.update_stream(Config { num_replicas: wanted, ..config }).await;
        let updated = updated.map_err(|error| match lacks_servers(&error) {
            true => GrowError::TooFewServers(error),
            false => GrowError::Update(error),
        })?;
        tracing::info!(before, replicas = updated.config.num_replicas, "the lease stream has more replicas");
        Ok(())
    }

    fn log(&mut self, error: &GrowError) {
        let text = error.to_string();
        if self.last_logged.as_ref() == Some(&text) {
            return;
        }
        match error {
            // In a cluster of two servers this is expected.
            GrowError::TooFewServers(_) if self.target.setting.is_none() => {
                tracing::debug!(error = text, "the lease stream keeps its replicas");
            }
            _ => tracing::warn!(error = text, "the lease stream has fewer replicas than it should"),
        }
        self.last_logged = Some(text);
    }
}
