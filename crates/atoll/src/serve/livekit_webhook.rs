//! The endpoint for the webhooks of LiveKit servers.

use axum::{
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use director::{LiveKitServers, WebhookRefusal};
use transports::livekit::webhook::{MAX_BODY_BYTES, WebhookError};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The endpoint, for a process with these servers.
pub(super) fn router(servers: LiveKitServers) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(webhook))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(servers)
}

/// Takes an event of a LiveKit server. The server signs it with its API key. A repeated event is ignored.
#[utoipa::path(
    post, path = "/livekit/webhook/{node}", tag = "process",
    params(("node" = String, Path, description = "The name of the node, as configured")),
    request_body(content = String, content_type = "application/webhook+json"),
    responses(
        (status = 200, description = "The event is accepted"),
        (status = 400, body = String, description = "The event is malformed"),
        (status = 401, body = String, description = "The signature is missing, wrong or too old"),
        (status = 404, body = String, description = "No such node is configured"),
        (status = 413, body = String, description = "The body is larger than 1 MiB"),
        (status = 503, body = String, description = "Too many events wait"),
    ),
)]
async fn webhook(
    State(servers): State<LiveKitServers>,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match servers.receive(&node, authorization, &body) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => {
            let status = match &refusal {
                WebhookRefusal::UnknownNode => StatusCode::NOT_FOUND,
                WebhookRefusal::Invalid(WebhookError::Unauthenticated(_)) => StatusCode::UNAUTHORIZED,
                WebhookRefusal::Invalid(WebhookError::Malformed(_)) => StatusCode::BAD_REQUEST,
                WebhookRefusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, refusal.to_string()).into_response()
        }
    }
}
