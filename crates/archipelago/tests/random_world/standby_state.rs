//! The state that a standby director records from all inputs and outputs of an engine, to resume from it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archipelago::{
    EngineSnapshot, Heartbeat, Input, LastAssignment, Output, PeerSnapshot, Transport, rules::Rules,
};
use protocol::{Address, NodeName};

#[derive(Default)]
pub(crate) struct StandbyState {
    rules: Arc<Rules>,
    minute: Option<u16>,
    nodes: BTreeMap<NodeName, Transport>,
    /// The transports that clients listed when they signed in.
    client_transports: BTreeMap<Address, Vec<String>>,
    pub(crate) clusters: BTreeMap<Address, String>,
    peers: BTreeMap<Address, PeerSnapshot>,
}

impl StandbyState {
    pub(crate) fn observe_input(&mut self, input: &Input, now: Duration) {
        match input {
            Input::Connected { peer, transports, .. } => {
                match transports {
                    Some(transports) => drop(self.client_transports.insert(*peer, transports.clone())),
                    None => drop(self.client_transports.remove(peer)),
                }
                if let Some(record) = self.peers.get_mut(peer).filter(|record| record.departed_at.is_none()) {
                    record.last_assigned = None;
                }
            }
            Input::Heartbeat(Heartbeat { peer, session, position, .. }) => {
                let former = self.peers.remove(peer).filter(|record| record.departed_at.is_none());
                let record = PeerSnapshot {
                    peer: *peer,
                    session: *session,
                    transports: None,
                    position: *position,
                    desired_room: None,
                    needs_assignment: false,
                    cluster: None,
                    last_assigned: former.and_then(|record| record.last_assigned),
                    last_seen: now,
                    departed_at: None,
                    taken_over: false,
                };
                self.peers.insert(*peer, record);
            }
            Input::Disconnected { peer, .. } => {
                if let Some(record) = self.peers.get_mut(peer) {
                    record.departed_at = Some(now);
                }
            }
            Input::Transport(transport) => {
                self.nodes.insert(transport.node.clone(), transport.clone());
            }
            Input::TransportGone { node }
            | Input::TransportDown { transport: Transport { node, .. }, .. } => drop(self.nodes.remove(node)),
            Input::Rules(rules) => self.rules = rules.clone(),
            Input::TimeOfDay { minute } => self.minute = Some(*minute),
            Input::Cluster { peer, cluster, .. } => match cluster {
                Some(cluster) => drop(self.clusters.insert(*peer, cluster.clone())),
                None => {
                    self.clusters.remove(peer);
                    // A peer that left and loses its cluster does not rejoin its island.
                    let departed = self.peers.get_mut(peer).filter(|record| record.departed_at.is_some());
                    departed.into_iter().for_each(|record| record.last_assigned = None);
                }
            },
            Input::ReportsOutdated | Input::RoomUnavailable { .. } => {}
        }
    }

    pub(crate) fn observe_outputs(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Assigned { peer, island, .. } => {
                    if let Some(record) = self.peers.get_mut(peer) {
                        record.last_assigned =
                            Some(LastAssignment { island: island.id.clone(), node: island.node.clone() });
                    }
                }
                // The peer is no member any more, although its client may still need an assignment.
                Output::Left { island, peer, .. } => {
                    let is_same_island = |assignment: &mut LastAssignment| assignment.island == *island;
                    let record = self.peers.get_mut(peer).filter(|record| record.departed_at.is_none());
                    record.into_iter().for_each(|record| drop(record.last_assigned.take_if(is_same_island)));
                }
                Output::Closed { island } => {
                    let departed = self.peers.values_mut().filter(|record| record.departed_at.is_some());
                    let is_same_island = |assignment: &mut LastAssignment| assignment.island == *island;
                    departed.for_each(|record| drop(record.last_assigned.take_if(is_same_island)));
                }
                _ => {}
            }
        }
    }

    /// The last assignment of a peer in the world.
    pub(crate) fn last_assignment(&self, peer: Address) -> Option<&LastAssignment> {
        self.peers.get(&peer).filter(|record| record.departed_at.is_none())?.last_assigned.as_ref()
    }

    pub(crate) fn snapshot(&self) -> EngineSnapshot {
        let record = |record: &PeerSnapshot| PeerSnapshot {
            transports: self.client_transports.get(&record.peer).cloned(),
            cluster: self.clusters.get(&record.peer).cloned(),
            ..record.clone()
        };
        EngineSnapshot {
            rules: self.rules.clone(),
            minute: self.minute,
            transports: self.nodes.values().cloned().collect(),
            peers: self.peers.values().map(record).collect(),
        }
    }
}
