//! The opening handshake (RFC 6455, 4.2) on an HTTP/1.1 request of hyper.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};

/// The byte stream of an upgraded connection.
pub type Stream = TokioIo<Upgraded>;

/// Returns the stream underneath an upgraded connection if it is a `T`, and the bytes that were read ahead.
///
/// # Errors
///
/// The connection as it was, if its stream is of another type.
pub fn downcast<T>(stream: Stream) -> Result<(T, Bytes), Stream>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let parts = stream.into_inner().downcast::<TokioIo<T>>().map_err(TokioIo::new)?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// An accepted handshake.
#[derive(Debug)]
pub struct Upgrade {
    /// The response to send.
    pub response: Response<()>,
    /// The connection; usable once the response has been sent.
    pub stream: PendingUpgrade,
}

/// A connection that is upgraded when its response has been sent.
#[derive(Debug)]
pub struct PendingUpgrade(OnUpgrade);

impl PendingUpgrade {
    /// Waits until the response has been sent; `None` if the connection ends before that.
    pub async fn stream(self) -> Option<Stream> {
        self.0.await.ok().map(TokioIo::new)
    }
}

/// Accepts an opening handshake (RFC 6455, 4.2). The response names the first of `subprotocols` that the
/// client also offers.
///
/// # Errors
///
/// The HTTP status and the text of the rejection: 426 if the request is no WebSocket handshake, 400 if the
/// version is not 13 or the key is missing.
pub fn upgrade<B>(
    request: &mut Request<B>,
    subprotocols: &[&'static str],
) -> Result<Upgrade, (StatusCode, &'static str)> {
    let headers = request.headers();
    if request.method() != Method::GET
        || !has_token(headers, header::CONNECTION, "upgrade")
        || !has_token(headers, header::UPGRADE, "websocket")
    {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::BAD_REQUEST, "the WebSocket version must be 13"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"));
    };
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept_key(key.as_bytes()));
    let offered = |protocol: &&&str| has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, protocol);
    if let Some(protocol) = subprotocols.iter().find(offered) {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let response = response
        .body(())
        .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the response could not be built"))?;
    Ok(Upgrade { response, stream: PendingUpgrade(hyper::upgrade::on(request)) })
}

/// The value of `Sec-WebSocket-Accept`, which proves that the server read the client's key (RFC 6455, 4.2.2).
fn accept_key(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example request of RFC 6455, 1.3, without the header `without`.
    fn request(without: &str) -> Request<()> {
        let headers = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, superchat"),
        ];
        let builder = headers.into_iter().filter(|(name, _)| *name != without);
        builder
            .fold(Request::builder(), |request, (name, value)| request.header(name, value))
            .body(())
            .unwrap()
    }

    #[test]
    fn handshake_of_the_rfc_is_accepted() {
        let Upgrade { response, .. } = upgrade(&mut request(""), &["superchat", "chat"]).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "superchat", "the server's first");
        let Upgrade { response, .. } = upgrade(&mut request(""), &["other"]).unwrap();
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn incomplete_handshakes_are_refused() {
        let refused = |without| upgrade(&mut request(without), &[]).unwrap_err().0;
        assert_eq!(refused("connection"), 426);
        assert_eq!(refused("upgrade"), 426);
        assert_eq!(refused("sec-websocket-version"), 400);
        assert_eq!(refused("sec-websocket-key"), 400);
        let mut head = request("");
        *head.method_mut() = Method::HEAD;
        assert_eq!(upgrade(&mut head, &[]).unwrap_err().0, 426);
    }
}
