//! WebSocket rooms (RFC-5).

use std::{pin::pin, task::Context};

use bytes::Bytes;
use protocol::{
    Message as _,
    rfc5::{WsIdentification, WsPacket, WsPeerUpdate, WsSignedChallenge, WsWelcome, ws_packet::Message},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    destination::{Destination, OutgoingMessage},
    membership::{Ended, Membership, Welcome},
};
use crate::{Disconnect, connection::Connection, sign_in::check_challenge};

/// Enters the room and runs the connection to its end.
pub(super) async fn run(
    destination: &Destination,
    membership: &mut Membership,
    queued: mpsc::Receiver<OutgoingMessage>,
    (url, url_with_token): (&str, &str),
) -> Ended {
    match enter(url_with_token, destination).await {
        Ok((mut connection, welcome)) => {
            let welcome = self::welcome(destination, url, welcome);
            let reason = match membership.entered(welcome).await {
                Ok(()) => serve(&mut connection, membership, queued).await,
                Err(reason) => reason,
            };
            Ended { reason, close: Some(Box::pin(connection.close())) }
        }
        Err(reason) => Ended { reason, close: None },
    }
}

/// Runs the connection from the welcome to its end.
async fn serve(
    connection: &mut Connection,
    membership: &mut Membership,
    mut queued: mpsc::Receiver<OutgoingMessage>,
) -> Disconnect {
    let mut left = pin!(Membership::left_and_sent(membership.progress.clone()));
    loop {
        let outgoing = |cx: &mut Context<'_>| queued.poll_recv(cx).map(|next| Some(encode(next?)));
        let packet = tokio::select! {
            packet = connection.next_message(outgoing) => packet,
            () = &mut left => Err(Disconnect::Left),
        };
        let applied = match packet.and_then(|packet| WsPacket::decode(packet).map_err(Disconnect::broken)) {
            Ok(WsPacket { message: Some(message) }) => apply(membership, message).await,
            Ok(_) => Ok(()),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = applied {
            return reason;
        }
    }
}

fn welcome(destination: &Destination, url: &str, welcome: WsWelcome) -> Welcome {
    let identities = welcome.peer_identities.into_iter();
    let members = identities.filter_map(|(alias, address)| Some((alias, address.parse().ok()?))).collect();
    let (island, url) = (destination.island.clone(), url.to_owned());
    Welcome { island, url, transport: "ws-room", alias: welcome.alias, members }
}

async fn apply(membership: &mut Membership, message: Message) -> Result<(), Disconnect> {
    match message {
        Message::PeerUpdateMessage(WsPeerUpdate { from_alias, body, .. }) => {
            let sender = membership.members.get(&from_alias).copied();
            membership.message(from_alias, sender, body).await
        }
        Message::PeerJoinMessage(join) => match join.address.parse() {
            Ok(address) => membership.peer_joined(join.alias, address).await,
            Err(_) => Ok(()),
        },
        Message::PeerLeaveMessage(leave) => membership.peer_left(leave.alias).await,
        // A close frame with the reason follows a kick.
        _ => Ok(()),
    }
}

fn encode(OutgoingMessage { body, unreliable }: OutgoingMessage) -> Bytes {
    let update = WsPeerUpdate { from_alias: 0, body, unreliable };
    WsPacket { message: Some(Message::PeerUpdateMessage(update)) }.encode_to_vec().into()
}

async fn enter(url: &str, destination: &Destination) -> Result<(Connection, WsWelcome), Disconnect> {
    let Destination { identity, options, .. } = destination;
    let mut connection = Connection::open(url, "rfc5, rfc4", *options).await?;
    let handshake = async {
        let identification = WsIdentification { address: identity.address().to_string() };
        let mut request = Message::PeerIdentification(identification);
        loop {
            let mut answer: WsPacket = connection.request(&WsPacket { message: Some(request) }).await?;
            // The close frame that follows a kick has the reason.
            while let Some(Message::PeerKicked(_)) = answer.message {
                answer = connection.next().await?;
            }
            request = match answer.message {
                Some(Message::WelcomeMessage(welcome)) => return Ok(welcome),
                // A room requests a signature if the URL has no token.
                Some(Message::ChallengeMessage(challenge)) => {
                    check_challenge(&challenge.challenge_to_sign)?;
                    let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
                    Message::SignedChallengeForServer(WsSignedChallenge { auth_chain_json })
                }
                _ => return Err(Disconnect::broken("no welcome from the room")),
            }
        }
    };
    match timeout(options.timeout, handshake).await {
        Ok(Ok(welcome)) => Ok((connection, welcome)),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err(Disconnect::broken("the room did not answer in time")),
    }
}
