//! Connection strings with tokens that a LiveKit server accepts.

use std::time::Duration;

use livekit_api::access_token::{AccessToken, AccessTokenError};
use protocol::{Address, ConnectionString, MediaGrants, RoomName};

use super::{keys::Keys, permissions::video_grants, room_options::RoomOptions};

/// Mints connection strings with tokens that admit one address to one room.
#[derive(Debug, Clone)]
pub struct Minter {
    keys: Keys,
    ttl: Duration,
}

impl Minter {
    /// A minter of tokens that expire `ttl` after they are minted.
    pub fn new(keys: Keys, ttl: Duration) -> Self {
        Self { keys, ttl }
    }

    /// The connection string for `address` to `room` on the server that clients reach at `url`
    /// (`ws://host:port` or `wss://host`). The token permits to publish data and the media in `media`. With
    /// `options`, the server creates the room with them if it does not exist, and is configured to create rooms.
    pub fn connection(
        &self,
        url: &str,
        room: &RoomName,
        address: Address,
        media: MediaGrants,
        options: Option<&RoomOptions>,
    ) -> Result<ConnectionString, AccessTokenError> {
        // The library reads the clock itself: the token is valid from now on (`nbf`). A token valid since the
        // Unix epoch would be confused by the server with a revoked one.
        let mut access_token = AccessToken::with_api_key(&self.keys.api_key, &self.keys.api_secret)
            .with_ttl(self.ttl)
            .with_identity(&address.to_string())
            .with_grants(video_grants(room, media));
        if let Some(options) = options {
            access_token = access_token.with_room_config(options.configuration());
        }
        let access_token = access_token.to_jwt()?;
        Ok(ConnectionString::LiveKit { url: url.trim_end_matches('/').to_owned(), access_token })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use livekit_api::access_token::TokenVerifier;
    use protocol::{Voice, unix_ms};
    use serde_json::{Value, json};

    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn token(media: MediaGrants) -> String {
        let minter = Minter::new(Keys::new("key", "secret"), TTL);
        let (island, address) = ("I1".parse().unwrap(), Address::new([0xab; 20]));
        let text = minter.connection("wss://host/", &island, address, media, None).unwrap().to_string();
        let ConnectionString::LiveKit { url, access_token } = text.parse().unwrap() else { panic!("{text}") };
        assert_eq!(url, "wss://host");
        access_token
    }

    #[test]
    fn server_accepts_the_token() {
        let media = MediaGrants { voice: Voice::None, video: true };
        let verify = |key: &str, secret: &str| TokenVerifier::with_api_key(key, secret).verify(&token(media));
        let claims = verify("key", "secret").unwrap();
        assert_eq!(claims.sub, Address::new([0xab; 20]).to_string());
        assert_eq!(claims.video, video_grants(&"I1".parse().unwrap(), media));
        assert!(verify("key", "another").is_err());
        assert!(verify("another", "secret").is_err());
    }

    #[test]
    fn token_has_exactly_the_expected_claims() {
        let before = unix_ms(SystemTime::now()) / 1_000;
        let token = token(MediaGrants::default());
        let after = unix_ms(SystemTime::now()) / 1_000;
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let mut claims: Value = serde_json::from_slice(&claims).unwrap();
        let mut time = |claim: &str| claims.as_object_mut().unwrap().remove(claim).unwrap().as_u64().unwrap();
        let (nbf, exp) = (time("nbf"), time("exp"));
        assert!((before..=after).contains(&nbf), "{before} {nbf} {after}");
        assert!((before..=after).contains(&(exp - TTL.as_secs())), "{before} {exp} {after}");
        let video = json!({
            "roomJoin": true,
            "room": "I1",
            "canPublish": true,
            "canSubscribe": true,
            "canPublishData": true,
            "canUpdateOwnMetadata": true,
            "canPublishSources": ["microphone"],
        });
        let sub = Address::new([0xab; 20]).to_string();
        assert_eq!(claims, json!({"iss": "key", "sub": sub, "video": video}));
    }

    #[test]
    fn minting_without_a_key_fails() {
        let minter = Minter::new(Keys::new("", ""), TTL);
        let (island, address) = ("I1".parse().unwrap(), Address::new([1; 20]));
        assert!(minter.connection("wss://host", &island, address, MediaGrants::default(), None).is_err());
    }

    #[test]
    fn debug_output_hides_the_api_secret() {
        let shown = format!("{:?}", Minter::new(Keys::new("key", "hush"), TTL));
        assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
    }
}
