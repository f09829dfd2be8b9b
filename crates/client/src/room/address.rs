//! Where a room is, and with which token the client enters it.

use protocol::ConnectionString;

/// A room that this client can enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoomAddress {
    /// A WebSocket room.
    WsRoom {
        /// The URL without the token.
        url: String,
        /// The URL with the token.
        url_with_token: String,
    },
    /// A LiveKit room.
    #[cfg(feature = "webrtc")]
    LiveKit {
        /// The URL of the server.
        url: String,
        /// The token, which also determines the room.
        token: String,
    },
    /// The peer-to-peer mesh of an island.
    #[cfg(feature = "webrtc")]
    Mesh {
        /// The island.
        island: String,
        /// ICE servers, as in the connection string.
        ice: Option<String>,
        /// Whether only candidates of TURN servers may be used.
        relay_only: bool,
    },
}

/// Whether this client can enter rooms with this kind of connection string: WebSocket rooms, and with the feature
/// `webrtc` LiveKit rooms and peer-to-peer meshes.
pub fn is_joinable(connection: &ConnectionString) -> bool {
    RoomAddress::of(connection).is_some()
}

impl RoomAddress {
    /// The room of a connection string; `None` if this client cannot enter it.
    pub(crate) fn of(connection: &ConnectionString) -> Option<Self> {
        match connection {
            ConnectionString::WsRoom { url, .. } => {
                Some(Self::WsRoom { url: url.clone(), url_with_token: connection.room_url()? })
            }
            #[cfg(feature = "webrtc")]
            ConnectionString::LiveKit { url, access_token } => {
                Some(Self::LiveKit { url: url.clone(), token: access_token.clone() })
            }
            #[cfg(feature = "webrtc")]
            ConnectionString::P2p { island, ice, relay_only } => {
                Some(Self::Mesh { island: island.clone(), ice: ice.clone(), relay_only: *relay_only })
            }
            _ => None,
        }
    }

    /// Whether it is a mesh: the gateway forwards its signals.
    pub(crate) fn is_mesh(&self) -> bool {
        match self {
            #[cfg(feature = "webrtc")]
            Self::Mesh { .. } => true,
            _ => false,
        }
    }

    /// The ICE servers of a mesh, as in the connection string.
    pub(crate) fn ice_servers(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "webrtc")]
            Self::Mesh { ice, .. } => ice.as_deref(),
            _ => None,
        }
    }

    /// Whether both are on the same node: for one island, the same room. Tokens are not compared.
    pub(crate) fn is_same_node(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::WsRoom { url, .. }, Self::WsRoom { url: other, .. }) => url == other,
            #[cfg(feature = "webrtc")]
            (Self::LiveKit { url, .. }, Self::LiveKit { url: other, .. }) => url == other,
            #[cfg(feature = "webrtc")]
            (Self::Mesh { island, .. }, Self::Mesh { island: other, .. }) => island == other,
            #[cfg(feature = "webrtc")]
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(connection: &str) -> Option<RoomAddress> {
        RoomAddress::of(&connection.parse().unwrap())
    }

    #[test]
    fn node_is_compared_without_the_token() {
        let room = address("ws-room:ws://host/rooms/I1?access_token=a").unwrap();
        let newer = address("ws-room:ws://host/rooms/I1?access_token=b").unwrap();
        assert!(room != newer && room.is_same_node(&newer));
        assert!(!room.is_same_node(&address("ws-room:ws://other/rooms/I1?access_token=a").unwrap()));
    }

    #[cfg(feature = "webrtc")]
    #[test]
    fn livekit_is_joinable_with_webrtc() {
        let room = address("livekit:wss://host?access_token=a").unwrap();
        assert!(room.is_same_node(&address("livekit:wss://host?access_token=b").unwrap()));
        assert!(!room.is_same_node(&address("ws-room:wss://host?access_token=a").unwrap()));
    }

    #[cfg(feature = "webrtc")]
    #[test]
    fn mesh_is_joinable_and_compared_without_ice_servers() {
        let mesh = address("p2p:I1?ice=a").unwrap();
        assert!(mesh.is_mesh() && mesh.is_same_node(&address("p2p:I1").unwrap()));
        assert!(!mesh.is_same_node(&address("p2p:I2?ice=a").unwrap()));
    }

    #[test]
    fn other_transports_are_not_joinable() {
        for connection in ["offline:offline", "signed-login:https://host", "x:y"] {
            assert!(!is_joinable(&connection.parse().unwrap()), "{connection}");
        }
    }
}
