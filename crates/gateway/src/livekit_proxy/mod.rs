//! A proxy for the signalling of LiveKit servers, so that only members of an island enter its room.
//!
//! A LiveKit token admits until it expires, and the server replaces it while its participant is connected:
//! removing a participant does not keep its client out. Where clients know only the URL of the proxy, it asks
//! for each connection whether the participant is still a member. Media do not pass through it.
//!
//! Only `GET` of `/livekit/<node>/rtc`, `/rtc/v1` and the `/validate` below each is proxied, and only to the
//! configured URL of the node; redirects are not followed, and URLs of other servers are removed from the
//! messages of the server. The proxy reads room and identity from the verified
//! token, and sends that token in the `Authorization` header: the server then ignores one in the query, so that
//! both cannot use different ones. The query is not logged, because it may contain a token.

mod messages;
mod refusal;
mod relay;
mod server_urls;
mod upstream;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use admission::{ConnectionLimiter, Network};
use axum::{
    Extension, Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use protocol::NodeName;
use serde::Deserialize;
use tokio::time;
use transports::livekit::{Admission, Keys, Verifier};

use self::{refusal::Refusal, upstream::Upstream};
use crate::metrics;

/// The answer of a [`MembershipCheck`].
pub(crate) type MembershipAnswer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Asks whether a participant may be in a room now. It is asked before each request to the server. An answer
/// that takes more than 3 s counts as a failure.
pub(crate) type MembershipCheck = Arc<dyn Fn(Admission) -> MembershipAnswer + Send + Sync>;

const MEMBERSHIP_TIMEOUT: Duration = Duration::from_secs(3);

/// A LiveKit server behind the proxy.
#[derive(Debug, Clone)]
pub struct ProxiedServer {
    /// Its name in the path.
    pub node: NodeName,
    /// Its URL as seen from here: `ws://`, `wss://`, `http://` or `https://`, with or without a path.
    pub url: String,
    /// Its API key, with which the tokens of participants are signed.
    pub keys: Keys,
}

/// The proxy. Clones share all state and are cheap.
#[derive(Clone)]
pub(crate) struct SignallingProxy(Arc<Shared>);

struct Shared {
    servers: HashMap<NodeName, (Verifier, Upstream)>,
    is_member: MembershipCheck,
    /// Issues a permit for each request and connection in progress.
    limiter: ConnectionLimiter,
}

#[derive(Deserialize)]
struct TokenParameter {
    access_token: Option<String>,
}

impl SignallingProxy {
    /// A proxy for these servers. A request for which the limiter issues no permit is answered with 503.
    pub(crate) fn new(
        servers: &[ProxiedServer],
        is_member: MembershipCheck,
        limiter: ConnectionLimiter,
    ) -> Self {
        let servers = servers.iter().map(|ProxiedServer { node, url, keys }| {
            (node.clone(), (Verifier::new(keys), Upstream::new(url)))
        });
        Self(Arc::new(Shared { servers: servers.collect(), is_member, limiter }))
    }

    /// The endpoints. They may be nested below a path prefix.
    pub(crate) fn router(self) -> Router {
        let endpoint = |path: &'static str| {
            let handle = move |State(proxy): State<Self>,
                               Extension(network): Extension<Network>,
                               Path(node): Path<String>,
                               request: Request| async move {
                let response = proxy.handle(&node, path, network, request).await;
                response.unwrap_or_else(|refusal| {
                    metrics::livekit_proxy_refusals(refusal.reason()).increment(1);
                    refusal.into_response()
                })
            };
            get(handle)
        };
        Router::new()
            .route("/livekit/{node}/rtc", endpoint("/rtc"))
            .route("/livekit/{node}/rtc/validate", endpoint("/rtc/validate"))
            .route("/livekit/{node}/rtc/v1", endpoint("/rtc/v1"))
            .route("/livekit/{node}/rtc/v1/validate", endpoint("/rtc/v1/validate"))
            .with_state(self)
    }

    async fn handle(
        &self,
        node: &str,
        path: &str,
        network: Network,
        request: Request,
    ) -> Result<Response, Refusal> {
        // A route of axum for GET also accepts HEAD.
        if request.method() != Method::GET {
            return Err(Refusal::OtherMethod);
        }
        let node: NodeName = node.parse().map_err(|_| Refusal::UnknownNode)?;
        let (verifier, upstream) = self.0.servers.get(&node).ok_or(Refusal::UnknownNode)?;
        let permit = self.0.limiter.acquire(network).map_err(|_| Refusal::Full)?;
        // The limiter must not evict it in favour of another connection.
        permit.set_waiting(false);
        let token = access_token(request.headers(), request.uri()).ok_or(Refusal::InvalidToken)?;
        let admission = verifier.verify(&token, SystemTime::now()).map_err(|_| Refusal::InvalidToken)?;
        let answer = (self.0.is_member)(admission.clone());
        match time::timeout(MEMBERSHIP_TIMEOUT, answer).await {
            Ok(true) => {}
            Ok(false) => {
                let Admission { room, identity } = admission;
                tracing::debug!(%node, room, identity, "not a member: refused by the signalling proxy");
                return Err(Refusal::NoMember);
            }
            Err(_) => return Err(Refusal::MembershipUnknown),
        }
        if path.ends_with("/validate") {
            upstream.validate(path, &token, request).await
        } else {
            upstream.connect(path, &token, request, permit).await
        }
    }
}

/// The token in the header, or else in the query. With two of them in the query there is none.
fn access_token(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        return value.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned);
    }
    Query::<TokenParameter>::try_from_uri(uri).ok()?.0.access_token
}

impl fmt::Debug for SignallingProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&NodeName> = self.0.servers.keys().collect();
        f.debug_struct("SignallingProxy").field("nodes", &nodes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
