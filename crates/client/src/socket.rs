//! The archipelago socket, from the client's side.

use std::time::Duration;

use identity::Identity;
use protocol::v3::{
    ChallengeRequestMessage, ClientPacket, ServerPacket, SignedChallengeMessage, client_packet,
    server_packet::Message,
};
use tokio::time::timeout;

use crate::{Ended, connection::Connection};

/// Connects and signs in.
pub(crate) async fn sign_in(
    url: &str,
    identity: &Identity,
    transports: &[String],
    deadline: Duration,
) -> Result<Connection, Ended> {
    let mut connection = Connection::open(url, protocol::ARCHIPELAGO_SUBPROTOCOL, deadline).await?;
    let handshake = async {
        let address = identity.address().to_string();
        let request = ChallengeRequestMessage { address, transports: transports.to_vec() };
        connection.send(&packet(client_packet::Message::ChallengeRequest(request))).await?;
        let Some(Message::ChallengeResponse(challenge)) = connection.next::<ServerPacket>().await?.message
        else {
            return Err(Ended::Broken("no challenge from the gateway".to_owned()));
        };
        if !challenge.challenge_to_sign.starts_with("dcl-") {
            // Anything else could be a message to another service.
            return Err(Ended::Broken("the gateway wants something signed that is no challenge".to_owned()));
        }
        let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
        let signed = SignedChallengeMessage { auth_chain_json };
        connection.send(&packet(client_packet::Message::SignedChallenge(signed))).await?;
        match connection.next::<ServerPacket>().await?.message {
            Some(Message::Welcome(_)) => Ok(()),
            _ => Err(Ended::Broken("no welcome from the gateway".to_owned())),
        }
    };
    match timeout(deadline, handshake).await {
        Ok(Ok(())) => Ok(connection),
        Ok(Err(ended)) => Err(ended),
        Err(_) => Err(Ended::Broken("the gateway did not answer in time".to_owned())),
    }
}

pub(crate) fn packet(message: client_packet::Message) -> ClientPacket {
    ClientPacket { message: Some(message) }
}
