//! The ICE servers of a connection string.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use thiserror::Error;
use webrtc::peer_connection::RTCIceServer;

/// STUN and TURN servers: the value of `ice` in `p2p:<island>?ice=<value>`, which is base64url without padding of a JSON
/// array of `RTCIceServer` dictionaries (W3C WebRTC, section 4.2.2). Other members of a dictionary are ignored.
#[derive(Clone, Default)]
pub struct IceServers(Vec<RTCIceServer>);

/// The error of parsing [`IceServers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IceServersError {
    /// The text is no base64url.
    #[error("the ICE servers are no base64url")]
    Encoding,
    /// The decoded text is no JSON array.
    #[error("the ICE servers are no JSON array")]
    Json,
    /// An element has no `urls`, a string or an array of strings.
    #[error("an ICE server has no URL")]
    Urls,
    /// More than 8 servers, or more than 8 URLs of one.
    #[error("more than 8 ICE servers, or more than 8 URLs of one")]
    TooMany,
}

/// Each server costs a request in every negotiation.
const MAX_SERVERS: usize = 8;

impl IceServers {
    pub(crate) fn to_configuration(&self) -> Vec<RTCIceServer> {
        self.0.clone()
    }
}

impl FromStr for IceServers {
    type Err = IceServersError;

    fn from_str(text: &str) -> Result<Self, IceServersError> {
        let json =
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| IceServersError::Encoding)?;
        let servers: Vec<Value> = serde_json::from_slice(&json).map_err(|_| IceServersError::Json)?;
        if servers.len() > MAX_SERVERS {
            return Err(IceServersError::TooMany);
        }
        servers.iter().map(server).collect::<Result<_, _>>().map(Self)
    }
}

fn server(server: &Value) -> Result<RTCIceServer, IceServersError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let urls = match &server["urls"] {
        Value::String(url) => vec![url.clone()],
        Value::Array(urls) => urls.iter().filter_map(text).collect(),
        _ => Vec::new(),
    };
    let member = |name: &str| text(&server[name]).unwrap_or_default();
    match urls.len() {
        0 => Err(IceServersError::Urls),
        1..=MAX_SERVERS => {
            Ok(RTCIceServer { urls, username: member("username"), credential: member("credential") })
        }
        _ => Err(IceServersError::TooMany),
    }
}

/// Without the credentials, which are secret.
impl fmt::Debug for IceServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|server| &server.urls)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<IceServers, IceServersError> {
        URL_SAFE_NO_PAD.encode(json).parse()
    }

    #[test]
    fn servers_parse_and_hide_their_credentials() {
        let json = r#"[{"urls":["stun:a"]},{"urls":"turn:b","username":"1:0x1","credential":"secret"}]"#;
        let servers = parse(json).unwrap();
        let [stun, turn] = &servers.0[..] else { panic!("{servers:?}") };
        assert_eq!((&*stun.urls[0], &*stun.username), ("stun:a", ""));
        assert_eq!((&*turn.urls[0], &*turn.username, &*turn.credential), ("turn:b", "1:0x1", "secret"));
        assert_eq!(format!("{servers:?}"), r#"[["stun:a"], ["turn:b"]]"#);
    }

    #[test]
    fn malformed_servers_are_rejected() {
        assert_eq!("*".parse::<IceServers>().unwrap_err(), IceServersError::Encoding);
        assert_eq!(parse("{}").unwrap_err(), IceServersError::Json);
        assert_eq!(parse(r#"[{"username":"a"}]"#).unwrap_err(), IceServersError::Urls);
        let many = [r#"{"urls":"stun:a"}"#; 9].join(",");
        assert_eq!(parse(&format!("[{many}]")).unwrap_err(), IceServersError::TooMany);
    }
}
