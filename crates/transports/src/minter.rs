//! Mints connection strings for a node of any kind.

use std::time::SystemTime;

use livekit_api::access_token::AccessTokenError;
use protocol::{Address, ConnectionString, IslandId, MediaGrants, Ulid};

use crate::{external, livekit, p2p, ws_room};

/// Mints connection strings to one node of any kind.
pub enum Minter {
    /// To rooms over WebSocket.
    WsRoom(ws_room::Minter),
    /// To rooms of a LiveKit server.
    LiveKit(livekit::Minter),
    /// To a peer-to-peer mesh.
    P2p(p2p::Minter),
    /// To a transport described by a template.
    External(external::Template),
}

/// Why no connection string was minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The token of a WebSocket room could not be signed.
    #[error("no token for a WebSocket room: {0}")]
    WsRoom(#[from] jsonwebtoken::errors::Error),
    /// The token of a LiveKit room could not be signed.
    #[error("no token for a LiveKit room: {0}")]
    LiveKit(#[from] AccessTokenError),
}

/// An assignment that needs a connection string. Transports leave out the parts that they cannot carry.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionRequest<'a> {
    /// The URL at which clients reach the node.
    pub node_url: &'a str,
    /// The island.
    pub island: &'a IslandId,
    /// The peer.
    pub address: Address,
    /// The token's id, which orders all tokens of the realm.
    pub minted: Ulid,
    /// The media that the peer may publish.
    pub media: MediaGrants,
    /// The options of a LiveKit room that the token may have to create.
    pub room: Option<&'a livekit::RoomOptions>,
}

impl Minter {
    /// The connection string for an assignment, minted at `now`.
    pub fn connection(
        &self,
        request: &ConnectionRequest<'_>,
        now: SystemTime,
    ) -> Result<ConnectionString, MintError> {
        let &ConnectionRequest { node_url, island, address, minted, media, room } = request;
        match self {
            Self::WsRoom(minter) => Ok(minter.connection(node_url, &island.into(), address, minted, now)?),
            Self::LiveKit(minter) => Ok(minter.connection(node_url, &island.into(), address, media, room)?),
            Self::P2p(minter) => Ok(minter.connection(island, address, now)),
            Self::External(template) => Ok(template.connection(island, address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_mints_its_own_protocol() {
        let ttl = Duration::from_secs(300);
        let minters = [
            ("ws-room", Minter::WsRoom(ws_room::Minter::new(b"secret", ttl))),
            ("livekit", Minter::LiveKit(livekit::Minter::new(livekit::Keys::new("key", "secret"), ttl))),
            ("p2p", Minter::P2p(p2p::Minter::default())),
            ("pulse", Minter::External("pulse:{island}".parse().unwrap())),
        ];
        let (island, now): (IslandId, _) = ("I1".parse().unwrap(), SystemTime::now());
        for (protocol, minter) in minters {
            let request = ConnectionRequest {
                node_url: "wss://host",
                island: &island,
                address: Address::new([1; 20]),
                minted: Ulid(7),
                media: MediaGrants::default(),
                room: None,
            };
            let connection = minter.connection(&request, now);
            let text = connection.unwrap().to_string();
            assert_eq!(text.split(':').next(), Some(protocol), "{text}");
        }
    }
}
