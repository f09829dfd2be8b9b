//! The endpoint `POST /signed-login`.

use std::sync::Arc;

use admission::{AcquireError, Network};
use axum::{
    Extension, Json,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use identity::SignedFetch;
use serde::Serialize;
use tokio::time::timeout;

use crate::{login::error::LoginError, metrics, shared::Shared};

/// Upper bound of the body, in bytes. All data of a login is in headers.
const MAX_BODY_BYTES: usize = 4 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoginResponse {
    fixed_adapter: String,
}

#[derive(Serialize)]
struct LoginErrorResponse {
    message: String,
}

/// Handles `POST /signed-login` within the handshake timeout, and counts the outcome: `granted`, `busy` for a
/// retryable error, or `denied` for any other error.
pub(crate) async fn handle_login(
    State(shared): State<Arc<Shared>>,
    Extension(network): Extension<Network>,
    request: Request,
) -> Response {
    let time_limit = shared.settings.handshake_timeout;
    let result = timeout(time_limit, log_in(&shared, network, request)).await;
    let result = result.unwrap_or_else(|_| {
        Err(LoginError::new(StatusCode::REQUEST_TIMEOUT, "the login took too long, come back later"))
    });
    let outcome = match &result {
        Ok(_) => "granted",
        Err(error) if error.is_retryable() => "busy",
        Err(_) => "denied",
    };
    metrics::logins(outcome).increment(1);
    let headers = [(header::CACHE_CONTROL, "no-store")];
    match result {
        Ok(fixed_adapter) => (headers, Json(LoginResponse { fixed_adapter })).into_response(),
        Err(error) => {
            let is_retryable = error.is_retryable();
            let LoginError { status, message } = error;
            let mut response = (status, headers, Json(LoginErrorResponse { message })).into_response();
            if is_retryable {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

/// Verifies a signed request and returns the connection string of the fixed room.
async fn log_in(shared: &Shared, network: Network, request: Request) -> Result<String, LoginError> {
    let login = &shared.login;
    let Some(room) = &login.room else {
        return Err(LoginError::new(StatusCode::NOT_FOUND, "this realm has no fixed room to log in to"));
    };
    let permit =
        shared.handshakes.acquire(network).map_err(|error| LoginError::retry_later(error.to_string()))?;
    if let Some(reason) = shared.rejection_reason() {
        return Err(LoginError::retry_later(reason));
    }
    let headers = tokio::select! {
        headers = read_headers(request) => headers?,
        () = permit.evicted() => return Err(LoginError::retry_later(AcquireError::AtCapacity.to_string())),
    };
    permit.set_waiting(false);
    let precheck = |fetch: &SignedFetch| login.precheck(fetch, network);
    let fetch =
        shared.verifier.verify_fetch("POST", login.signed_path.clone(), headers, network, precheck).await?;
    // The calls to contracts may have taken seconds, so the node is checked again. This check precedes the
    // replay cache: if it fails, the client can retry with the same signed request.
    let node_url = login.node_url()?;
    login.accept(&fetch)?;
    login.mint_connection(room, &node_url, fetch.verification.owner)
}

/// Reads the whole request and returns its headers. The body is discarded.
async fn read_headers(mut request: Request) -> Result<HeaderMap, LoginError> {
    let headers = std::mem::take(request.headers_mut());
    DefaultBodyLimit::max(MAX_BODY_BYTES).apply(&mut request);
    match Bytes::from_request(request, &()).await {
        Ok(_) => Ok(headers),
        Err(rejection) => {
            let status = rejection.status();
            let message = match status {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    format!("the body is too big: at most {MAX_BODY_BYTES} bytes are read")
                }
                _ => "the body could not be read".to_owned(),
            };
            Err(LoginError::new(status, message))
        }
    }
}
