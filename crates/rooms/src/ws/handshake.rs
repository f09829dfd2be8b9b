use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header},
};
use hyper::upgrade::OnUpgrade;
use tungstenite::handshake::derive_accept_key;

/// A request that becomes a WebSocket.
pub(crate) struct Upgrade {
    /// What to answer.
    pub(crate) response: Response<Body>,
    /// The raw stream, once the answer is out.
    pub(crate) stream: OnUpgrade,
}

/// Accepts an opening handshake (RFC 6455, 4.2), with the first of `subprotocols` that the client
/// offers too; or says what is missing.
pub(crate) fn upgrade<B>(
    request: &mut Request<B>,
    subprotocols: &[&'static str],
) -> Result<Upgrade, (StatusCode, &'static str)> {
    let headers = request.headers();
    if !(has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket"))
    {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::BAD_REQUEST, "the WebSocket version must be 13"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"));
    };
    let mut answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    let offered = |protocol: &&&str| has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, protocol);
    if let Some(protocol) = subprotocols.iter().find(offered) {
        answer = answer.header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let response = answer
        .body(Body::empty())
        .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be built"))?;
    Ok(Upgrade { response, stream: hyper::upgrade::on(request) })
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}
