//! Verifies that a request comes from the server that has the API key.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use protocol::unix_ms;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::event::Event;
use crate::livekit::keys::Keys;

/// The largest body that is accepted, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A token that is older than this is refused, also if it expires later. The server drops events after 30 s.
pub const MAX_TOKEN_AGE: Duration = Duration::from_secs(5 * 60);

/// The difference of the clocks that is tolerated at the start and at the end of a token's validity.
const LEEWAY_S: f64 = 30.0;

/// Verifies and parses the requests of one server.
pub struct Receiver {
    api_key: String,
    key: DecodingKey,
    validation: Validation,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The request does not prove that it comes from the server (HTTP 401). Its body was not parsed.
    #[error("not authenticated: {0}")]
    Unauthenticated(#[from] AuthError),
    /// The request comes from the server and contains no event (HTTP 400). The text names the field and
    /// repeats no value.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Why a request does not prove that it comes from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The header is missing or contains no JWT with HS256 and the claims `iss`, `exp`, `sha256`, and `nbf` or
    /// `iat`.
    #[error("the Authorization header contains no token of a webhook")]
    NoToken,
    /// The token is signed with another secret.
    #[error("the signature does not match the API secret")]
    WrongSignature,
    /// The token names another API key.
    #[error("the token is of another API key")]
    WrongKey,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid yet: the clocks differ too much.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token is older than [`MAX_TOKEN_AGE`].
    #[error("the token is more than five minutes old")]
    TooOld,
    /// The body is larger than [`MAX_BODY_BYTES`]; its hash was not computed.
    #[error("the body is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// The body is not the one that was signed.
    #[error("the body differs from the signed one")]
    WrongBody,
}

/// Times in seconds since the Unix epoch, which may have a fraction.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    sha256: String,
}

impl Receiver {
    /// A receiver of the events of the server with these keys.
    pub fn new(keys: &Keys) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times and issuer are checked below: the times against the caller's clock.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let key = DecodingKey::from_secret(keys.api_secret.as_bytes());
        Self { api_key: keys.api_key.clone(), key, validation }
    }

    /// Verifies a request and returns its event. `authorization` is the header of that name: a JWT, with or
    /// without `Bearer` before it. `body` is the body as it was received. `now` is the time of the wall clock.
    ///
    /// # Errors
    ///
    /// The request is [unauthenticated](WebhookError::Unauthenticated) or
    /// [malformed](WebhookError::Malformed).
    pub fn receive(
        &self,
        authorization: Option<&str>,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Event, WebhookError> {
        self.authenticate(authorization.unwrap_or_default(), body, now)?;
        Event::parse(body).map_err(WebhookError::Malformed)
    }

    fn authenticate(&self, authorization: &str, body: &[u8], now: SystemTime) -> Result<(), AuthError> {
        let token = authorization.trim();
        let token = match token.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
            _ => token,
        };
        let claims = decode::<Claims>(token, &self.key, &self.validation).map_err(|error| {
            let wrong_signature = matches!(error.kind(), ErrorKind::InvalidSignature);
            if wrong_signature { AuthError::WrongSignature } else { AuthError::NoToken }
        })?;
        let Claims { iss, exp, nbf, iat, sha256 } = claims.claims;
        if iss != self.api_key {
            return Err(AuthError::WrongKey);
        }
        let valid_from = nbf.or(iat).ok_or(AuthError::NoToken)?;
        let now_s = Duration::from_millis(unix_ms(now)).as_secs_f64();
        if exp <= now_s - LEEWAY_S {
            return Err(AuthError::Expired);
        }
        if valid_from > now_s + LEEWAY_S {
            return Err(AuthError::NotYetValid);
        }
        if now_s - valid_from > MAX_TOKEN_AGE.as_secs_f64() {
            return Err(AuthError::TooOld);
        }
        if body.len() > MAX_BODY_BYTES {
            return Err(AuthError::TooLarge);
        }
        // The token is signed, so an attacker learns nothing from the time that the comparison takes.
        if STANDARD.encode(Sha256::digest(body)) != sha256 {
            return Err(AuthError::WrongBody);
        }
        Ok(())
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is left out.
        f.debug_struct("Receiver").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}
