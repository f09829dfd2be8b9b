//! The messages of a peer-to-peer mesh on their way between the gateway and the rooms.

use std::collections::VecDeque;

use protocol::{
    mesh::{LinkReport, Plan, Signal},
    v3::client_packet,
};
use tokio::sync::mpsc;

/// A message of the gateway to the members of a mesh.
#[derive(Debug, Clone)]
pub(crate) enum MeshMessage {
    /// Of another member of the island, which the gateway has authenticated.
    Signal(Signal),
    Plan(Plan),
    /// ICE servers with fresh credentials, as in the connection string.
    IceServers(String),
}

impl MeshMessage {
    /// The island that it is for; `None`: every one.
    pub(crate) fn island(&self) -> Option<&str> {
        match self {
            Self::Signal(signal) => Some(&signal.island_id),
            Self::Plan(plan) => Some(&plan.island_id),
            Self::IceServers(_) => None,
        }
    }
}

/// The newest plan and ICE servers, for a mesh that the client enters after they arrived: the gateway does not repeat
/// them.
#[derive(Debug, Default)]
pub(crate) struct NewestMesh {
    plan: Option<Plan>,
    ice_servers: Option<String>,
}

impl NewestMesh {
    pub(crate) fn keep(&mut self, message: &MeshMessage) {
        match message {
            MeshMessage::Signal(_) => {}
            MeshMessage::Plan(plan) => self.plan = Some(plan.clone()),
            MeshMessage::IceServers(servers) => self.ice_servers = Some(servers.clone()),
        }
    }

    /// The messages for a mesh of this island.
    pub(crate) fn messages(&self, island: &str) -> impl Iterator<Item = MeshMessage> {
        let servers = self.ice_servers.clone().map(MeshMessage::IceServers);
        let plan = self.plan.clone().filter(|plan| plan.island_id == island).map(MeshMessage::Plan);
        servers.into_iter().chain(plan)
    }
}

/// A message of a member of a mesh to the gateway.
#[derive(Debug, Clone)]
pub(crate) enum MeshOutput {
    Signal(Signal),
    Links(LinkReport),
}

/// The capacity of the queue of a room for messages of the gateway, and of the queue of all rooms to the gateway. When
/// one is full, the newest message is dropped: a lost signal costs an attempt to link.
pub(crate) const MESH_QUEUE: usize = 256;

impl From<MeshOutput> for client_packet::Message {
    fn from(output: MeshOutput) -> Self {
        match output {
            MeshOutput::Signal(signal) => Self::MeshSignal(signal),
            MeshOutput::Links(report) => Self::MeshLinks(report),
        }
    }
}

/// The messages of all rooms to the gateway.
#[derive(Debug)]
pub(crate) struct MeshOutputs(mpsc::Receiver<MeshOutput>);

impl MeshOutputs {
    pub(crate) fn channel() -> (mpsc::Sender<MeshOutput>, Self) {
        let (sender, receiver) = mpsc::channel(MESH_QUEUE);
        (sender, Self(receiver))
    }

    /// Discards everything that was queued before this session: negotiations do not outlive it.
    pub(crate) fn discard(&mut self) {
        while self.0.try_recv().is_ok() {}
    }

    /// The next message. Without rooms there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> MeshOutput {
        match self.0.recv().await {
            Some(output) => output,
            None => std::future::pending().await,
        }
    }
}

/// The packets that a session sends when its socket is writable.
#[derive(Debug, Default)]
pub(crate) struct MeshSendQueue(VecDeque<MeshOutput>);

impl MeshSendQueue {
    pub(crate) fn push(&mut self, output: MeshOutput) {
        if self.0.len() < MESH_QUEUE {
            self.0.push_back(output);
        } else {
            tracing::debug!("a message of a mesh to the gateway was dropped");
        }
    }

    pub(crate) fn pop(&mut self) -> Option<client_packet::Message> {
        self.0.pop_front().map(Into::into)
    }
}
