//! All endpoints under one roof, and their description at `/openapi.json`.

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

use crate::serve::{Throttle, throttle};

/// For how long a browser may remember that a request is allowed; browsers cap it themselves.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Presence is found at the root and here.
const COMMS: &str = "/comms";

/// Puts the endpoints together: those of presence, which are also under `/comms` and may be behind a throttle,
/// those of the process, and the others, which are not described.
pub(crate) fn router(
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
    // It consists of texts and numbers alone, and so can be written.
    let api = Arc::new(Encoded::new(api.to_json().unwrap_or_default().into_bytes()));
    let description = async move |request: HeaderMap| api.respond(&request);
    let mut presence = presence.route("/openapi.json", get(description));
    if let Some(of_presence) = presence_throttle {
        presence = presence.layer(middleware::from_fn_with_state(of_presence, throttle));
    }
    Router::new().nest(COMMS, presence.clone()).merge(presence).merge(process).merge(others)
}

/// Lets pages of every origin read every endpoint, and send every header: a request carries its own proof
/// or token, never a cookie. For the public listener alone: a page must not read that of an operator.
pub(crate) fn with_cors(endpoints: Router) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(cors::Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        // `*` would not stand for `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([stats::AGE, header::ETAG, header::RETRY_AFTER])
        .max_age(PREFLIGHT_MAX_AGE)
        // No response but that to a preflight, which caches do not keep, depends on the request's headers.
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

/// The description of no endpoint.
fn base_description() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Atoll")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Who is where in this realm, who is together, and how the realm is."));
    OpenApiBuilder::new().info(info.build()).build()
}
