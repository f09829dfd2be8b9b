//! Meshes of an island (`p2p`). The gateway sends plans and signals, and the aliases are those of the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use protocol::Address;
use rtc::mesh::{Data, Event as MeshEvent, MeshInputs, MeshPeer, MeshSender, Options, SendError};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    destination::{Destination, OutgoingMessage},
    membership::{Ended, Membership, Welcome},
};
use crate::{
    Disconnect,
    mesh_link::{MeshMessage, MeshOutput},
};

/// The time before a reliable message is tried again when the queue of the channel is full.
const RETRY: Duration = Duration::from_millis(10);

/// Enters the mesh and runs the member to its end.
pub(super) async fn run(
    destination: &Destination,
    membership: &mut Membership,
    queued: mpsc::Receiver<OutgoingMessage>,
    mut gateway: mpsc::Receiver<MeshMessage>,
    (ice, relay_only): (Option<&str>, bool),
) -> Ended {
    let mut options = Options::new(destination.identity.address(), destination.island.to_string());
    options.relay_only = relay_only;
    options.udp_addresses = destination.udp_addresses.clone();
    match ice.map(str::parse).transpose() {
        Ok(servers) => options.ice_servers = servers.unwrap_or_default(),
        Err(error) => return Ended { reason: Disconnect::broken(error), close: None },
    }
    let mut peer = MeshPeer::start(options);
    let reason = serve(&mut peer, destination, membership, queued, &mut gateway).await;
    Ended { reason, close: Some(Box::pin(peer.close())) }
}

async fn serve(
    peer: &mut MeshPeer,
    destination: &Destination,
    membership: &mut Membership,
    mut queued: mpsc::Receiver<OutgoingMessage>,
    gateway: &mut mpsc::Receiver<MeshMessage>,
) -> Disconnect {
    let (inputs, sender) = (peer.inputs(), peer.sender());
    let mut left = pin!(Membership::left_and_sent(membership.progress.clone()));
    let entered_by = Instant::now() + destination.options.timeout;
    let mut state = MeshState::default();
    // A reliable message for which the queue of the channel has no capacity.
    let mut waiting: Option<OutgoingMessage> = None;
    loop {
        tokio::select! {
            event = peer.next() => {
                let Some(event) = event else { return Disconnect::broken("the mesh has ended") };
                if let Err(reason) = state.apply(event, destination, membership).await {
                    return reason;
                }
            }
            Some(message) = gateway.recv() => input(&inputs, message),
            message = queued.recv(), if waiting.is_none() => match message {
                Some(message) => waiting = send(&sender, message),
                // The client has left the room, and all its messages are with the peer.
                None => return Disconnect::Left,
            },
            () = sleep(RETRY), if waiting.is_some() => waiting = waiting.and_then(|message| send(&sender, message)),
            () = sleep_until(entered_by), if state.members.is_none() => return Disconnect::broken("no plan of the mesh in time"),
            () = &mut left => return Disconnect::Left,
        }
    }
}

/// The events of the mesh so far.
#[derive(Default)]
struct MeshState {
    /// The members of the newest plan; `None` before the first.
    members: Option<BTreeMap<u32, Address>>,
    neighbours: BTreeSet<Address>,
}

impl MeshState {
    async fn apply(
        &mut self,
        event: MeshEvent,
        destination: &Destination,
        membership: &mut Membership,
    ) -> Result<(), Disconnect> {
        let output = match event {
            MeshEvent::Signal(signal) => MeshOutput::Signal(signal),
            MeshEvent::Report(report) => {
                let neighbours = report.neighbours.iter().flat_map(|member| member.address.parse());
                let neighbours: BTreeSet<Address> = neighbours.collect();
                if self.neighbours != neighbours {
                    self.neighbours.clone_from(&neighbours);
                    membership.links_changed(neighbours).await?;
                }
                MeshOutput::Links(report)
            }
            MeshEvent::Data(Data { sender, alias, payload, .. }) => {
                return membership.message(alias, Some(sender), payload).await;
            }
            MeshEvent::Members { alias, members: mut newer } => {
                newer.remove(&alias);
                return self.replace_members(newer, alias, destination, membership).await;
            }
        };
        if destination.to_gateway.try_send(output).is_err() {
            tracing::debug!("a message of a mesh to the gateway was dropped");
        }
        Ok(())
    }

    /// Reports the members that have joined and left since the last plan.
    async fn replace_members(
        &mut self,
        newer: BTreeMap<u32, Address>,
        alias: u32,
        destination: &Destination,
        membership: &mut Membership,
    ) -> Result<(), Disconnect> {
        let Some(older) = self.members.replace(newer.clone()) else {
            let (island, url) = (destination.island.clone(), format!("p2p:{}", destination.island));
            return membership
                .entered(Welcome { island, url, transport: "p2p", alias, members: newer })
                .await;
        };
        for alias in older.keys().filter(|alias| !newer.contains_key(alias)) {
            membership.peer_left(*alias).await?;
        }
        for (alias, address) in newer.iter().filter(|(alias, _)| !older.contains_key(alias)) {
            membership.peer_joined(*alias, *address).await?;
        }
        Ok(())
    }
}

fn input(inputs: &MeshInputs, message: MeshMessage) {
    let accepted = match message {
        MeshMessage::Signal(signal) => inputs.signal(signal),
        MeshMessage::Plan(plan) => inputs.plan(plan),
        MeshMessage::IceServers(servers) => match servers.parse() {
            Ok(servers) => inputs.ice_servers(servers),
            Err(error) => {
                tracing::warn!(%error, "the gateway sent malformed ICE servers; ignored");
                Ok(())
            }
        },
    };
    if let Err(error) = accepted {
        tracing::debug!(%error, "a message of the gateway to a mesh was dropped");
    }
}

/// Sends a message. Returns a reliable one for which the queue has no capacity; any other that cannot be sent is
/// dropped.
fn send(sender: &MeshSender, message: OutgoingMessage) -> Option<OutgoingMessage> {
    let sent = match message.unreliable {
        true => sender.send_lossy(message.body.clone()),
        false => sender.send_reliable(message.body.clone()),
    };
    match sent {
        Err(SendError::QueueFull) if !message.unreliable => Some(message),
        Err(error) => {
            tracing::debug!(%error, "a message was not sent in a mesh");
            None
        }
        Ok(()) => None,
    }
}
