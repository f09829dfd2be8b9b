//! The endpoints of every process: `/status`, `/health`, `/metrics`.

use std::time::SystemTime;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use metrics_exporter_prometheus::PrometheusHandle;
use process_usage::Process;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::app::App;
use crate::{metrics, output, version::COMMIT_HASH};

#[derive(Clone)]
struct MetricsState {
    app: App,
    metrics: PrometheusHandle,
    process: metrics_process::Collector,
}

/// The endpoints of every listener.
pub(super) fn router(app: App) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(live)).routes(routes!(ready)).with_state(app)
}

/// The endpoint for metrics, which may have a listener of its own.
pub(super) fn metrics_router(app: App, metrics: PrometheusHandle) -> OpenApiRouter {
    let process = metrics_process::Collector::default();
    OpenApiRouter::new().routes(routes!(render)).with_state(MetricsState { app, metrics, process })
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Status {
    version: &'static str,
    /// Milliseconds since the Unix epoch.
    current_time: u64,
    commit_hash: &'static str,
}

/// Which build this is.
#[utoipa::path(get, path = "/status", tag = "process", responses((status = 200, body = Status)))]
async fn status() -> impl IntoResponse {
    let current_time = protocol::unix_ms(SystemTime::now());
    let commit_hash = COMMIT_HASH.unwrap_or_default();
    let status = Status { version: env!("CARGO_PKG_VERSION"), current_time, commit_hash };
    Json(status)
}

/// Whether the process runs.
#[utoipa::path(get, path = "/health/live", tag = "process", responses((status = 200, body = String)))]
async fn live() -> &'static str {
    "alive"
}

/// Whether the process is ready: for a gateway, whether a client that signs in now will be assigned an
/// island and a room.
#[utoipa::path(
    get, path = "/health/ready", tag = "process",
    responses((status = 200, body = String), (status = 503, body = String)),
)]
async fn ready(State(app): State<App>) -> impl IntoResponse {
    match app.not_ready_reason() {
        None => (StatusCode::OK, "ready".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}")),
    }
}

/// Metrics, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "process", responses((status = 200, body = String)))]
async fn render(State(shared): State<MetricsState>) -> impl IntoResponse {
    shared.app.update_gauges();
    shared.process.collect();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    metrics::tasks().set(tasks as f64);
    metrics::log_lines_dropped().absolute(output::dropped_lines());
    if let Some(seconds) = Process::Own.cpu_seconds() {
        metrics::cpu_seconds().set(seconds);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render())
}
