//! Connection strings of a peer-to-peer mesh: the island, and the ICE servers by which peers reach each
//! other.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, Mac as _};
use protocol::{Address, ConnectionString, IslandId, unix_ms};
use serde::Serialize;
use sha1::Sha1;

/// Mints connection strings of a mesh. The default has no ICE servers: peers then connect only where their
/// networks allow it.
#[derive(Debug, Clone, Default)]
pub struct Minter {
    /// `stun:host[:port]`: servers from which a peer learns its public address.
    pub stun: Vec<String>,
    /// Relays for peers that cannot connect directly.
    pub turn: Option<TurnServers>,
    /// Whether peers may connect through the TURN servers only, so that they do not learn each other's addresses.
    pub relay_only: bool,
}

/// TURN servers with a shared secret, which accept the short-lived users that are derived from it.
#[derive(Clone)]
pub struct TurnServers {
    /// `turn:host[:port][?transport=udp|tcp]`, or `turns:`. At least one.
    pub urls: Vec<String>,
    /// The shared secret, as in the servers' configuration.
    pub secret: String,
    /// How long a user may start to use them.
    pub ttl: Duration,
}

/// An `RTCIceServer`, as in `RTCConfiguration`.
#[derive(Serialize)]
struct IceServer<'a> {
    urls: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

impl fmt::Debug for TurnServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is left out.
        f.debug_struct("TurnServers")
            .field("urls", &self.urls)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Minter {
    /// The connection string for `address` to the mesh of `island`.
    pub fn connection(&self, island: &IslandId, address: Address, now: SystemTime) -> ConnectionString {
        let ice = self.ice_servers(address, now);
        ConnectionString::P2p { island: island.to_string(), ice, relay_only: self.relay_only }
    }

    /// The ICE servers for `address`, base64url of a JSON array of `RTCIceServer`; `None` if there are none. The user
    /// of the TURN servers is new.
    pub fn ice_servers(&self, address: Address, now: SystemTime) -> Option<String> {
        let stun = (!self.stun.is_empty()).then_some(IceServer {
            urls: &self.stun,
            username: None,
            credential: None,
        });
        let turn = self.turn.as_ref().map(|turn| turn.ice_server(address, now));
        let servers: Vec<IceServer<'_>> = stun.into_iter().chain(turn).collect();
        // The servers are strings only, which always serialize to JSON.
        let json = serde_json::to_vec(&servers).unwrap_or_default();
        (!servers.is_empty()).then(|| URL_SAFE_NO_PAD.encode(json))
    }
}

impl TurnServers {
    /// A user name that contains its expiry, and the password that is derived from it with the secret.
    fn ice_server(&self, address: Address, now: SystemTime) -> IceServer<'_> {
        let expiry = (unix_ms(now) / 1_000).saturating_add(self.ttl.as_secs());
        let username = format!("{expiry}:{address}");
        let credential = turn_password(&self.secret, &username);
        IceServer { urls: &self.urls, username: Some(username), credential }
    }
}

fn turn_password(secret: &str, username: &str) -> Option<String> {
    // HMAC accepts keys of any length.
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(username.as_bytes());
    Some(STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }

    /// The ICE servers in the connection string, decoded as a client does.
    fn servers(minter: &Minter) -> Option<Value> {
        let text = minter.connection(&"I1".parse().unwrap(), Address::new([1; 20]), now()).to_string();
        let ConnectionString::P2p { island, ice, relay_only: false } = text.parse().unwrap() else {
            panic!("{text}")
        };
        assert_eq!(island, "I1");
        Some(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(ice?).unwrap()).unwrap())
    }

    fn turn() -> TurnServers {
        let urls = ["turn:turn.example:3478?transport=udp", "turns:turn.example"].map(str::to_owned);
        TurnServers { urls: urls.into(), secret: "north".to_owned(), ttl: Duration::from_secs(3_600) }
    }

    #[test]
    fn default_minter_names_no_ice_servers() {
        assert_eq!(servers(&Minter::default()), None);
    }

    #[test]
    fn ice_servers_match_rtc_configuration() {
        let stun = vec!["stun:a.example".to_owned(), "stun:b.example:3478".to_owned()];
        let username = "1767229200:0x0101010101010101010101010101010101010101";
        let turn_server = json!({
            "urls": ["turn:turn.example:3478?transport=udp", "turns:turn.example"],
            "username": username,
            "credential": turn_password("north", username),
        });
        let both = Minter { stun: stun.clone(), turn: Some(turn()), relay_only: false };
        let stun_server = json!({"urls": ["stun:a.example", "stun:b.example:3478"]});
        assert_eq!(servers(&both), Some(json!([stun_server, turn_server])));
        assert_eq!(servers(&Minter { stun, turn: None, relay_only: false }), Some(json!([stun_server])));
        assert_eq!(
            servers(&Minter { stun: vec![], turn: Some(turn()), relay_only: false }),
            Some(json!([turn_server]))
        );
    }

    #[test]
    fn turn_password_is_the_hmac_of_the_user() {
        // RFC 2202, test case 2.
        let expected = hex("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(turn_password("Jefe", "what do ya want for nothing?"), Some(STANDARD.encode(expected)));
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn debug_output_hides_the_turn_secret() {
        assert!(
            !format!("{:?}", Minter { stun: vec![], turn: Some(turn()), relay_only: false })
                .contains("north")
        );
    }
}
