//! The JetStream stream that stores the leases.

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

use crate::nats::timing::LEASE_TTL;

/// The bucket of all leases, one key each.
pub(super) const BUCKET: &str = "atoll-leases";
/// The stream behind the bucket.
pub(super) const STREAM: &str = "KV_atoll-leases";

/// The configuration of a new stream.
pub(super) fn config(num_replicas: usize) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        max_messages_per_subject: 1,
        max_age: LEASE_TTL,
        // Revisions have to survive a restart of the server.
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        num_replicas,
        ..Config::default()
    }
}
