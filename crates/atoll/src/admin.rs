//! The socket of operators: loopback, apart from the one that clients use.
//!
//! Whoever can open it may ask anything and change nothing. Browsers can, too: no request is answered
//! that a site had one make, as its `Origin` tells, nor one whose `Host` is not a loopback address, so
//! that no site can be made to look like this one.

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

use crate::rules::MAX_FILE_BYTES;

/// Opens the listener.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    ensure!(address.ip().is_loopback(), "{address} is not a loopback address");
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (server.admin) for operators"))
}

/// What is answered there.
pub(crate) fn router(console: AdminHandle) -> Router {
    Router::new()
        .route("/explain", get(explain))
        .route("/assignments", get(assignments))
        .route("/rules/diff", post(diff))
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES))
        .layer(middleware::from_fn(reject_foreign_requests))
        .with_state(AdminState { console, diff: Arc::default() })
}

/// Whom to ask.
#[derive(Clone)]
struct AdminState {
    console: AdminHandle,
    /// One at a time: each takes two more times the memory of the engine.
    diff: Arc<Mutex<()>>,
}

/// The header in which a browser states how a request relates to the site that made it (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses what a site made a browser ask. A browser may leave `Origin` out, as for an image or a link;
/// then `Sec-Fetch-Site` tells.
async fn reject_foreign_requests(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let site = request.headers().get(SEC_FETCH_SITE);
    // `none`: a person typed the address.
    let is_foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    if request.headers().contains_key(header::ORIGIN) || is_foreign {
        (StatusCode::FORBIDDEN, "this socket is not for sites").into_response()
    } else if name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this socket is for this machine").into_response()
    }
}

/// One of these, and how the answer is to be written.
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
            Self { at: Some(at), island: None, peer: None, why: None, .. } => {
                parse_position(at).map(Question::At).ok_or_else(|| format!("{at}: a place is x,z in metres"))
            }
            Self { at: None, island: Some(island), peer: None, why: None, .. } => {
                island.parse().map(Question::Island).map_err(|error| format!("{island}: {error}"))
            }
            Self { at: None, island: None, peer: Some(peer), why: None, .. } => {
                address(peer).map(Question::Peer)
            }
            Self { at: None, island: None, peer: None, why: Some(pair), .. } => {
                let (one, other) = pair.split_once(',').ok_or("two addresses, with a comma between them")?;
                Ok(Question::Pair(address(one)?, address(other)?))
            }
            _ => Err("ask one of at, island, peer and why".to_owned()),
        }
    }
}

fn parse_position(text: &str) -> Option<Position> {
    let (x, z) = text.split_once(',')?;
    let metres = |text: &str| text.trim().parse().ok().filter(|metres: &f32| metres.is_finite());
    Some(Position::new(metres(x)?, 0.0, metres(z)?))
}

async fn explain(
    State(AdminState { console, .. }): State<AdminState>,
    Query(asked): Query<ExplainQuery>,
) -> Response {
    let question = match asked.parse() {
        Ok(question) => question,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason).into_response(),
    };
    match console.explain(question).await {
        Ok(answer) if asked.json => Json(answer).into_response(),
        Ok(answer) => answer.to_string().into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

/// What the client of one peer was last told, as far as the director knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) address: String,
    /// `None`: no message of it had one.
    pub(crate) session: Option<String>,
    pub(crate) island: String,
    pub(crate) node: String,
}

impl From<director::Assignment> for Assignment {
    fn from(told: director::Assignment) -> Self {
        Self {
            address: told.peer.to_string(),
            session: told.session.map(|session| session.to_string()),
            island: told.island.to_string(),
            node: told.node.to_string(),
        }
    }
}

async fn assignments(State(AdminState { console, .. }): State<AdminState>) -> Response {
    match console.assignments().await {
        Ok(told) => Json(told.into_iter().map(Assignment::from).collect::<Vec<_>>()).into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}

/// How a diff is to be written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DiffQuery {
    pub(crate) json: bool,
}

async fn diff(
    State(AdminState { console, diff }): State<AdminState>,
    Query(written): Query<DiffQuery>,
    text: String,
) -> Response {
    let rules = match Rules::parse(&text) {
        Ok(rules) => Arc::new(rules),
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    };
    let _one = diff.lock().await;
    match console.diff(rules).await {
        Ok(diff) if written.json => Json(diff).into_response(),
        Ok(diff) => diff.to_string().into_response(),
        Err(gone) => (StatusCode::SERVICE_UNAVAILABLE, gone.to_string()).into_response(),
    }
}
