//! A session over the archipelago socket.

use bytes::Bytes;
use identity::Identity;
use protocol::{
    Message as _,
    v3::{
        ChallengeRequestMessage, ClientPacket, Heartbeat, ServerPacket, SignedChallengeMessage,
        WelcomeMessage, client_packet, server_packet::Message,
    },
};

use crate::{
    Disconnect, Settings,
    connection::{Connection, available},
    link_event::IslandEvent,
    mesh_link::{MeshMessage, MeshOutput, MeshSendQueue},
    sign_in::{Welcome, check_challenge},
};

/// A session over the archipelago socket.
#[derive(Debug)]
pub(crate) struct ArchipelagoSession {
    connection: Connection,
    /// The heartbeat to send. A newer one replaces it.
    heartbeat: Option<Heartbeat>,
    mesh: MeshSendQueue,
    /// Whether a newer session of this wallet replaced this one.
    kicked: bool,
}

impl ArchipelagoSession {
    /// Connects and signs in.
    pub(crate) async fn sign_in(
        url: &str,
        settings: &Settings,
        identity: &Identity,
        resume_secret: Option<Bytes>,
    ) -> Result<(Self, Welcome), Disconnect> {
        let mut connection =
            Connection::open(url, protocol::ARCHIPELAGO_SUBPROTOCOL, settings.connect_options()).await?;
        let (address, transports) = (identity.address().to_string(), settings.transports.clone());
        let resume_secret = resume_secret.map(Vec::from);
        let request = ChallengeRequestMessage { address, transports, resume_secret };
        let request = packet(client_packet::Message::ChallengeRequest(request));
        let Some(Message::ChallengeResponse(challenge)) =
            connection.request::<ServerPacket>(&request).await?.message
        else {
            return Err(Disconnect::broken("no challenge from the gateway"));
        };
        check_challenge(&challenge.challenge_to_sign)?;
        let auth_chain_json = identity.sign_challenge(&challenge.challenge_to_sign);
        let signed = SignedChallengeMessage { auth_chain_json };
        let signed = packet(client_packet::Message::SignedChallenge(signed));
        match connection.request::<ServerPacket>(&signed).await?.message {
            Some(Message::Welcome(WelcomeMessage { resume_secret, resumed, .. })) => {
                let (heartbeat, mesh) = (None, MeshSendQueue::default());
                let socket = Self { connection, heartbeat, mesh, kicked: false };
                Ok((socket, Welcome { resume_secret: resume_secret.into(), resumed }))
            }
            _ => Err(Disconnect::broken("no welcome from the gateway")),
        }
    }

    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        self.heartbeat = Some(heartbeat);
    }

    /// Queues a message of a mesh.
    pub(crate) fn mesh(&mut self, output: MeshOutput) {
        self.mesh.push(output);
    }

    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked
    }

    /// The next message of the gateway about islands or for a mesh. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<IslandEvent, Disconnect> {
        let Self { connection, heartbeat, mesh, kicked } = self;
        loop {
            let mut encoded = || {
                let heartbeat = heartbeat.take().map(client_packet::Message::Heartbeat);
                Some(packet(heartbeat.or_else(|| mesh.pop())?).encode_to_vec())
            };
            let message = connection.next_message(|_| available(encoded().map(Bytes::from))).await?;
            match ServerPacket::decode(message).map_err(Disconnect::broken)?.message {
                Some(Message::IslandChanged(change)) => return Ok(IslandEvent::IslandChanged(change)),
                Some(Message::JoinIsland(join)) => return Ok(IslandEvent::Joined(join)),
                Some(Message::LeftIsland(left)) => return Ok(IslandEvent::Left(left)),
                Some(Message::MeshSignal(signal)) => {
                    return Ok(IslandEvent::Mesh(MeshMessage::Signal(signal)));
                }
                Some(Message::MeshPlan(plan)) => return Ok(IslandEvent::Mesh(MeshMessage::Plan(plan))),
                Some(Message::IceServers(servers)) => {
                    return Ok(IslandEvent::Mesh(MeshMessage::IceServers(servers)));
                }
                // The close frame that follows may have another reason.
                Some(Message::Kicked(_)) => *kicked = true,
                // Packets of the handshake, which has ended, and packets of newer protocol versions.
                _ => {}
            }
        }
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}

fn packet(message: client_packet::Message) -> ClientPacket {
    ClientPacket { message: Some(message) }
}
