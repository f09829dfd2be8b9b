//! Verifies the access tokens of participants.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use protocol::unix_ms;
use serde::Deserialize;

use super::keys::Keys;

/// Verifies tokens with which participants join rooms of a server: those of a [`Minter`](super::Minter), and
/// those with which the server replaces them while a participant is connected.
pub struct Verifier {
    api_key: String,
    key: DecodingKey,
    validation: Validation,
}

/// The room and the identity that a verified token admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The name of the room.
    pub room: String,
    /// The identity of the participant.
    pub identity: String,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Not a JWT of this server: malformed, another algorithm, another secret or API key, or claims missing.
    #[error("the access token is not one of this server")]
    Forged,
    /// It has expired, or is not valid yet.
    #[error("the access token is not valid at this time")]
    NotValidNow,
    /// It does not permit to join a room, or names no room or identity.
    #[error("the access token does not admit to a room")]
    AdmitsToNoRoom,
}

/// The tolerated difference of the clocks, as the server tolerates it.
const LEEWAY_S: f64 = 60.0;

#[derive(Deserialize)]
struct Claims {
    iss: String,
    exp: f64,
    nbf: Option<f64>,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    video: Grants,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Grants {
    room: String,
    room_join: bool,
}

impl Verifier {
    /// A verifier of the tokens of the server with these keys.
    pub fn new(keys: &Keys) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked below against the caller's clock.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let key = DecodingKey::from_secret(keys.api_secret.as_bytes());
        Self { api_key: keys.api_key.clone(), key, validation }
    }

    /// Verifies a token at `now`.
    ///
    /// # Errors
    ///
    /// The token admits to no room of this server now.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Admission, TokenRefusal> {
        let claims = decode::<Claims>(token, &self.key, &self.validation);
        let Claims { iss, exp, nbf, sub, video } = claims.map_err(|_| TokenRefusal::Forged)?.claims;
        if iss != self.api_key {
            return Err(TokenRefusal::Forged);
        }
        let now_s = Duration::from_millis(unix_ms(now)).as_secs_f64();
        if exp <= now_s - LEEWAY_S || nbf.is_some_and(|nbf| nbf > now_s + LEEWAY_S) {
            return Err(TokenRefusal::NotValidNow);
        }
        if !video.room_join || video.room.is_empty() || sub.is_empty() {
            return Err(TokenRefusal::AdmitsToNoRoom);
        }
        Ok(Admission { room: video.room, identity: sub })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is left out.
        f.debug_struct("Verifier").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use protocol::{Address, ConnectionString, MediaGrants};
    use serde_json::{Value, json};

    use super::*;
    use crate::livekit::Minter;

    const NOW_S: u64 = 1_767_225_600;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S)
    }

    fn verify(claims: &Value, algorithm: Algorithm, secret: &str) -> Result<Admission, TokenRefusal> {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = encode(&Header::new(algorithm), claims, &key).unwrap();
        Verifier::new(&Keys::new("key", "secret")).verify(&token, now())
    }

    fn claims() -> Value {
        let video = json!({"roomJoin": true, "room": "I1", "canPublishSources": ["microphone"]});
        json!({"iss": "key", "sub": "0xab", "nbf": NOW_S, "exp": NOW_S + 300, "video": video})
    }

    #[test]
    fn minted_token_is_verified() {
        let minter = Minter::new(Keys::new("key", "secret"), Duration::from_secs(300));
        let (room, address) = ("I1".parse().unwrap(), Address::new([0xab; 20]));
        let connection =
            minter.connection("wss://host", &room, address, MediaGrants::default(), None).unwrap();
        let ConnectionString::LiveKit { access_token, .. } = connection else { panic!("{connection}") };
        let verifier = Verifier::new(&Keys::new("key", "secret"));
        let admission = Admission { room: "I1".into(), identity: address.to_string() };
        assert_eq!(verifier.verify(&access_token, SystemTime::now()), Ok(admission));
    }

    #[test]
    fn each_refusal_is_named() {
        let with = |pointer: &str, value: Value| {
            let mut claims = claims();
            *claims.pointer_mut(pointer).unwrap() = value;
            verify(&claims, Algorithm::HS256, "secret")
        };
        let admission = Admission { room: "I1".into(), identity: "0xab".into() };
        assert_eq!(with("/exp", json!(NOW_S - 59)), Ok(admission.clone()));
        assert_eq!(with("/nbf", json!(NOW_S + 60)), Ok(admission));
        for (pointer, value, refusal) in [
            ("/iss", json!("other"), TokenRefusal::Forged),
            ("/exp", json!("soon"), TokenRefusal::Forged),
            ("/exp", json!(NOW_S - 60), TokenRefusal::NotValidNow),
            ("/nbf", json!(NOW_S + 61), TokenRefusal::NotValidNow),
            ("/sub", json!(""), TokenRefusal::AdmitsToNoRoom),
            ("/video", json!({}), TokenRefusal::AdmitsToNoRoom),
            ("/video/room", json!(""), TokenRefusal::AdmitsToNoRoom),
            ("/video/roomJoin", json!(false), TokenRefusal::AdmitsToNoRoom),
        ] {
            assert_eq!(with(pointer, value.clone()), Err(refusal), "{pointer} {value}");
        }
        assert_eq!(verify(&claims(), Algorithm::HS256, "another"), Err(TokenRefusal::Forged));
        assert_eq!(verify(&claims(), Algorithm::HS512, "secret"), Err(TokenRefusal::Forged));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let shown = format!("{:?}", Verifier::new(&Keys::new("key", "hush")));
        assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
    }
}
