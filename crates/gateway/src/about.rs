//! `GET /about` (ADR-110): what a realm is and whether it is well.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use protocol::{ConnectionString, v3::ServiceDiscoveryMessage};
use serde::Serialize;
use tokio::time::Instant;

use crate::gateway::Shared;

/// A director says that it is there every 10 s by default; three times unheard is too many.
const DIRECTOR_TIMEOUT: Duration = Duration::from_secs(30);
/// What clients of the field compare the BFF's version with.
const BFF_PROTOCOL_VERSION: &str = "1.0_0";

/// What has been heard of the director.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    last: Option<(Instant, u32)>,
}

impl Directory {
    pub(crate) fn heard(&mut self, discovery: &ServiceDiscoveryMessage) {
        let users = discovery.status.as_ref().map_or(0, |status| status.user_count);
        self.last = Some((Instant::now(), users));
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.last.is_some_and(|(at, _)| at.elapsed() < DIRECTOR_TIMEOUT)
    }

    fn users(&self) -> u32 {
        self.last.map_or(0, |(_, users)| users)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About {
    healthy: bool,
    accepting_users: bool,
    configurations: Configurations,
    content: Service,
    lambdas: Service,
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
struct Service {
    healthy: bool,
    public_url: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Comms {
    healthy: bool,
    protocol: &'static str,
    adapter: String,
    users_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bff {
    healthy: bool,
    user_count: usize,
    protocol_version: &'static str,
    public_url: &'static str,
}

pub(crate) async fn about(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let (comms_healthy, users_count) = {
        let directory = shared.directory();
        (directory.is_healthy(), directory.users())
    };
    let user_count = shared.sessions.count();
    let draining = shared.sessions.is_draining();
    let realm = &shared.settings.realm;
    let socket = format!("{}/archipelago/ws", shared.settings.public_url.trim_end_matches('/'));
    let healthy = comms_healthy && !draining;
    let about = About {
        healthy,
        accepting_users: healthy && user_count < shared.settings.max_sessions,
        configurations: Configurations {
            network_id: realm.network_id,
            realm_name: realm.name.clone(),
            global_scenes_urn: realm.global_scenes.clone(),
            scenes_urn: realm.scenes.clone(),
        },
        content: Service { healthy: true, public_url: realm.content_url.clone() },
        lambdas: Service { healthy: true, public_url: realm.lambdas_url.clone() },
        comms: Comms {
            healthy: comms_healthy,
            protocol: "v3",
            adapter: ConnectionString::Archipelago { url: socket }.to_string(),
            users_count,
        },
        bff: Bff {
            healthy: !draining,
            user_count,
            protocol_version: BFF_PROTOCOL_VERSION,
            public_url: "/bff",
        },
    };
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(about))
}
