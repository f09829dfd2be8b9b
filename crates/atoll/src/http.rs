//! What every process answers: `/status`, `/health`, `/metrics`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::serve::Realm;

#[derive(Clone)]
struct Shared {
    realm: Realm,
    metrics: PrometheusHandle,
    process: metrics_process::Collector,
}

pub(crate) fn router(realm: Realm, metrics: PrometheusHandle) -> OpenApiRouter {
    let process = metrics_process::Collector::default();
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(render))
        .with_state(Shared { realm, metrics, process })
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Status {
    version: &'static str,
    /// Milliseconds since the Unix epoch.
    #[schema(value_type = u64)]
    current_time: u128,
    commit_hash: &'static str,
}

/// Which build this is.
#[utoipa::path(get, path = "/status", tag = "process", responses((status = 200, body = Status)))]
async fn status() -> impl IntoResponse {
    let current_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let commit_hash = crate::COMMIT_HASH.unwrap_or_default();
    let status = Status { version: env!("CARGO_PKG_VERSION"), current_time, commit_hash };
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(status))
}

/// Whether the process runs.
#[utoipa::path(get, path = "/health/live", tag = "process", responses((status = 200, body = String)))]
async fn live() -> &'static str {
    "alive"
}

/// Whether who signs in now will get an island and a room.
#[utoipa::path(
    get, path = "/health/ready", tag = "process",
    responses((status = 200, body = String), (status = 503, body = String)),
)]
async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    if shared.realm.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: no director was heard of, or draining")
    }
}

/// Metrics, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "process", responses((status = 200, body = String)))]
async fn render(State(shared): State<Shared>) -> impl IntoResponse {
    shared.realm.observe();
    shared.process.collect();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    metrics::gauge!("atoll_process_tasks").set(tasks as f64);
    if let Some(seconds) = cpu_seconds() {
        metrics::gauge!("atoll_process_cpu_seconds").set(seconds);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render())
}

/// The CPU time of this process to 10 ms, where the system tells it (the collector of the standard
/// `process_cpu_seconds_total` rounds to seconds).
fn cpu_seconds() -> Option<f64> {
    /// What Linux shows to programs, whatever the kernel's own clock is.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything; user and system time are the
    // 14th and 15th field of the line.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}
