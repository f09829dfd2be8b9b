//! Access to presence: for every client, for clients with a token, or for none.

use std::fmt;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::response::error_response;

/// Access to `/peers`, `/islands`, `/parcels` and `/events`.
#[derive(Clone, Default)]
pub enum Access {
    /// Every client.
    #[default]
    Public,
    /// A client that sends this token: as `Authorization: Bearer <token>`, or as the query parameter
    /// `access_token`, since the `EventSource` of a browser sends no header.
    Token(TokenDigest),
    /// No client.
    Off,
}

/// The SHA-256 digest of a token. It recognizes the token without storing it, and the time that a comparison
/// of digests takes reveals nothing about the token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token.
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "Public",
            Self::Token(_) => "Token",
            Self::Off => "Off",
        })
    }
}

/// Middleware: passes a request on if its client may read presence. Otherwise 401 or 403, with the reason.
pub(crate) async fn authorize(State(access): State<Access>, request: Request, next: Next) -> Response {
    let refusal = match &access {
        Access::Public => return next.run(request).await,
        Access::Token(expected) => match token(&request) {
            Some(token) if TokenDigest::new(&token) == *expected => return next.run(request).await,
            Some(_) => (StatusCode::UNAUTHORIZED, "the access token is not valid"),
            None => (StatusCode::UNAUTHORIZED, "presence needs an access token in this realm"),
        },
        Access::Off => (StatusCode::FORBIDDEN, "presence is not public in this realm"),
    };
    let (status, reason) = refusal;
    let challenge = (status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
    (challenge, error_response(status, reason.to_owned())).into_response()
}

/// The token that a request carries. The header has precedence.
fn token(request: &Request) -> Option<String> {
    let header = request.headers().get(header::AUTHORIZATION);
    if let Some(header) = header {
        let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri()).ok()?;
    query.0.into_iter().find_map(|(key, value)| (key == "access_token").then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_read_from_header_or_query() {
        let read = |uri: &str, authorization: Option<&str>| {
            let request = axum::http::Request::get(uri);
            let request = match authorization {
                Some(value) => request.header(header::AUTHORIZATION, value),
                None => request,
            };
            token(&request.body(axum::body::Body::empty()).unwrap())
        };
        assert_eq!(read("/peers", None), None);
        assert_eq!(read("/peers", Some("Bearer abc")).as_deref(), Some("abc"));
        assert_eq!(read("/peers?access_token=x", Some("bearer abc")).as_deref(), Some("abc"));
        assert_eq!(read("/peers?access_token=x", Some("Basic abc")), None);
        assert_eq!(read("/events?id=1&access_token=a%20b", None).as_deref(), Some("a b"));
    }

    #[test]
    fn debug_output_hides_the_token() {
        assert_eq!(format!("{:?}", Access::Token(TokenDigest::new("secret"))), "Token");
    }
}
