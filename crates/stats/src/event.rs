//! The events of the live feed, as they are encoded for its readers.

use protocol::{Address, ConnectionString, IslandId, SessionId};
use reqwest::Url;
use serde::Serialize;
use utoipa::ToSchema;

use crate::peer::Peer;

/// An event of the live feed. Each variant has the name of its event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Join(PeerEvent),
    Leave(PeerEvent),
    PeerMovedIsland(PeerMovedIsland),
    IslandOpened(IslandOpened),
    IslandClosed(IslandClosed),
    IslandMoved(IslandMoved),
}

/// `join`, `leave`: a peer entered the world, or left it. A newer session of the same wallet causes a `leave`
/// of the older one and a `join`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct PeerEvent {
    /// Milliseconds since the Unix epoch.
    time: u64,
    address: String,
    /// The session, a ULID, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// The parcel in which the peer is, or was last.
    parcel: [i32; 2],
    /// Metres; y is up.
    position: [f32; 3],
}

/// `peer_moved_island`: a peer is in another island now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct PeerMovedIsland {
    /// Milliseconds since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) address: String,
    /// The session, a ULID, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// The previous island; null: none.
    pub(crate) from: Option<String>,
    /// The new island; null: none.
    pub(crate) to: Option<String>,
}

/// `island_opened`: an island was created.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct IslandOpened {
    /// Milliseconds since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) island: String,
    /// The transport and node of the island's room, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<Transport>,
}

/// `island_closed`: an island has no members any more.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct IslandClosed {
    /// Milliseconds since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) island: String,
}

/// `island_moved`: the room of an island is on another node from now on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct IslandMoved {
    /// Milliseconds since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) island: String,
    /// The previous transport and node; null: not known.
    pub(crate) from: Option<Transport>,
    pub(crate) to: Transport,
}

/// `ready`, `reset`: the current id of the feed. A `reset` means that this reader missed events; it must read
/// `/peers` and `/islands` again.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Mark {
    /// Milliseconds since the Unix epoch.
    pub(crate) time: u64,
    /// The id of the last event before this one.
    pub(crate) id: String,
    /// The reason of a `reset`. `too-old`: the events after the given id are no longer kept. `unknown-id`:
    /// the id is not one of this server process. `slow`: the reader fell behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

/// The transport and node of an island's room, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Transport {
    /// `ws-room`, `livekit`, `p2p`, or the name of an external one.
    protocol: String,
    /// The node, if there is one: scheme, host, port, and the path before `/rooms/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Event {
    /// The value of `event:`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Join(_) => "join",
            Self::Leave(_) => "leave",
            Self::PeerMovedIsland(_) => "peer_moved_island",
            Self::IslandOpened(_) => "island_opened",
            Self::IslandClosed(_) => "island_closed",
            Self::IslandMoved(_) => "island_moved",
        }
    }

    /// The value of `data:`.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        match self {
            Self::Join(event) | Self::Leave(event) => serde_json::to_string(event),
            Self::PeerMovedIsland(event) => serde_json::to_string(event),
            Self::IslandOpened(event) => serde_json::to_string(event),
            Self::IslandClosed(event) => serde_json::to_string(event),
            Self::IslandMoved(event) => serde_json::to_string(event),
        }
    }
}

impl PeerEvent {
    pub(crate) fn new(address: Address, peer: &Peer, time: u64) -> Self {
        let (parcel, position) = (peer.position.parcel(), peer.position);
        Self {
            time,
            address: address.to_string(),
            session: peer.session.as_ref().map(SessionId::to_string),
            parcel: [parcel.x, parcel.y],
            position: [position.x, position.y, position.z],
        }
    }
}

impl Transport {
    /// The node of an island from a connection string, without the parts that belong to one peer. `None` if
    /// the text is no connection string.
    pub(crate) fn from_connection_string(connection: &str, island: &IslandId) -> Option<Self> {
        let connection = connection.parse::<ConnectionString>().ok()?;
        let (protocol, url) = match &connection {
            ConnectionString::WsRoom { url, .. } => ("ws-room", node_url(url, &format!("/rooms/{island}"))),
            ConnectionString::LiveKit { url, .. } => ("livekit", node_url(url, "")),
            ConnectionString::P2p { .. } => ("p2p", None),
            ConnectionString::SignedLogin { url } => ("signed-login", node_url(url, "")),
            ConnectionString::Offline => ("offline", None),
            ConnectionString::Archipelago { url } => ("archipelago", node_url(url, "")),
            ConnectionString::External { protocol, parameters } => (&**protocol, node_url(parameters, "")),
        };
        Some(Self { protocol: protocol.to_owned(), url })
    }
}

/// Scheme, host and port, and the part of the path before `room` if the path ends with that. Every other part
/// may hold a secret.
fn node_url(url: &str, room: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path().strip_suffix(room).filter(|_| !room.is_empty()).unwrap_or_default();
    Some(format!("{}://{host}{port}{path}", url.scheme()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_reveals_only_the_node() {
        let island: IslandId = "I1".parse().unwrap();
        let published = |connection| {
            let transport = Transport::from_connection_string(connection, &island).unwrap();
            (transport.protocol, transport.url.unwrap_or_default())
        };
        let is = |protocol: &str, url: &str| (protocol.to_owned(), url.to_owned());
        let second = "ws-room:ws://h:5000/nodes/rooms-2/rooms/I1?access_token=secret&more=secret";
        assert_eq!(published(second), is("ws-room", "ws://h:5000/nodes/rooms-2"));
        assert_eq!(published("ws-room:h/rooms/I1?access_token=secret"), is("ws-room", "wss://h"));
        assert_eq!(published("ws-room:wss://h/secret/I2?access_token=secret"), is("ws-room", "wss://h"));
        let livekit = "livekit:wss://user:secret@h/secret?access_token=secret#secret";
        assert_eq!(published(livekit), is("livekit", "wss://h"));
        assert_eq!(published("p2p:I1?ice=secret"), is("p2p", ""));
        assert_eq!(published("pulse:wss://h:7/secret?as=secret"), is("pulse", "wss://h:7"));
        assert_eq!(published("pulse:secret"), is("pulse", ""));
        assert_eq!(Transport::from_connection_string("secret", &island), None);
    }
}
