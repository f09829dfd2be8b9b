//! Combines the endpoints of all roles, and serves their description at `/openapi.json`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use stats::Encoded;
use tower_http::cors::{self, AllowHeaders, CorsLayer};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, Server};
use utoipa_axum::router::OpenApiRouter;

use super::throttle::{Throttle, throttle};

/// How long a browser may cache that a request is allowed; browsers have a lower cap of their own.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The prefix under which the presence endpoints are served, besides the root.
const COMMS: &str = "/comms";

/// Combines the endpoints: those of presence, which are also served under `/comms` and may have a rate
/// limit, those of the process, and the others, which are not in the description.
pub(super) fn router(
    presence: OpenApiRouter,
    presence_throttle: Option<Throttle>,
    process: OpenApiRouter,
    others: Router,
) -> Router {
    let (presence, mut presence_api) = presence.split_for_parts();
    for path in presence_api.paths.paths.values_mut() {
        path.servers = Some(vec![Server::new("/"), Server::new(COMMS)]);
    }
    let (process, mut api) = OpenApiRouter::with_openapi(base_description()).merge(process).split_for_parts();
    api.merge(presence_api);
    // Serialization cannot fail: the document has only strings, numbers, lists and maps.
    let api = Arc::new(Encoded::new(api.to_json().unwrap_or_default().into_bytes()));
    let description = async move |request: HeaderMap| api.respond(&request);
    let mut presence = presence.route("/openapi.json", get(description));
    if let Some(of_presence) = presence_throttle {
        presence = presence.layer(middleware::from_fn_with_state(of_presence, throttle));
    }
    Router::new().nest(COMMS, presence.clone()).merge(presence).merge(process).merge(others)
}

/// Allows pages of every origin to read every endpoint and to send every header: a request carries its
/// own proof or token, never a cookie. For the public listener only: a page must not read an operator's
/// listener.
pub(super) fn with_cors(endpoints: Router) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(cors::Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        // The wildcard `*` does not include `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([stats::AGE, header::ETAG, header::RETRY_AFTER])
        .max_age(PREFLIGHT_MAX_AGE)
        // Only the response to a preflight depends on the request's headers, and caches do not store
        // it.
        .vary(Vec::new());
    endpoints.layer(cors).layer(middleware::from_fn(preflight_status))
}

/// Middleware: answers a preflight with 204, since it has no body; the library answers 200.
async fn preflight_status(request: Request, next: Next) -> Response {
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    if is_preflight && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}

/// The description without any endpoint: title, version and summary.
fn base_description() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Atoll")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Presence, islands and health of this realm."));
    OpenApiBuilder::new().info(info.build()).build()
}
