//! The archipelago socket, from the client's side.

use identity::Identity;
use protocol::v3::{
    ChallengeRequestMessage, ClientPacket, Heartbeat, ServerPacket, SignedChallengeMessage, client_packet,
    server_packet::Message,
};

use crate::{
    Ended, Settings,
    connection::Connection,
    session::{News, check_challenge},
};

/// A session over the archipelago socket.
#[derive(Debug)]
pub(crate) struct Socket(Connection);

impl Socket {
    /// Connects and signs in.
    pub(crate) async fn sign_in(settings: &Settings, identity: &Identity) -> Result<Self, Ended> {
        let url = &settings.gateway.url;
        let mut connection =
            Connection::open(url, protocol::ARCHIPELAGO_SUBPROTOCOL, settings.opening()).await?;
        let (address, transports) = (identity.address().to_string(), settings.transports.clone());
        let request = ChallengeRequestMessage { address, transports };
        connection.send(&packet(client_packet::Message::ChallengeRequest(request))).await?;
        let Some(Message::ChallengeResponse(challenge)) = connection.next::<ServerPacket>().await?.message
        else {
            return Err(Ended::broken("no challenge from the gateway"));
        };
        check_challenge(&challenge.challenge_to_sign)?;
        let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
        let signed = SignedChallengeMessage { auth_chain_json };
        connection.send(&packet(client_packet::Message::SignedChallenge(signed))).await?;
        match connection.next::<ServerPacket>().await?.message {
            Some(Message::Welcome(_)) => Ok(Self(connection)),
            _ => Err(Ended::broken("no welcome from the gateway")),
        }
    }

    pub(crate) async fn heartbeat(&mut self, heartbeat: Heartbeat) -> Result<(), Ended> {
        self.0.send(&packet(client_packet::Message::Heartbeat(heartbeat))).await
    }

    /// What the gateway says next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<News, Ended> {
        loop {
            match self.0.next::<ServerPacket>().await?.message {
                Some(Message::IslandChanged(change)) => return Ok(News::IslandChanged(change)),
                Some(Message::JoinIsland(join)) => return Ok(News::Joined(join)),
                Some(Message::LeftIsland(left)) => return Ok(News::Left(left)),
                Some(Message::Kicked(_)) => return Ok(News::Kicked),
                // Packets of a handshake that is over, and packets from the future.
                _ => {}
            }
        }
    }

    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}

fn packet(message: client_packet::Message) -> ClientPacket {
    ClientPacket { message: Some(message) }
}
