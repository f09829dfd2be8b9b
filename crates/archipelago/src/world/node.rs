//! A node: its last announcement, its seats, and which islands it can host.

use std::{sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use super::capabilities::Capabilities;
use crate::{
    event::RoomFailure,
    ids::IslandIndex,
    rules::TransportChoice,
    transport::{Transport, TransportKind, TransportView},
};

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) transport: Transport,
    /// The time of its last announcement; `None` for a node that is known only from assignments that
    /// clients reported.
    pub(super) announced_at: Option<Duration>,
    pub(super) present: bool,
    /// Since when it has been available again after an outage, until the settling time has passed.
    pub(super) recovered_since: Option<Duration>,
    pub(super) assigned: u32,
    /// The capabilities that a client required to join.
    pub(super) required: Capabilities,
    /// The islands that it cannot host for a while: when it may be tried again, and why not before.
    pub(super) room_failures: FxHashMap<IslandIndex, (Duration, RoomFailure)>,
    /// Why it is down, if it reported that.
    pub(super) down_reason: Option<Arc<str>>,
}

/// Why a node cannot host an island.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeRejection {
    /// Its announcements stopped.
    Gone,
    /// It drains.
    Draining,
    /// A member lacks the capability to join it.
    MissingCapability,
    /// Its rooms are too small.
    RoomTooSmall,
    /// It does not have enough free seats.
    Full,
    /// It failed to host the island before.
    RoomFailed {
        /// When the node may be tried again.
        retry_at: Duration,
        failure: RoomFailure,
    },
}

/// An island that needs a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    pub(crate) island: IslandIndex,
    /// Its number of members.
    pub(crate) size: u32,
    /// The capabilities that all its members have.
    pub(crate) capabilities: Capabilities,
    /// The most members of a mesh under its rule.
    pub(crate) max_mesh_size: u32,
}

impl Node {
    pub(super) fn view(&self) -> TransportView<'_> {
        TransportView {
            transport: &self.transport,
            available: self.available(),
            assigned: self.assigned,
            free_seats: self.free_seats(),
        }
    }

    pub(super) fn available(&self) -> bool {
        self.present && !self.transport.draining && self.transport.max_island_size > 0
    }

    /// The number of used seats. Announcements lag behind assignments, and include users that this
    /// engine did not assign, so the greater of both numbers counts.
    pub(super) fn used_seats(&self) -> u32 {
        self.assigned.max(self.transport.users)
    }

    pub(super) fn free_seats(&self) -> Option<u32> {
        let seats = self.transport.seats?;
        Some(seats.saturating_add(self.transport.users).saturating_sub(self.used_seats()))
    }

    /// How many more members are assigned to it than it has seats.
    pub(super) fn overbooked_by(&self) -> u32 {
        let users = self.transport.users;
        self.transport.seats.map_or(0, |seats| self.assigned.saturating_sub(seats.saturating_add(users)))
    }

    /// The most members of a room on it, under a rule that limits meshes to `max_mesh_size` members.
    pub(super) fn max_room_size(&self, max_mesh_size: u32) -> u32 {
        match self.transport.kind {
            TransportKind::P2p => self.transport.max_island_size.min(max_mesh_size),
            _ => self.transport.max_island_size,
        }
    }

    pub(super) fn matches_choice(&self, choice: &TransportChoice) -> bool {
        match choice {
            TransportChoice::Kind(kind) => self.transport.kind == *kind,
            TransportChoice::Node(node) => self.transport.node == *node,
        }
    }

    /// Why a node cannot host an island; `here` if the island is on the node already.
    pub(super) fn rejection(&self, demand: &Demand, here: bool) -> Option<NodeRejection> {
        let &Demand { island, size, capabilities, max_mesh_size } = demand;
        let seats = || match here {
            true => self.overbooked_by() == 0,
            false => self.free_seats().is_none_or(|free| free >= size),
        };
        if !self.present {
            Some(NodeRejection::Gone)
        } else if self.transport.draining {
            Some(NodeRejection::Draining)
        } else if !capabilities.contains_all(self.required) {
            Some(NodeRejection::MissingCapability)
        } else if self.max_room_size(max_mesh_size) < size {
            Some(NodeRejection::RoomTooSmall)
        } else if !seats() {
            Some(NodeRejection::Full)
        } else {
            let (retry_at, failure) = self.room_failures.get(&island)?.clone();
            Some(NodeRejection::RoomFailed { retry_at, failure })
        }
    }
}
