//! The task that adds replicas to the lease stream when the cluster has grown.

use std::{future, time::Duration};

use async_nats::{
    Client,
    connection::State,
    jetstream::{self, context::CreateStreamError, stream::Config},
};
use tokio::{sync::watch, time};

use super::{
    replicas::{ReplicaTarget, lacks_servers},
    stream::STREAM,
};
use crate::election::{ElectionState, ObservedState};

/// How often the leader compares the stream with the setting: the cluster may have grown.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The same interval after a request that the server refused for another reason, or did not permit.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

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
        future::pending().await
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
            GrowError::TooFewServers(_) if !self.target.is_set() => {
                tracing::debug!(error = text, "the lease stream keeps its replicas");
            }
            _ => tracing::warn!(error = text, "the lease stream has fewer replicas than it should"),
        }
        self.last_logged = Some(text);
    }
}
