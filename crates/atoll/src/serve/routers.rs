//! The endpoints of a process, by listener.

use axum::{Router, http::StatusCode, routing::get};
use director::AdminHandle;
use gateway::Gateway;
use metrics_exporter_prometheus::PrometheusHandle;
use rooms::Rooms;
use stats::Stats;
use utoipa_axum::router::OpenApiRouter;

use super::{api, app::App, http, listeners::Routers, throttle::Throttle};
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
    let rooms = app.rooms.iter().map(Rooms::status_router).reduce(OpenApiRouter::merge);
    let rooms = rooms.unwrap_or_default();
    let sockets = app.gateway.iter().map(Gateway::router);
    let sockets = sockets.chain(app.rooms.iter().map(Rooms::router)).fold(Router::new(), Router::merge);
    let process = http::router(app.clone());
    let metrics = http::metrics_router(app.clone(), metrics);
    let (public, operator) = if has_metrics_listener {
        let operator = api::router(rooms, None, process.clone().merge(metrics), Router::new());
        // Without this route the path would match that of a room.
        let sockets = sockets.route("/rooms/status", get(StatusCode::NOT_FOUND));
        (api::router(presence, throttle, process, sockets), operator)
    } else {
        (api::router(presence.merge(rooms), throttle, process.merge(metrics), sockets), Router::new())
    };
    Routers {
        public: api::with_cors(public),
        metrics: operator,
        admin: director.map(admin::router).unwrap_or_default(),
    }
}
