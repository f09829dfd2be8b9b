//! Connection strings and access tokens of WebSocket rooms.
//!
//! The token is a JWT (HS256), signed with a secret that director and room nodes share. It admits one address
//! to one room for a few minutes. Its expiry does not end a membership.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use protocol::{Address, ConnectionString, RoomName, Ulid, unix_ms};
use serde::{Deserialize, Serialize};

const AUDIENCE: &str = "ws-room";

/// The claims of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The address that is admitted.
    pub address: Address,
    /// The token's id: its place in the order of all tokens of the realm.
    pub minted: Ulid,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Not a JWT of this realm: malformed, another algorithm, another secret, or claims missing.
    #[error("the access token is not one of this realm")]
    Forged,
    /// It has expired.
    #[error("the access token has expired")]
    Expired,
    /// It is for another room.
    #[error("the access token is for another room")]
    OtherRoom,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    room: String,
    aud: String,
    iat: u64,
    exp: u64,
    jti: String,
}

/// Mints tokens and connection strings.
pub struct Minter {
    key: EncodingKey,
    ttl: Duration,
}

/// Verifies tokens.
pub struct Verifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
}

impl Minter {
    /// A minter of tokens that expire after `ttl`.
    pub fn new(secret: &[u8], ttl: Duration) -> Self {
        Self { key: EncodingKey::from_secret(secret), ttl }
    }

    /// The connection string for `address` to `room` on the node at `node_url` (`ws://host:port` or
    /// `wss://host`, with or without a path).
    pub fn connection(
        &self,
        node_url: &str,
        room: &RoomName,
        address: Address,
        minted: Ulid,
        now: SystemTime,
    ) -> Result<ConnectionString, jsonwebtoken::errors::Error> {
        let iat = unix_ms(now) / 1_000;
        let claims = Claims {
            sub: address.to_string(),
            room: room.to_string(),
            aud: AUDIENCE.to_owned(),
            iat,
            exp: iat + self.ttl.as_secs(),
            jti: minted.to_string(),
        };
        let access_token = encode(&Header::new(Algorithm::HS256), &claims, &self.key)?;
        let url = format!("{}/rooms/{room}", node_url.trim_end_matches('/'));
        Ok(ConnectionString::WsRoom { url, access_token: Some(access_token) })
    }
}

impl Verifier {
    /// Accepts tokens signed with any of the secrets: while a secret is being replaced, both are valid.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud", "exp", "sub"]);
        // Expiry is checked below against the caller's time.
        validation.validate_exp = false;
        Self { keys: secrets.into_iter().map(DecodingKey::from_secret).collect(), validation }
    }

    /// Verifies that `token` admits to `room` at `now`, and returns its claims.
    pub fn verify(&self, token: &str, room: &str, now: SystemTime) -> Result<Admission, TokenRefusal> {
        let (admission, expired) = self.verify_signature(token, room, now)?;
        if expired { Err(TokenRefusal::Expired) } else { Ok(admission) }
    }

    /// The address that `token` admits to `room`, and whether the token has expired by `now`. An expired
    /// token alone does not admit: the caller has to know that it admitted this address before.
    pub fn verify_signature(
        &self,
        token: &str,
        room: &str,
        now: SystemTime,
    ) -> Result<(Admission, bool), TokenRefusal> {
        let claims = self
            .keys
            .iter()
            .find_map(|key| decode::<Claims>(token, key, &self.validation).ok())
            .ok_or(TokenRefusal::Forged)?
            .claims;
        if claims.room != room {
            return Err(TokenRefusal::OtherRoom);
        }
        let admission = Admission {
            address: claims.sub.parse().map_err(|_| TokenRefusal::Forged)?,
            minted: claims.jti.parse().map_err(|_| TokenRefusal::Forged)?,
        };
        Ok((admission, claims.exp <= unix_ms(now) / 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    fn token(secret: &str) -> String {
        let minter = Minter::new(secret.as_bytes(), TTL);
        let island = "I1".parse().unwrap();
        let connection =
            minter.connection("ws://host:1/", &island, Address::new([1; 20]), Ulid(7), now()).unwrap();
        let ConnectionString::WsRoom { url, access_token } = connection else { panic!("a ws-room") };
        assert_eq!(url, "ws://host:1/rooms/I1");
        access_token.unwrap()
    }

    fn verify(token: &str, room: &str, now: SystemTime) -> Result<Admission, TokenRefusal> {
        Verifier::new([&b"new"[..], b"old"]).verify(token, room, now)
    }

    #[test]
    fn tokens_of_both_secrets_admit_until_they_expire() {
        let admission = Admission { address: Address::new([1; 20]), minted: Ulid(7) };
        for secret in ["new", "old"] {
            assert_eq!(verify(&token(secret), "I1", now()), Ok(admission.clone()));
        }
        let last = now() + TTL - Duration::from_secs(1);
        assert_eq!(verify(&token("new"), "I1", last), Ok(admission));
        let expired = token("new");
        assert_eq!(verify(&expired, "I1", now() + TTL), Err(TokenRefusal::Expired));
        let verifier = Verifier::new([&b"new"[..]]);
        let admission = Admission { address: Address::new([1; 20]), minted: Ulid(7) };
        assert_eq!(verifier.verify_signature(&expired, "I1", last), Ok((admission.clone(), false)));
        assert_eq!(verifier.verify_signature(&expired, "I1", now() + TTL), Ok((admission, true)));
        let other_room = verifier.verify_signature(&expired, "I2", now() + TTL);
        assert_eq!(other_room, Err(TokenRefusal::OtherRoom));
    }

    #[test]
    fn other_rooms_and_forgeries_are_refused() {
        assert_eq!(verify(&token("new"), "I2", now()), Err(TokenRefusal::OtherRoom));
        assert_eq!(verify(&token("stolen"), "I1", now()), Err(TokenRefusal::Forged));
        assert_eq!(verify("noise", "I1", now()), Err(TokenRefusal::Forged));
        let mut tampered = token("new");
        tampered.insert(tampered.find('.').unwrap() + 3, 'x');
        assert_eq!(verify(&tampered, "I1", now()), Err(TokenRefusal::Forged));
        // {"alg":"none","typ":"JWT"} with the same claims.
        let unsigned = token("new");
        let claims = unsigned.split('.').nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
        assert_eq!(verify(&unsigned, "I1", now()), Err(TokenRefusal::Forged));
    }
}
