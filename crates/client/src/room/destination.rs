//! The room to enter, and the messages to send in it.

use bytes::Bytes;
use identity::Identity;
use protocol::IslandId;

use super::address::RoomAddress;
use crate::connection::ConnectOptions;
#[cfg(feature = "webrtc")]
use crate::mesh_link::MeshOutput;

/// The room to enter, and the identity to enter it with.
pub(crate) struct Destination {
    pub(crate) address: RoomAddress,
    pub(crate) island: IslandId,
    /// The identity of the client, which signs a challenge if there is no token.
    pub(crate) identity: Identity,
    pub(crate) options: ConnectOptions,
    /// The local UDP addresses of WebRTC connections; empty: chosen by the connection.
    #[cfg(feature = "webrtc")]
    pub(crate) udp_addresses: Vec<std::net::SocketAddr>,
    /// The messages of a mesh to the gateway.
    #[cfg(feature = "webrtc")]
    pub(crate) to_gateway: tokio::sync::mpsc::Sender<MeshOutput>,
}

/// A message to send in a room.
#[derive(Debug, Clone)]
pub(crate) struct OutgoingMessage {
    pub(crate) body: Bytes,
    pub(crate) unreliable: bool,
}
