//! Requests to one LiveKit server.

use std::time::Duration;

use admission::{HttpClient, Permit};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use reqwest::{RequestBuilder, redirect::Policy};
use tokio::time;
use ws::Upgrade;

use super::{refusal::Refusal, relay::relay};

/// The deadline of a request to the server, until the head of its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body of a response that is relayed. A longer one is cut.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// A LiveKit server, and an HTTP client for it.
#[derive(Debug)]
pub(super) struct Upstream {
    /// The URL with `http` or `https`, without a slash at its end.
    base_url: String,
    client: HttpClient,
}

impl Upstream {
    /// The server at `url`, with `ws`, `wss`, `http` or `https`.
    pub(super) fn new(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let base_url = match url.split_once("://") {
            Some(("ws", rest)) => format!("http://{rest}"),
            Some(("wss", rest)) => format!("https://{rest}"),
            _ => url.to_owned(),
        };
        let client = HttpClient::new(&base_url, |builder| {
            builder.http1_only().redirect(Policy::none()).connect_timeout(RESPONSE_TIMEOUT)
        });
        Self { base_url, client }
    }

    /// Requests whether the server would accept the connection, and relays its answer.
    pub(super) async fn validate(
        &self,
        path: &str,
        token: &str,
        request: Request,
    ) -> Result<Response, Refusal> {
        let request = self.request(path, token, &request)?;
        relay_answer(send(request).await?).await
    }

    /// Opens a WebSocket at the server and relays it, or the answer with which the server refuses it. `permit`
    /// is held until the connection ends.
    pub(super) async fn connect(
        &self,
        path: &str,
        token: &str,
        mut request: Request,
        permit: Permit,
    ) -> Result<Response, Refusal> {
        let mut upstream = self
            .request(path, token, &request)?
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket");
        for name in HANDSHAKE_REQUEST {
            for value in request.headers().get_all(&name) {
                upstream = upstream.header(&name, value);
            }
        }
        let Upgrade { response, stream } = match ws::upgrade(&mut request, &[]) {
            Ok(upgrade) => upgrade,
            Err(rejection) => return Ok(rejection.into_response()),
        };
        let answer = send(upstream).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return relay_answer(answer).await;
        }
        let (mut head, ()) = response.into_parts();
        copy_headers(answer.headers(), &mut head.headers, &HANDSHAKE_RESPONSE);
        let server = time::timeout(RESPONSE_TIMEOUT, answer.upgrade()).await;
        let server = server.ok().and_then(Result::ok).ok_or(Refusal::Unreachable)?;
        tokio::spawn(async move {
            if let Some(client) = stream.stream().await {
                relay(client, server).await;
            }
            drop(permit);
        });
        Ok(Response::from_parts(head, Body::empty()))
    }

    /// The request to the server, with the client's query. The server reads the token in the header, and then
    /// ignores one in the query.
    fn request(&self, path: &str, token: &str, request: &Request) -> Result<RequestBuilder, Refusal> {
        let client = self.client.get().map_err(|error| {
            tracing::error!(%error, "no HTTP client for the LiveKit server");
            Refusal::Unreachable
        })?;
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let builder = client.get(format!("{}{path}{query}", self.base_url)).bearer_auth(token);
        Ok(match request.headers().get(header::USER_AGENT) {
            Some(agent) => builder.header(header::USER_AGENT, agent),
            None => builder,
        })
    }
}

/// Headers of the opening handshake that the server needs, besides `Connection` and `Upgrade`.
/// Extensions are not offered to it: with compression, its messages could not be read.
const HANDSHAKE_REQUEST: [header::HeaderName; 3] =
    [header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_PROTOCOL];
/// Headers of its response that the client needs, besides those that are the same for each server.
const HANDSHAKE_RESPONSE: [header::HeaderName; 1] = [header::SEC_WEBSOCKET_PROTOCOL];

async fn send(request: RequestBuilder) -> Result<reqwest::Response, Refusal> {
    let response = time::timeout(RESPONSE_TIMEOUT, request.send()).await;
    match response {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            // Without the URL, which contains the query.
            let error = error.without_url();
            tracing::debug!(%error, "the LiveKit server cannot be reached");
            Err(Refusal::Unreachable)
        }
        Err(_) => Err(Refusal::Unreachable),
    }
}

/// Relays the status, the content type and the body of a response.
async fn relay_answer(mut answer: reqwest::Response) -> Result<Response, Refusal> {
    let mut body = Vec::new();
    let read = async {
        while body.len() < MAX_BODY_BYTES
            && let Some(chunk) = answer.chunk().await?
        {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]);
        }
        Ok::<(), reqwest::Error>(())
    };
    let read = time::timeout(RESPONSE_TIMEOUT, read).await;
    read.ok().and_then(Result::ok).ok_or(Refusal::Unreachable)?;
    let mut response = (answer.status(), body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    let relayed = [header::CONTENT_TYPE, header::ACCESS_CONTROL_ALLOW_ORIGIN];
    copy_headers(answer.headers(), response.headers_mut(), &relayed);
    Ok(response)
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, names: &[header::HeaderName]) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}
