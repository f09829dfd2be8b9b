//! The endpoints of a process, by listener.

use axum::{Router, http::StatusCode, routing::get};
use director::AdminHandle;
use gateway::Gateway;
use metrics_exporter_prometheus::PrometheusHandle;
use rooms::Rooms;
use stats::Stats;
use utoipa_axum::router::OpenApiRouter;

use super::{api, app::App, http, listeners::Routers, livekit_webhook, rooms_status, throttle::Throttle};
use crate::admin;

/// The endpoints of the roles that run, and those of every process. Those of the metrics listener are served
/// by no other listener, if there is one. The presence endpoints are rate-limited.
pub(super) fn routers(
    app: &App,
    director: Option<AdminHandle>,
    metrics: PrometheusHandle,
    has_metrics_listener: bool,
    throttle: Option<Throttle>,
) -> Routers {
    let presence = app.stats.iter().map(Stats::router).reduce(OpenApiRouter::merge).unwrap_or_default();
    let has_livekit = !app.livekit.is_empty();
    let rooms = if app.rooms.is_some() || has_livekit {
        let sources = rooms_status::Sources { rooms: app.rooms.clone(), livekit: app.livekit.clone() };
        rooms_status::router(sources)
    } else {
        OpenApiRouter::default()
    };
    let sockets = app.gateway.iter().map(Gateway::router);
    let sockets = sockets.chain(app.rooms.iter().map(Rooms::router)).fold(Router::new(), Router::merge);
    let process = http::router(app.clone());
    let public_process = match has_livekit {
        true => process.clone().merge(livekit_webhook::router(app.livekit.clone())),
        false => process.clone(),
    };
    let metrics = http::metrics_router(app.clone(), metrics);
    let (public, operator) = if has_metrics_listener {
        let operator = api::router(rooms, None, process.merge(metrics), Router::new());
        // Without this route the path would match that of a room.
        let sockets = sockets.route("/rooms/status", get(StatusCode::NOT_FOUND));
        (api::router(presence, throttle, public_process, sockets), operator)
    } else {
        (api::router(presence.merge(rooms), throttle, public_process.merge(metrics), sockets), Router::new())
    };
    Routers {
        public: api::with_cors(public),
        metrics: operator,
        admin: director.map(admin::router).unwrap_or_default(),
    }
}
