//! The operators' HTTP endpoints: a listener on the loopback, separate from the public one.
//!
//! Every local process may query it, and no request changes anything. Browsers can reach a loopback
//! address, too. So a request that another web site caused is refused, judged by its `Origin`, and so
//! is one with a `Host` that is not a loopback address, so that no site can pass itself off as this one
//! (DNS rebinding).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use archipelago::{explain::Question, rules::Rules};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use director::AdminHandle;
use protocol::Position;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Mutex};

use crate::rules::file::MAX_FILE_BYTES;

/// Binds the listener. An address outside the loopback is an error.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    ensure!(address.ip().is_loopback(), "{address} is not a loopback address");
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (server.admin) for operators"))
}

/// The endpoints: `/explain`, `/assignments` and `/rules/diff`.
pub(crate) fn router(director: AdminHandle) -> Router {
    Router::new()
        .route("/explain", get(explain))
        .route("/assignments", get(assignments))
        .route("/rules/diff", post(diff))
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES))
        .layer(middleware::from_fn(reject_foreign_requests))
        .with_state(AdminState { director, diff: Arc::default() })
}

/// The director's handle, shared by all requests.
#[derive(Clone)]
struct AdminState {
    director: AdminHandle,
    /// At most one diff runs at a time: each takes twice the engine's memory in addition.
    diff: Arc<Mutex<()>>,
}

/// The header in which a browser states how a request relates to the site that made it (Fetch
/// Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Middleware: refuses a request that a web site made a browser send. A browser may omit `Origin`, for
/// an image or a link; `Sec-Fetch-Site` then identifies the request.
async fn reject_foreign_requests(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let site = request.headers().get(SEC_FETCH_SITE);
    // `none`: the user typed the address.
    let is_foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    if request.headers().contains_key(header::ORIGIN) || is_foreign {
        (StatusCode::FORBIDDEN, "this socket does not serve web sites").into_response()
    } else if name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this socket serves this machine only").into_response()
    }
}

/// The query of `/explain`: exactly one of the subjects, and the format of the response.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExplainQuery {
    /// `x,z` in metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) island: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// Two addresses with a comma between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    pub(crate) json: bool,
}

impl ExplainQuery {
    fn parse(&self) -> Result<Question, String> {
        let address = |text: &str| text.trim().parse().map_err(|error| format!("{text}: {error}"));
        match self {
            Self { at: Some(at), island: None, peer: None, why: None, .. } => parse_position(at)
                .map(Question::At)
                .ok_or_else(|| format!("{at}: a position is x,z in metres")),
            Self { at: None, island: Some(island), peer: None, why: None, .. } => {
                island.parse().map(Question::Island).map_err(|error| format!("{island}: {error}"))
            }
            Self { at: None, island: None, peer: Some(peer), why: None, .. } => {
                address(peer).map(Question::Peer)
            }
            Self { at: None, island: None, peer: None, why: Some(pair), .. } => {
                let (one, other) = pair.split_once(',').ok_or("two addresses separated by a comma")?;
                Ok(Question::Pair(address(one)?, address(other)?))
            }
            _ => Err("give exactly one of at, island, peer and why".to_owned()),
        }
    }
}

fn parse_position(text: &str) -> Option<Position> {
    let (x, z) = text.split_once(',')?;
    let metres = |text: &str| text.trim().parse().ok().filter(|metres: &f32| metres.is_finite());
    Some(Position::new(metres(x)?, 0.0, metres(z)?))
}

async fn explain(
    State(AdminState { director, .. }): State<AdminState>,
    Query(query): Query<ExplainQuery>,
) -> Response {
    let question = match query.parse() {
        Ok(question) => question,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason).into_response(),
    };
    match director.explain(question).await {
        Ok(explanation) if query.json => Json(explanation).into_response(),
        Ok(explanation) => explanation.to_string().into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// The assignment of one peer, as far as the director knows: its own last publication, or the last
/// report of the peer's gateway.
#[derive(Debug, Serialize)]
struct Assignment {
    address: String,
    /// `None`: no message of the peer carried a session id.
    session: Option<String>,
    island: String,
    node: String,
}

impl From<director::Assignment> for Assignment {
    fn from(assignment: director::Assignment) -> Self {
        Self {
            address: assignment.peer.to_string(),
            session: assignment.session.map(|session| session.to_string()),
            island: assignment.island.to_string(),
            node: assignment.node.to_string(),
        }
    }
}

async fn assignments(State(AdminState { director, .. }): State<AdminState>) -> Response {
    match director.assignments().await {
        Ok(assignments) => {
            Json(assignments.into_iter().map(Assignment::from).collect::<Vec<_>>()).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// The query of `/rules/diff`: the format of the response.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DiffQuery {
    pub(crate) json: bool,
}

async fn diff(
    State(AdminState { director, diff }): State<AdminState>,
    Query(query): Query<DiffQuery>,
    text: String,
) -> Response {
    let rules = match Rules::parse(&text) {
        Ok(rules) => Arc::new(rules),
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    };
    let _one = diff.lock().await;
    match director.diff(rules).await {
        Ok(diff) if query.json => Json(diff).into_response(),
        Ok(diff) => diff.to_string().into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}
