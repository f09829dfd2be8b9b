//! The state of a director, which depends on whether it leads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use archipelago::rules::Rules;
use bus::{Bus, Envelope, Subscription};
use protocol::{IslandId, NodeName, subject};

use crate::{
    admin::{AdminError, AssignedRoom, assigned_rooms},
    leader::Leader,
    standby::Replica,
};

/// Messages of the leader that can wait for a standby; when the queue is full the newest is dropped and
/// counted. Heartbeats contain the assignments of clients, too.
const STANDBY_QUEUE: usize = 65_536;

/// Whether the director leads.
pub(crate) enum Mode {
    /// It receives the same messages as the leader, and the leader's messages.
    Standby { replica: Replica, leader_messages: Subscription },
    /// It runs the engine. While suspended, because the leader is unknown, it only processes messages.
    Leading { leader: Box<Leader>, suspended: bool },
}

impl Mode {
    pub(crate) fn new_standby(bus: &Bus, rules: Arc<Rules>) -> Self {
        let patterns = [subject::PEER_ISLAND_CHANGES, subject::MEMBERSHIP_ENDS];
        let leader_messages = bus.subscribe("director-standby", &patterns, STANDBY_QUEUE);
        Self::Standby { replica: Replica::new(rules), leader_messages }
    }

    /// The rules of the realm's owner: an engine or the replica holds them.
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        match self {
            Self::Standby { replica, .. } => replica.rules(),
            Self::Leading { leader, .. } => leader.engine().rules(),
        }
    }

    /// The leader, unless it is suspended.
    pub(crate) fn leader(&self) -> Option<&Leader> {
        match self {
            Self::Leading { leader, suspended: false } => Some(leader),
            _ => None,
        }
    }

    pub(crate) fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Self::Leading { leader, suspended: false } => Some(leader),
            _ => None,
        }
    }

    /// The islands on a node, or only this one, if this director leads and knows all peers.
    pub(crate) fn assigned_rooms(
        &self,
        node: &NodeName,
        island: Option<&IslandId>,
        now: Duration,
    ) -> Result<HashMap<IslandId, AssignedRoom>, AdminError> {
        match self {
            Self::Standby { .. } => Err(AdminError::Standby),
            Self::Leading { leader, suspended: false } if leader.knows_all_peers(now) => {
                Ok(assigned_rooms(leader.engine(), node, island))
            }
            Self::Leading { .. } => Err(AdminError::Suspended),
        }
    }

    /// The next message of the leader; never, while this director leads. Cancel-safe.
    pub(crate) async fn next_leader_message(&mut self) -> Option<Envelope> {
        match self {
            Self::Standby { leader_messages, .. } => leader_messages.next().await,
            Self::Leading { .. } => std::future::pending().await,
        }
    }
}
