//! Why the leader is unknown, and how errors of the client library show it.

use std::{error::Error, time::Duration};

use async_nats::{
    RequestError, RequestErrorKind,
    jetstream::{
        ErrorCode,
        context::{CreateStreamError, CreateStreamErrorKind, PublishError, PublishErrorKind},
        kv::{UpdateError, UpdateErrorKind},
    },
};
use tokio::time;

use super::stream::{BUCKET, STREAM};
use crate::nats::timing::{LEASE_CALL_TIMEOUT, LEASE_TTL};

/// Why the leader is unknown.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    #[error("not connected")]
    Disconnected,
    #[error("no reply in time")]
    TimedOut,
    /// In a NATS cluster: the server that led the stream stopped, and the others have not elected a new one
    /// yet, or cannot.
    #[error("the lease stream has no leader among the NATS servers")]
    NoStreamLeader,
    #[error("another candidate wrote the key first")]
    WriteConflict,
    #[error("the server has no JetStream")]
    NoJetStream,
    #[error(
        "the bucket {BUCKET} expires entries after {0:?} instead of {LEASE_TTL:?}: delete the stream {STREAM}"
    )]
    WrongTtl(Duration),
    #[error("{0}")]
    Refused(String),
}

impl LeaseError {
    /// Whether the stream may have been lost or deleted.
    pub(super) fn may_have_lost_stream(&self) -> bool {
        match self {
            Self::NoStreamLeader | Self::NoJetStream | Self::WrongTtl(_) | Self::Refused(_) => true,
            Self::Disconnected | Self::TimedOut | Self::WriteConflict => false,
        }
    }

    /// Classifies an error of the creation of the stream; `None` if the stream exists.
    pub(super) fn from_create_error(error: &CreateStreamError, has_jetstream: bool) -> Option<Self> {
        use ErrorCode as Code;
        Some(match error.kind() {
            CreateStreamErrorKind::JetStream(error) => match error.error_code() {
                // Another candidate created it with a different configuration, for example with more
                // replicas.
                Code::STREAM_NAME_EXIST => return None,
                Code::JETSTREAM_NOT_ENABLED | Code::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Self::NoJetStream,
                Code::CLUSTER_NOT_AVAILABLE => Self::NoStreamLeader,
                _ => Self::Refused(error.to_string()),
            },
            // A server that announces JetStream has it, but not at the moment.
            CreateStreamErrorKind::JetStreamUnavailable if !has_jetstream => Self::NoJetStream,
            CreateStreamErrorKind::JetStreamUnavailable => Self::NoStreamLeader,
            CreateStreamErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Refused(error.to_string()),
        })
    }

    /// Classifies an error of a write.
    pub(super) fn from_update_error(error: &UpdateError) -> Self {
        match error.kind() {
            UpdateErrorKind::WrongLastRevision => Self::WriteConflict,
            UpdateErrorKind::TimedOut => Self::TimedOut,
            _ => Self::from_client_error(error),
        }
    }

    /// Classifies an error of the client library. While no server leads the stream, a request has no
    /// responder.
    pub(super) fn from_client_error(error: &(dyn Error + 'static)) -> Self {
        let is_leaderless = |cause: &(dyn Error + 'static)| {
            let request = cause.downcast_ref::<RequestError>();
            let publish = cause.downcast_ref::<PublishError>();
            request.is_some_and(|error| error.kind() == RequestErrorKind::NoResponders)
                || publish.is_some_and(|error| error.kind() == PublishErrorKind::StreamNotFound)
        };
        let mut cause = Some(error);
        while let Some(error) = cause {
            if is_leaderless(error) {
                return Self::NoStreamLeader;
            }
            cause = error.source();
        }
        Self::Refused(error.to_string())
    }
}

/// The server's reply, if it arrives within [`LEASE_CALL_TIMEOUT`].
pub(super) async fn with_timeout<T>(call: impl Future<Output = T>) -> Result<T, LeaseError> {
    time::timeout(LEASE_CALL_TIMEOUT, call).await.map_err(|_| LeaseError::TimedOut)
}
