//! The number of servers of a NATS cluster that store the lease stream.
//!
//! With one replica, no director leads while its server is down. With three, one server may be down.

use async_nats::{
    Client,
    jetstream::{
        ErrorCode,
        context::{CreateStreamError, CreateStreamErrorKind},
    },
};

/// Replicas in a cluster with enough servers, unless a setting overrides it.
const DEFAULT_REPLICAS: usize = 3;

/// How many replicas the stream should have.
#[derive(Debug, Clone, Copy)]
pub(in crate::nats) struct ReplicaTarget {
    /// `None`: [`DEFAULT_REPLICAS`] in a cluster.
    setting: Option<usize>,
}

impl ReplicaTarget {
    pub(in crate::nats) fn new(setting: Option<usize>) -> Self {
        Self { setting }
    }

    /// How many replicas to request. The server that receives the request knows whether the cluster has
    /// enough servers with JetStream. The addresses in its INFO do not show it: operators may hide them, and
    /// the client library keeps those of the first connect.
    pub(super) fn resolve(self, client: &Client) -> usize {
        let is_clustered = client.server_info().cluster.is_some();
        self.setting.unwrap_or(if is_clustered { DEFAULT_REPLICAS } else { 1 })
    }

    /// Whether a setting requires this number.
    pub(super) fn is_set(self) -> bool {
        self.setting.is_some()
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
pub(super) fn lacks_servers(error: &CreateStreamError) -> bool {
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
