//! The nodes that an island could be placed on.

use std::time::Duration;

use super::facts::{NodeCandidate, seconds};
use crate::{
    engine::Engine,
    event::RoomFailure,
    ids::{IslandIndex, NodeIndex},
    rules::MeshLimits,
    transport::TransportKind,
    world::{Member, NodeRejection},
};

impl Engine {
    /// The nodes that an island could be placed on, in order of preference, each once.
    pub(super) fn candidates(&self, island: IslandIndex, now: Duration) -> Vec<NodeCandidate> {
        let record = &self.world.islands[island];
        let rule = record.rule.index();
        let own = rule.and_then(|rule| self.world.zones.rules().rule(rule).transports.as_ref());
        let own_choices = own.map_or(0, Vec::len);
        let demand = self.world.demand(island);
        let mut candidates: Vec<NodeCandidate> = Vec::new();
        for (rank, choice) in self.world.zones.choices(rule).enumerate() {
            let (by_rule, choice_text) = (rank < own_choices || own_choices == 0, choice.to_string());
            let mut any = false;
            for (node, unfit) in self.world.nodes.candidates(choice, demand, record.node) {
                any = true;
                if self.world.nodes.last_announcement(node).is_none() {
                    continue;
                }
                let name = self.world.nodes.name(node);
                if candidates.iter().any(|listed| listed.node.as_ref() == Some(name)) {
                    continue;
                }
                candidates.push(NodeCandidate {
                    choice: choice_text.clone(),
                    by_rule,
                    node: Some(name.clone()),
                    fits: unfit.is_none(),
                    reason: self.candidate_reason(island, node, unfit.as_ref(), now),
                    unfit,
                });
            }
            if !any && !candidates.iter().any(|listed| listed.choice == choice_text) {
                let reason = "no node offers it".to_owned();
                candidates.push(NodeCandidate {
                    choice: choice_text,
                    by_rule,
                    node: None,
                    fits: false,
                    reason,
                    unfit: None,
                });
            }
        }
        candidates
    }

    /// Why a node cannot host an island, or its free seats, with its remark. The node was announced.
    fn candidate_reason(
        &self,
        island: IslandIndex,
        node: NodeIndex,
        unfit: Option<&NodeRejection>,
        now: Duration,
    ) -> String {
        let Some((view, announced_at)) = self.world.nodes.last_announcement(node) else {
            return String::new();
        };
        let size = self.world.spatial.size(island);
        let free = view.free_seats.map_or("unlimited seats".to_owned(), |free| format!("free seats: {free}"));
        match unfit {
            None => match &view.transport.note {
                Some(note) => format!("{free}; {note}"),
                None => free,
            },
            Some(NodeRejection::Gone) => match self.world.nodes.down_reason(node) {
                Some(reason) => format!("it is down: {reason}"),
                None => format!("no announcement for {:.1} s", seconds(now.saturating_sub(announced_at))),
            },
            Some(NodeRejection::Draining) => "draining".to_owned(),
            Some(NodeRejection::MissingCapability) => {
                self.missing_capability_reason(island, &view.transport.capability)
            }
            Some(NodeRejection::RoomTooSmall) => {
                let room = view.transport.max_island_size;
                let limits = self.world.mesh_limits(island);
                if view.transport.kind == TransportKind::P2p && limits.max_members() < room {
                    let MeshLimits { max_links, .. } = limits;
                    return format!(
                        "without relay a mesh of {max_links} links a member holds {}, the island has {size} members",
                        limits.max_members()
                    );
                }
                format!("its rooms hold {room}, the island has {size} members")
            }
            Some(NodeRejection::RoomFailed { retry_at, failure }) => {
                let left = seconds(retry_at.saturating_sub(now));
                let failure = match failure {
                    RoomFailure::NotOpened => "it could not open a room for the island",
                    RoomFailure::Mesh(failure) => failure,
                };
                format!("{failure}; the next attempt is in {left:.1} s")
            }
            Some(NodeRejection::Full) => format!("{free}, the island has {size} members"),
        }
    }

    fn missing_capability_reason(&self, island: IslandIndex, capability: &str) -> String {
        let lacks = |member: &Member| {
            !self.capability_names(member.traits.capabilities()).iter().any(|name| name == capability)
        };
        let address = self
            .world
            .spatial
            .members(island)
            .find(lacks)
            .map(|member| self.world.peers[member.peer].address);
        address.map_or_else(String::new, |address| format!("{address} cannot join {capability}"))
    }
}
