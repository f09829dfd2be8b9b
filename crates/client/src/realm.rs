//! Discovery: finds the gateways of a realm from its `/about`.

use std::time::Duration;

use futures_util::future::join_all;
use protocol::ConnectionString;
use rand::seq::SliceRandom;
use reqwest::Url;
use serde::Deserialize;

/// The protocol between a client and its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// The archipelago socket: packets of `decentraland.kernel.comms.v3`.
    #[default]
    Archipelago,
    /// The BFF services over dcl-rpc. Only this protocol has topics.
    Rpc,
}

/// The address of a gateway, or of several gateways of one realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The protocol, the same for all URLs.
    pub dialect: Dialect,
    /// The URL of the WebSocket.
    pub url: String,
    /// The URLs of equivalent gateways of the same realm. When a connection fails or is lost, the client
    /// tries the next gateway, and after the last one the first.
    pub other_urls: Vec<String>,
}

/// The reason for which the gateway of a realm was not found.
#[derive(Debug, thiserror::Error)]
pub enum RealmError {
    /// The request to `/about` failed, or its response is not the expected JSON.
    #[error("{url}: {source}")]
    Unreachable {
        /// The URL of the request.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The realm has another adapter than an archipelago socket: it sends all clients to another server.
    #[error("the realm's adapter is {0:?}, which is no archipelago socket")]
    UnsupportedAdapter(String),
    /// The realm has no URL of a BFF, or a malformed one.
    #[error("the realm offers no BFF to call over RPC (bff.publicUrl is {0:?})")]
    NoBff(String),
    /// No realm was named.
    #[error("no realm was named")]
    NoRealm,
}

#[derive(Deserialize)]
struct About {
    #[serde(default)]
    comms: Comms,
    #[serde(default)]
    bff: Bff,
}

#[derive(Deserialize, Default)]
struct Comms {
    #[serde(default)]
    adapter: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Bff {
    #[serde(default)]
    public_url: String,
}

/// The timeout of a request to a realm.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP client for requests to a realm at `url`. For plain HTTP it loads no certificates, so that it also
/// works on a machine that has none.
pub fn http_client(url: &str) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder();
    let builder = if url.starts_with("http://") { builder.tls_certs_only([]) } else { builder };
    builder.build()
}

/// Requests the address of the gateway from a realm (`http://host:port`), as defined by ADR-110.
///
/// Without a dialect, the result is the archipelago socket if the realm has one, and the BFF if the realm has
/// no adapter at all.
///
/// # Errors
/// Among others [`RealmError::UnsupportedAdapter`], with the adapter, for a realm that sends all clients to
/// another server.
pub async fn discover(realm: &str, dialect: Option<Dialect>) -> Result<Gateway, RealmError> {
    crate::tls::install_default_provider();
    let url = format!("{}/about", realm.trim_end_matches('/'));
    let about: About = async {
        let client = http_client(&url)?;
        client.get(&url).timeout(REQUEST_TIMEOUT).send().await?.json().await
    }
    .await
    .map_err(|source| RealmError::Unreachable { url, source })?;
    about.gateway(realm, dialect)
}

/// Does the same for a realm with several gateways, each with an `/about`. The result is one [`Gateway`] with
/// the URLs of all of them in random order, so that clients spread over them.
///
/// A gateway that does not answer now, or that has another dialect than the others, is left out, which is
/// logged.
///
/// # Errors
/// The error of the first gateway if none is left.
pub async fn discover_all<R: AsRef<str>>(
    realms: &[R],
    dialect: Option<Dialect>,
) -> Result<Gateway, RealmError> {
    let results = join_all(realms.iter().map(|realm| discover(realm.as_ref(), dialect))).await;
    let (mut chosen, mut urls, mut first_error) = (dialect, Vec::new(), None);
    for (realm, answer) in realms.iter().zip(results) {
        let realm = realm.as_ref();
        match answer {
            Ok(Gateway { dialect, url, .. }) if *chosen.get_or_insert(dialect) == dialect => urls.push(url),
            Ok(Gateway { dialect, .. }) => {
                tracing::warn!(realm, ?dialect, "gateway left out: the other gateways have another dialect");
            }
            Err(error) => {
                tracing::warn!(realm, %error, "gateway left out");
                first_error.get_or_insert(error);
            }
        }
    }
    urls.shuffle(&mut rand::rng());
    match (chosen, urls.pop()) {
        (Some(dialect), Some(url)) => Ok(Gateway { dialect, url, other_urls: urls }),
        _ => Err(first_error.unwrap_or(RealmError::NoRealm)),
    }
}

impl Gateway {
    /// A gateway without alternatives.
    pub fn new(dialect: Dialect, url: impl Into<String>) -> Self {
        Self { dialect, url: url.into(), other_urls: Vec::new() }
    }
}

impl About {
    fn gateway(self, realm: &str, dialect: Option<Dialect>) -> Result<Gateway, RealmError> {
        let adapter = self.comms.adapter.strip_prefix("fixed-adapter:").unwrap_or(&self.comms.adapter);
        let socket = match adapter.parse() {
            Ok(ConnectionString::Archipelago { url }) => Some(url),
            _ => None,
        };
        let has_bff_alone = adapter.is_empty() && !self.bff.public_url.is_empty();
        let dialect = dialect.unwrap_or(match has_bff_alone {
            true => Dialect::Rpc,
            false => Dialect::Archipelago,
        });
        let url = match dialect {
            Dialect::Archipelago => {
                socket.ok_or_else(|| RealmError::UnsupportedAdapter(adapter.to_owned()))?
            }
            Dialect::Rpc => {
                rpc_url(realm, &self.bff.public_url).ok_or(RealmError::NoBff(self.bff.public_url))?
            }
        };
        Ok(Gateway::new(dialect, url))
    }
}

/// The WebSocket URL of the BFF. The realm may announce a URL that is relative to its own.
fn rpc_url(realm: &str, public_url: &str) -> Option<String> {
    if public_url.is_empty() {
        return None;
    }
    let mut url = Url::parse(realm).ok()?.join(public_url).ok()?;
    let scheme = match url.scheme() {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => return None,
    };
    url.set_scheme(scheme).ok()?;
    url.set_path(&format!("{}/rpc", url.path().trim_end_matches('/')));
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: &str = r#""comms": {"adapter": "archipelago:archipelago:ws://h/ws"}"#;
    const BFF: &str = r#""bff": {"publicUrl": "/bff"}"#;

    fn gateway(members: &[&str], dialect: Option<Dialect>) -> Result<Gateway, String> {
        let about: About = serde_json::from_str(&format!("{{{}}}", members.join(","))).unwrap();
        about.gateway("https://realm.example:8443", dialect).map_err(|error| error.to_string())
    }

    #[test]
    fn dialect_is_the_requested_one_or_what_the_realm_offers() {
        let socket = Ok(Gateway::new(Dialect::Archipelago, "ws://h/ws"));
        let bff = Ok(Gateway::new(Dialect::Rpc, "wss://realm.example:8443/bff/rpc"));
        assert_eq!(gateway(&[SOCKET, BFF], None), socket);
        assert_eq!(gateway(&[SOCKET], None), socket);
        assert_eq!(gateway(&[BFF], None), bff);
        assert_eq!(gateway(&[SOCKET, BFF], Some(Dialect::Rpc)), bff);
        assert!(gateway(&[], None).unwrap_err().contains("adapter is \"\""));
        assert!(gateway(&[SOCKET], Some(Dialect::Rpc)).unwrap_err().contains("no BFF"));
    }

    #[test]
    fn unsupported_adapter_is_named_in_the_error() {
        for adapter in ["ws-room:wss://h/rooms/1", "signed-login:https://h/login", "offline:offline"] {
            let fixed =
                format!(r#""comms": {{"adapter": "fixed-adapter:{adapter}", "fixedAdapter": "{adapter}"}}"#);
            let error = gateway(&[&fixed, BFF], None).unwrap_err();
            let expected = format!("the realm's adapter is {adapter:?}, which is no archipelago socket");
            assert_eq!(error, expected);
            // An explicit request for the BFF succeeds nevertheless.
            assert!(gateway(&[&fixed, BFF], Some(Dialect::Rpc)).is_ok());
        }
    }

    #[test]
    fn bff_url_may_be_relative_or_on_another_host() {
        let url = |public_url| rpc_url("http://h:1/realm", public_url);
        assert_eq!(url("https://bff.example/").as_deref(), Some("wss://bff.example/rpc"));
        assert_eq!(url("/bff/").as_deref(), Some("ws://h:1/bff/rpc"));
        assert_eq!(url("mailto:x"), None);
    }
}
