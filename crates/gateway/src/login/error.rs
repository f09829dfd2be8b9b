//! The error responses of signed logins.

use admission::{AuthError, RateLimited};
use axum::http::StatusCode;
use identity::FetchError;

use crate::login::replay_cache::ReplayError;

/// The response to a login that is denied.
#[derive(Debug)]
pub(crate) struct LoginError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl LoginError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Whether the client may retry: the cause is temporary, and not known to be in the request.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE)
    }

    /// A temporary error: a later attempt may succeed.
    pub(crate) fn retry_later(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl From<AuthError> for LoginError {
    fn from(error: AuthError) -> Self {
        let status = match &error {
            AuthError::Fetch(FetchError::SignedForScene) => StatusCode::FORBIDDEN,
            AuthError::Fetch(FetchError::Chain(_) | FetchError::FromFuture | FetchError::TooOld)
            | AuthError::Chain(_)
            | AuthError::InvalidContractSignature { .. } => StatusCode::UNAUTHORIZED,
            AuthError::Fetch(_) => StatusCode::BAD_REQUEST,
            AuthError::ContractUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<RateLimited> for LoginError {
    fn from(error: RateLimited) -> Self {
        Self::retry_later(error.to_string())
    }
}

impl From<ReplayError> for LoginError {
    fn from(error: ReplayError) -> Self {
        let unauthorized = |message: &str| Self::new(StatusCode::UNAUTHORIZED, message);
        match error {
            ReplayError::AlreadyUsed => unauthorized("the request has been used before: sign another"),
            ReplayError::Expired => unauthorized("the request has become too old: sign another"),
            // The request is valid, but may have been accepted before the restart; one that is signed now
            // passes.
            ReplayError::SignedBeforeStart => {
                Self::retry_later("the request was signed before the gateway started: sign another")
            }
            ReplayError::Full => Self::retry_later("too many logins at present, come back later"),
        }
    }
}
