//! `GET /about` (ADR-110): the configuration and the health of the realm.
//!
//! The response is built from the last reports, without a request to another service. Comms are healthy while
//! a director publishes its status, because it can assign the p2p mesh even if all other transports are down.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use protocol::{ConnectionString, subject::SubjectScheme};
use serde::Serialize;

use crate::{realm_services::RealmService, shared::Shared};

/// The version of the BFF that deployed clients expect.
const BFF_PROTOCOL_VERSION: &str = "1.0_0";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    healthy: bool,
    accepting_users: bool,
    configurations: Configurations,
    content: ServiceStatus<'a>,
    lambdas: ServiceStatus<'a>,
    comms: Comms,
    bff: Bff,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configurations {
    network_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    realm_name: Option<String>,
    global_scenes_urn: Vec<String>,
    scenes_urn: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus<'a> {
    healthy: bool,
    public_url: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Comms {
    healthy: bool,
    protocol: &'static str,
    adapter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed_adapter: Option<String>,
    users_count: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bff {
    healthy: bool,
    user_count: usize,
    protocol_version: &'static str,
    public_url: String,
}

impl<'a> From<&'a RealmService> for ServiceStatus<'a> {
    fn from(service: &'a RealmService) -> Self {
        Self { healthy: service.is_healthy(), public_url: service.url() }
    }
}

/// Handles `GET /about`: 200 if the realm is healthy, otherwise 503 with the same body.
pub(crate) async fn handle_about(State(shared): State<Arc<Shared>>) -> Response {
    let director = *shared.director_status.lock();
    let (comms_healthy, reported_users) = (director.is_healthy(), director.user_count());
    let users_count = match shared.bus.subject_scheme() {
        SubjectScheme::CommsV3 => shared.sessions.users_count(),
        // Gateways do not announce sessions in this scheme: only the director's report counts all of them.
        SubjectScheme::ArchipelagoWorkers => shared.sessions.count().max(reported_users as usize),
    };
    let user_count = shared.sessions.count();
    let draining = shared.sessions.is_draining();
    let realm = &shared.settings.realm;
    let socket = format!("{}/archipelago/ws", shared.settings.public_url.trim_end_matches('/'));
    let fixed_adapter = realm.fixed_adapter.as_ref().map(ConnectionString::to_string);
    let archipelago = ConnectionString::Archipelago { url: socket };
    let (content, lambdas) = (ServiceStatus::from(&shared.content), ServiceStatus::from(&shared.lambdas));
    let healthy = comms_healthy && !draining && content.healthy && lambdas.healthy;
    let about = About {
        healthy,
        accepting_users: healthy && shared.rejection_reason().is_none() && !shared.login.is_closed(),
        configurations: Configurations {
            network_id: realm.network_id,
            realm_name: realm.names.name.clone(),
            global_scenes_urn: realm.global_scenes.clone(),
            scenes_urn: realm.scenes.clone(),
        },
        content,
        lambdas,
        comms: Comms {
            healthy: comms_healthy,
            protocol: "v3",
            // Clients that read only this field remove the first segment.
            adapter: fixed_adapter
                .as_ref()
                .map_or_else(|| archipelago.to_string(), |fixed| format!("fixed-adapter:{fixed}")),
            fixed_adapter,
            users_count,
        },
        bff: Bff {
            healthy: !draining,
            user_count,
            protocol_version: BFF_PROTOCOL_VERSION,
            public_url: format!("{}/bff", shared.settings.path()),
        },
    };
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(about)).into_response()
}
