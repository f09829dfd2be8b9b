//! A peer in the replica of a standby.

use std::time::Duration;

use archipelago::{Input, LastAssignment, PeerSnapshot, ReportedAssignment};
use protocol::{Address, Position, SessionId, timing::ASSIGNMENT_ROUND_TRIP};

use crate::decode::parse_transports;

/// The state of a peer.
#[derive(Debug, Default)]
pub(super) struct ReplicaPeer {
    pub(super) session: Option<SessionId>,
    /// The transports that its client can join, as listed by the client.
    pub(super) transports: Option<String>,
    /// Its position; `None` before its first heartbeat.
    pub(super) position: Option<Position>,
    pub(super) desired_room: Option<String>,
    /// The cluster that another service assigned it to, which is published once; `Some(None)`: no cluster,
    /// `None`: not known.
    pub(super) cluster: Option<Option<String>>,
    /// The last assignment of a client of this peer. The peer keeps its island by it.
    pub(super) assignment: Option<LastAssignment>,
    /// Whether its current session has sent a heartbeat.
    pub(super) has_heartbeat: bool,
    /// Whether its current client knows the assignment, and the assignment still admits it.
    pub(super) is_informed: bool,
    /// Whether the assigned node restarted since, so that the client needs a new connection string.
    pub(super) node_restarted: bool,
    /// When the leader published the assignment; `None` if it was learned from a heartbeat.
    pub(super) assigned_at: Option<Duration>,
    pub(super) last_seen: Duration,
    pub(super) departed_at: Option<Duration>,
    /// Whether the members of its island were sent that it left.
    pub(super) is_leave_published: bool,
    /// Whether its current session replaced one without resuming it, and the leader has not revoked the older
    /// session's tokens yet, as far as is known.
    pub(super) taken_over: bool,
}

impl ReplicaPeer {
    /// Resets the state of its client: a new session has begun.
    pub(super) fn start_session(&mut self) {
        (self.has_heartbeat, self.is_informed, self.node_restarted, self.assigned_at) =
            (false, false, false, None);
    }

    /// Applies the assignment that its gateway reports.
    pub(super) fn correct_assignment(&mut self, reported: &ReportedAssignment, now: Duration) {
        // Its current session has an island, so the older session's tokens were revoked.
        self.taken_over &= reported.island.is_empty();
        if self.assigned_at.is_some_and(|at| now < at + ASSIGNMENT_ROUND_TRIP) {
            return;
        }
        self.assigned_at = None;
        let same = |assignment: &LastAssignment| {
            assignment.island.as_str() == reported.island && assignment.node.as_str() == reported.node
        };
        self.is_informed = self.assignment.as_ref().is_some_and(same);
        // Without an island or a node in the report, it keeps its island, and the next leader resends the
        // assignment.
        if !self.is_informed
            && let (Ok(island), Ok(node)) = (reported.island.parse(), reported.node.parse())
        {
            (self.assignment, self.is_informed) = (Some(LastAssignment { island, node }), true);
        }
    }

    pub(super) fn hand_over(self, peer: Address, peers: &mut Vec<PeerSnapshot>, inputs: &mut Vec<Input>) {
        let Self { session, position, desired_room, last_seen, departed_at, taken_over, .. } = self;
        // A peer that another service put in no cluster is in no island, also if it was assigned to one.
        let assignment = self.assignment.filter(|_| self.cluster != Some(None));
        let cluster = self.cluster.flatten();
        let transports = self.transports.as_deref().and_then(parse_transports);
        if !self.has_heartbeat {
            inputs.push(Input::Connected { peer, session, transports: transports.clone(), resumes: None });
        } else if departed_at.is_some() && !self.is_leave_published {
            inputs.push(Input::Disconnected { peer, session });
        }
        let departed_at = departed_at.filter(|_| self.is_leave_published);
        let Some(position) = position else {
            return inputs.extend(cluster.map(|cluster| Input::Cluster {
                peer,
                session,
                cluster: Some(cluster),
            }));
        };
        peers.push(PeerSnapshot {
            peer,
            session,
            transports,
            position,
            desired_room,
            cluster,
            last_assigned: assignment,
            needs_assignment: self.has_heartbeat && (!self.is_informed || self.node_restarted),
            last_seen,
            departed_at,
            taken_over,
        });
    }
}
