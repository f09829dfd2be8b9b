//! Opening the bucket of the leases.

use async_nats::{Client, jetstream};

use super::{
    error::{LeaseError, with_timeout},
    key::LeaseKey,
    replicas::{ReplicaTarget, may_fit_single_replica},
    stream,
};
use crate::nats::timing::LEASE_TTL;

/// The bucket of the leases, opened when it is first needed.
pub(super) struct Bucket {
    client: Client,
    jetstream: jetstream::Context,
    lease_name: &'static str,
    replicas: ReplicaTarget,
    /// The key of the lease, once the bucket was opened.
    key: Option<LeaseKey>,
    /// Whether the bucket was ever opened.
    was_opened: bool,
}

impl Bucket {
    /// The bucket with the key of the lease `lease_name`, not open yet.
    pub(super) fn new(client: Client, lease_name: &'static str, replicas: ReplicaTarget) -> Self {
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
            lease_name,
            replicas,
            key: None,
            was_opened: false,
        }
    }

    /// Whether the bucket was ever opened.
    pub(super) fn was_opened(&self) -> bool {
        self.was_opened
    }

    /// The key of the lease. Opens the bucket, or creates it, unless it is open.
    pub(super) async fn open(&mut self) -> Result<LeaseKey, LeaseError> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        self.create_stream().await?;
        let store = with_timeout(self.jetstream.get_key_value(stream::BUCKET)).await?;
        let store = store.map_err(|error| LeaseError::from_client_error(&error))?;
        let age = store.stream.cached_info().config.max_age;
        if age != LEASE_TTL {
            return Err(LeaseError::WrongTtl(age));
        }
        self.was_opened = true;
        Ok(self.key.insert(LeaseKey { store, name: self.lease_name }).clone())
    }

    /// Forgets the open bucket, and returns the key if it was open. The next [`Self::open`] opens it again.
    pub(super) fn close(&mut self) -> Option<LeaseKey> {
        self.key.take()
    }

    /// Creates the stream, unless it exists.
    async fn create_stream(&self) -> Result<(), LeaseError> {
        // The stream is created directly and not as a bucket: the client library cannot decode the reply of
        // older servers to that.
        let replicas = self.replicas.resolve(&self.client);
        let created = match with_timeout(self.jetstream.create_stream(stream::config(replicas))).await? {
            // Replicas are added once there are enough servers.
            Err(error) if replicas > 1 && may_fit_single_replica(&error) => {
                with_timeout(self.jetstream.create_stream(stream::config(1))).await?
            }
            created => created,
        };
        let has_jetstream = self.client.server_info().jetstream;
        match created.err().and_then(|error| LeaseError::from_create_error(&error, has_jetstream)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
