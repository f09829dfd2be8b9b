//! Connection strings: how an `island_changed` message gives clients the address of their room.

use std::{fmt, str::FromStr};

/// The protocols of connection strings that this project parses itself.
pub const KNOWN_PROTOCOLS: [&str; 6] =
    ["livekit", "ws-room", "p2p", "signed-login", "offline", "archipelago"];

const MAX_PROTOCOL_CHARS: usize = 32;

/// Whether a text can be the protocol of a connection string, and so the name of a transport that clients can
/// join: a letter, then up to 31 letters, digits and `-`, all in lower case.
pub fn is_protocol_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= MAX_PROTOCOL_CHARS
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(plain)
}

/// The text with which a client connects to the room of its island: `protocol ':' parameters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionString {
    /// `livekit:wss://host?access_token=<jwt>`
    LiveKit {
        /// The server, with its scheme.
        url: String,
        /// Admits one identity to one LiveKit room.
        access_token: String,
    },
    /// `ws-room:wss://host/rooms/<island>[?access_token=<jwt>]`
    WsRoom {
        /// The room, with its scheme and without the token.
        url: String,
        /// Admits one address to this room.
        access_token: Option<String>,
    },
    /// `p2p:<island>[?ice=<base64url JSON>]`
    P2p {
        /// The island. Its members form the mesh.
        island: String,
        /// ICE servers, base64url of JSON as in `RTCConfiguration`.
        ice: Option<String>,
        /// Whether only candidates of TURN servers may be used: `iceTransportPolicy=relay`, as in
        /// `RTCConfiguration`.
        relay_only: bool,
    },
    /// `signed-login:https://...`: the client requests a connection string from this URL with a signed fetch.
    SignedLogin {
        /// The URL of the POST request.
        url: String,
    },
    /// `offline:offline`: there is no communication in this place.
    Offline,
    /// `archipelago:archipelago:wss://host/archipelago/ws`: the client connects to this archipelago socket,
    /// which sends further connection strings.
    Archipelago {
        /// The socket, with its scheme.
        url: String,
    },
    /// `<protocol>:<parameters>` of any other protocol: forwarded unchanged to clients, which may implement
    /// it.
    External {
        /// The name: [`is_protocol_name`] holds, and it is none of [`KNOWN_PROTOCOLS`].
        protocol: String,
        /// The text after the colon.
        parameters: String,
    },
}

/// The error of parsing a [`ConnectionString`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// There is no `:`.
    #[error("a connection string is a protocol, a colon and parameters")]
    NoProtocol,
    /// The text before the `:` is no name of a protocol.
    #[error("{0:?} is no name of a protocol: a letter, then up to 31 letters, digits and '-', in lower case")]
    MalformedProtocol(String),
    /// A required part of the parameters is missing.
    #[error("{protocol}: {what} is missing")]
    Missing {
        /// The protocol.
        protocol: &'static str,
        /// The missing part.
        what: &'static str,
    },
}

impl ConnectionString {
    /// The URL to open for a WebSocket room, with its token; `None` for every other kind.
    pub fn room_url(&self) -> Option<String> {
        let Self::WsRoom { .. } = self else { return None };
        self.to_string().strip_prefix("ws-room:").map(str::to_owned)
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LiveKit { url, access_token } => {
                write!(f, "livekit:{url}{}access_token={access_token}", query_separator(url))
            }
            Self::WsRoom { url, access_token: Some(token) } => {
                write!(f, "ws-room:{url}{}access_token={token}", query_separator(url))
            }
            Self::WsRoom { url, access_token: None } => write!(f, "ws-room:{url}"),
            Self::P2p { island, ice, relay_only } => {
                let mut text = format!("p2p:{island}");
                if *relay_only {
                    text += &format!("{}{RELAY_ONLY}", query_separator(&text));
                }
                if let Some(ice) = ice {
                    text += &format!("{}ice={ice}", query_separator(&text));
                }
                f.write_str(&text)
            }
            Self::SignedLogin { url } => write!(f, "signed-login:{url}"),
            Self::Offline => f.write_str("offline:offline"),
            Self::Archipelago { url } => write!(f, "archipelago:archipelago:{url}"),
            Self::External { protocol, parameters } => write!(f, "{protocol}:{parameters}"),
        }
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, parameters) = text.split_once(':').ok_or(ConnectionStringError::NoProtocol)?;
        let missing = |protocol, what| ConnectionStringError::Missing { protocol, what };
        match protocol {
            "livekit" => {
                let (url, token) = split_parameter(parameters, "access_token");
                let access_token = token.ok_or(missing("livekit", "access_token"))?;
                if url.is_empty() {
                    return Err(missing("livekit", "URL"));
                }
                Ok(Self::LiveKit { url, access_token })
            }
            "ws-room" => {
                let (url, access_token) = split_parameter(parameters, "access_token");
                if url.is_empty() {
                    return Err(missing("ws-room", "URL"));
                }
                // A URL without a scheme means wss.
                let url = if url.contains("://") { url } else { format!("wss://{url}") };
                Ok(Self::WsRoom { url, access_token })
            }
            "p2p" => {
                let (parameters, ice) = split_parameter(parameters, "ice");
                let (island, policy) = split_parameter(&parameters, ICE_TRANSPORT_POLICY);
                if island.is_empty() {
                    return Err(missing("p2p", "island"));
                }
                Ok(Self::P2p { island, ice, relay_only: policy.as_deref() == Some("relay") })
            }
            "signed-login" if parameters.is_empty() => Err(missing("signed-login", "URL")),
            "signed-login" => Ok(Self::SignedLogin { url: parameters.to_owned() }),
            // No parameter is defined; clients write `offline:offline`.
            "offline" => Ok(Self::Offline),
            "archipelago" => {
                // `/about` names the protocol twice (`archipelago:archipelago:<url>`): the first is the kind of
                // adapter. Older realms name it once.
                let url = parameters.strip_prefix("archipelago:").unwrap_or(parameters);
                if url.is_empty() {
                    return Err(missing("archipelago", "URL"));
                }
                Ok(Self::Archipelago { url: url.to_owned() })
            }
            other if is_protocol_name(other) => {
                Ok(Self::External { protocol: other.to_owned(), parameters: parameters.to_owned() })
            }
            other => Err(ConnectionStringError::MalformedProtocol(other.to_owned())),
        }
    }
}

/// The parameter of p2p connection strings with the value of `iceTransportPolicy` in `RTCConfiguration`.
const ICE_TRANSPORT_POLICY: &str = "iceTransportPolicy";
const RELAY_ONLY: &str = "iceTransportPolicy=relay";

/// The character that precedes one more parameter of the query of a URL.
fn query_separator(url: &str) -> char {
    if url.contains('?') { '&' } else { '?' }
}

/// Removes the parameter `name` from the query. Returns the rest of the URL and the value, the first one if
/// there are several.
fn split_parameter(text: &str, name: &str) -> (String, Option<String>) {
    let Some((path, query)) = text.split_once('?') else {
        return (text.to_owned(), None);
    };
    let mut value = None;
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((key, found)) if key == name => value = value.or(Some(found.to_owned())),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    (url, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_connection_strings_parse() {
        let read = |text: &str| text.parse::<ConnectionString>().unwrap();
        assert_eq!(
            read("ws-room:host/rooms/I1?access_token=a.b.c"),
            ConnectionString::WsRoom {
                url: "wss://host/rooms/I1".into(),
                access_token: Some("a.b.c".into())
            }
        );
        assert_eq!(
            read("archipelago:archipelago:ws://h/archipelago/ws"),
            ConnectionString::Archipelago { url: "ws://h/archipelago/ws".into() }
        );
        assert_eq!(read("offline:offline"), ConnectionString::Offline);
        assert_eq!(
            read("pulse:wss://h/I1?as=0x1"),
            ConnectionString::External { protocol: "pulse".into(), parameters: "wss://h/I1?as=0x1".into() }
        );
    }

    #[test]
    fn known_protocol_is_never_external() {
        for known in KNOWN_PROTOCOLS {
            assert!(is_protocol_name(known), "{known}");
            let read = format!("{known}:").parse::<ConnectionString>();
            assert!(!matches!(read, Ok(ConnectionString::External { .. })), "{read:?}");
        }
    }

    #[test]
    fn incomplete_connection_string_is_rejected() {
        use ConnectionStringError::*;
        let error_of = |text: &str| text.parse::<ConnectionString>().unwrap_err();
        assert_eq!(error_of("nothing"), NoProtocol);
        for name in ["", "Pulse", "1st", "-x", "a_b", "a b", "é", &"x".repeat(33)] {
            assert_eq!(error_of(&format!("{name}:x")), MalformedProtocol(name.into()));
        }
        assert_eq!(error_of("livekit:wss://h"), Missing { protocol: "livekit", what: "access_token" });
        assert_eq!(error_of("p2p:?ice=x"), Missing { protocol: "p2p", what: "island" });
    }

    #[test]
    fn parsed_string_survives_printing() {
        for text in ["p2p:I1?relay=r&ice=x", "ws-room:wss://h/rooms/I1?access_token=a&access_token=b"] {
            let read: ConnectionString = text.parse().unwrap();
            assert_eq!(read.to_string().parse(), Ok(read), "{text}");
        }
    }

    fn connection() -> impl Strategy<Value = ConnectionString> {
        let url = "wss?://[a-z]{1,9}(:[0-9]{2,4})?(/[a-zA-Z0-9]{1,9}){0,3}(\\?[a-z]{1,4}=[a-z0-9]{1,4})?";
        let token = "[A-Za-z0-9_-]{1,20}";
        prop_oneof![
            (url, token).prop_map(|(url, access_token)| ConnectionString::WsRoom {
                url,
                access_token: Some(access_token)
            }),
            url.prop_map(|url| ConnectionString::WsRoom { url, access_token: None }),
            ("wss?://[a-z]{1,9}", token)
                .prop_map(|(url, access_token)| ConnectionString::LiveKit { url, access_token }),
            (token, proptest::option::of(token), any::<bool>())
                .prop_map(|(island, ice, relay_only)| ConnectionString::P2p { island, ice, relay_only }),
            url.prop_map(|url| ConnectionString::SignedLogin { url }),
            url.prop_map(|url| ConnectionString::Archipelago { url }),
            Just(ConnectionString::Offline),
            ("[a-z][a-z0-9-]{0,31}", "\\PC{0,40}")
                .prop_filter("known", |(protocol, _)| !KNOWN_PROTOCOLS.contains(&&**protocol))
                .prop_map(|(protocol, parameters)| ConnectionString::External { protocol, parameters }),
        ]
    }

    proptest! {
        #[test]
        fn printed_connection_string_round_trips(connection in connection()) {
            prop_assert_eq!(connection.to_string().parse::<ConnectionString>().unwrap(), connection);
        }
    }
}
