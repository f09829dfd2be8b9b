//! What somebody knows who hears all that is said to an engine and by it, as a director does that
//! stands by to take over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archipelago::{EngineSnapshot, Input, LastAssignment, Output, PeerSnapshot, Transport, rules::Rules};
use protocol::{Address, NodeName};

#[derive(Default)]
pub(crate) struct Chronicle {
    rules: Arc<Rules>,
    minute: Option<u16>,
    nodes: BTreeMap<NodeName, Transport>,
    /// What clients said that they can join.
    announced: BTreeMap<Address, Vec<String>>,
    pub(crate) clusters: BTreeMap<Address, String>,
    people: BTreeMap<Address, PeerSnapshot>,
}

impl Chronicle {
    pub(crate) fn hear(&mut self, input: &Input, now: Duration) {
        match input {
            Input::Connected { peer, transports, .. } => {
                match transports {
                    Some(transports) => drop(self.announced.insert(*peer, transports.clone())),
                    None => drop(self.announced.remove(peer)),
                }
                if let Some(resident) = self.people.get_mut(peer).filter(|known| known.departed_at.is_none())
                {
                    resident.last_assigned = None;
                }
            }
            Input::Heartbeat { peer, session, position, .. } => {
                let told = self.people.remove(peer).filter(|known| known.departed_at.is_none());
                let resident = PeerSnapshot {
                    peer: *peer,
                    session: *session,
                    transports: None,
                    position: *position,
                    desired_room: None,
                    cluster: None,
                    last_assigned: told.and_then(|known| known.last_assigned),
                    last_seen: now,
                    departed_at: None,
                    taken_over: false,
                };
                self.people.insert(*peer, resident);
            }
            Input::Disconnected { peer, .. } => {
                if let Some(resident) = self.people.get_mut(peer) {
                    resident.departed_at = Some(now);
                }
            }
            Input::Transport(transport) => {
                self.nodes.insert(transport.node.clone(), transport.clone());
            }
            Input::TransportGone { node } => drop(self.nodes.remove(node)),
            Input::Rules(rules) => self.rules = rules.clone(),
            Input::TimeOfDay { minute } => self.minute = Some(*minute),
            Input::Cluster { peer, cluster, .. } => match cluster {
                Some(cluster) => drop(self.clusters.insert(*peer, cluster.clone())),
                None => {
                    self.clusters.remove(peer);
                    // It will not be put back where it was.
                    let left = self.people.get_mut(peer).filter(|known| known.departed_at.is_some());
                    left.into_iter().for_each(|known| known.last_assigned = None);
                }
            },
            Input::ResendAssignment { .. } => {}
        }
    }

    pub(crate) fn see(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Assigned { peer, island, transport, .. } => {
                    if let Some(resident) = self.people.get_mut(peer) {
                        resident.last_assigned =
                            Some(LastAssignment { island: island.clone(), node: transport.clone() });
                    }
                }
                // Its client may still have to be told, but it is no member.
                Output::Left { island, peer, .. } => {
                    let there = |told: &mut LastAssignment| told.island == *island;
                    let resident = self.people.get_mut(peer).filter(|known| known.departed_at.is_none());
                    resident.into_iter().for_each(|known| drop(known.last_assigned.take_if(there)));
                }
                Output::Closed { island } => {
                    let left = self.people.values_mut().filter(|known| known.departed_at.is_some());
                    let there = |told: &mut LastAssignment| told.island == *island;
                    left.for_each(|known| drop(known.last_assigned.take_if(there)));
                }
                _ => {}
            }
        }
    }

    /// What a peer was last told, of those who are there.
    pub(crate) fn told(&self, peer: Address) -> Option<&LastAssignment> {
        self.people.get(&peer).filter(|known| known.departed_at.is_none())?.last_assigned.as_ref()
    }

    pub(crate) fn takeover(&self) -> EngineSnapshot {
        let resident = |known: &PeerSnapshot| PeerSnapshot {
            transports: self.announced.get(&known.peer).cloned(),
            cluster: self.clusters.get(&known.peer).cloned(),
            ..known.clone()
        };
        EngineSnapshot {
            rules: self.rules.clone(),
            minute: self.minute,
            transports: self.nodes.values().cloned().collect(),
            peers: self.people.values().map(resident).collect(),
        }
    }
}
