//! All endpoints under one roof, and their description at `/openapi.json`.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, header},
    middleware,
    routing::get,
};
use stats::Encoded;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, Server};
use utoipa_axum::router::OpenApiRouter;

use crate::serve::{Throttle, throttle};

/// Presence is found at the root and here.
const COMMS: &str = "/comms";

/// Puts the endpoints together: those of presence, which are also under `/comms` and may be behind a throttle,
/// those of the process, and the others, which are not described.
pub(crate) fn router(
    presence: OpenApiRouter,
    of_presence: Option<Throttle>,
    process: OpenApiRouter,
    others: Router,
) -> Router {
    let (presence, mut presence_api) = presence.split_for_parts();
    for path in presence_api.paths.paths.values_mut() {
        path.servers = Some(vec![Server::new("/"), Server::new(COMMS)]);
    }
    let (process, mut api) = OpenApiRouter::with_openapi(head()).merge(process).split_for_parts();
    api.merge(presence_api);
    // It consists of texts and numbers alone, and so can be written.
    let api = Arc::new(Encoded::new(api.to_json().unwrap_or_default().into_bytes()));
    let description =
        async move |request: HeaderMap| ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], api.respond(&request));
    let mut presence = presence.route("/openapi.json", get(description));
    if let Some(of_presence) = of_presence {
        presence = presence.layer(middleware::from_fn_with_state(of_presence, throttle));
    }
    Router::new().nest(COMMS, presence.clone()).merge(presence).merge(process).merge(others)
}

/// The description of no endpoint.
fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Atoll")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Who is where in this realm, who is together, and how the realm is."));
    OpenApiBuilder::new().info(info.build()).build()
}
