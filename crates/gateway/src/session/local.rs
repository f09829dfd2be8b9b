//! The sessions of this gateway: one for each wallet, with the members of each island.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use admission::Network;
use bus::Headers;
use protocol::{Address, Close, IslandId, SessionId, timing};
use tokio::time::Instant;

use crate::{
    metrics,
    session::{
        queue::SessionSender,
        resumption::{Resumable, Resumption},
    },
};

/// The local sessions, by the wallet.
#[derive(Debug, Default)]
pub(crate) struct LocalSessions {
    by_address: HashMap<Address, LocalSession>,
    /// Number of sessions of each client network.
    by_network: HashMap<Network, usize>,
    /// The members of each island: the addresses that were assigned to it last.
    island_members: HashMap<IslandId, HashSet<Address>>,
}

/// A local session.
#[derive(Debug)]
pub(crate) struct LocalSession {
    pub(crate) session: SessionId,
    pub(crate) network: Network,
    /// Dropping it ends the session.
    pub(crate) sender: SessionSender,
    /// The transports that its client listed, separated by commas.
    pub(crate) transports: Option<Arc<str>>,
    pub(crate) resumption: Option<Resumption>,
    /// Time of the last announcement of the session on the bus.
    pub(crate) announced_at: Instant,
    /// The island of its last assignment.
    pub(crate) island: Option<IslandId>,
    pub(crate) mesh: MeshMembership,
}

/// Whether the island of a session is a peer-to-peer mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MeshMembership {
    No,
    Member,
    /// The island moved to another transport at this time.
    Left(Instant),
}

/// The time for which members of a mesh that moved to another transport still exchange fallback messages. Without it,
/// messages would be lost that are sent between the assignment and the entry into the new room.
const FALLBACK_GRACE: Duration = timing::ROOM_GRACE;

impl MeshMembership {
    /// Whether fallback messages are forwarded and delivered.
    pub(crate) fn has_fallback(self) -> bool {
        match self {
            Self::No => false,
            Self::Member => true,
            Self::Left(at) => at.elapsed() < FALLBACK_GRACE,
        }
    }

    /// Applies an assignment to the same island or to another one.
    fn assigned(&mut self, is_same: bool, is_mesh: bool) {
        *self = match *self {
            _ if is_mesh => Self::Member,
            _ if !is_same => Self::No,
            Self::Member => Self::Left(Instant::now()),
            other => other,
        };
    }
}

impl LocalSessions {
    pub(crate) fn get(&self, address: Address) -> Option<&LocalSession> {
        self.by_address.get(&address)
    }

    pub(crate) fn get_mut(&mut self, address: Address) -> Option<&mut LocalSession> {
        self.by_address.get_mut(&address)
    }

    pub(crate) fn contains(&self, address: Address) -> bool {
        self.by_address.contains_key(&address)
    }

    pub(crate) fn count(&self) -> usize {
        self.by_address.len()
    }

    /// Number of sessions of a client network.
    pub(crate) fn network_count(&self, network: Network) -> usize {
        self.by_network.get(&network).copied().unwrap_or_default()
    }

    /// Adds the session of a wallet without one.
    pub(crate) fn insert(&mut self, address: Address, local: LocalSession) {
        *self.by_network.entry(local.network).or_default() += 1;
        self.by_address.insert(address, local);
    }

    /// Removes a session.
    pub(crate) fn remove(&mut self, address: Address) -> Option<LocalSession> {
        let local = self.by_address.remove(&address)?;
        if let Some(count) = self.by_network.get_mut(&local.network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&local.network);
            }
        }
        self.remove_member(address, local.island.as_ref());
        Some(local)
    }

    /// Removes and returns all sessions.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = LocalSession> {
        std::mem::take(self).by_address.into_values()
    }

    /// The sessions that were assigned to an island last, except that of `peer`.
    pub(crate) fn other_members(
        &self,
        island: &IslandId,
        peer: Address,
    ) -> impl Iterator<Item = &LocalSession> {
        let members = self.island_members.get(island).into_iter().flatten();
        members.filter(move |&&member| member != peer).filter_map(|member| self.by_address.get(member))
    }

    /// The mesh membership of a session in this island.
    pub(crate) fn mesh_membership(&self, address: Address, island: &IslandId) -> MeshMembership {
        let local = self.get(address).filter(|local| local.island.as_ref() == Some(island));
        local.map_or(MeshMembership::No, |local| local.mesh)
    }

    /// Records the island of the assignment that was queued for a session.
    pub(crate) fn enter_island(&mut self, address: Address, island: IslandId, is_mesh: bool) {
        let Some(local) = self.by_address.get_mut(&address) else { return };
        let before = local.island.replace(island.clone());
        local.mesh.assigned(before.as_ref() == Some(&island), is_mesh);
        if before.as_ref() != Some(&island) {
            self.remove_member(address, before.as_ref());
            self.island_members.entry(island).or_default().insert(address);
        }
    }

    /// Records that a session left this island, if it is the named session or none is named.
    pub(crate) fn leave_island(&mut self, address: Address, session: Option<SessionId>, island: &IslandId) {
        let Some(local) = self.by_address.get_mut(&address) else { return };
        if session.is_none_or(|session| session == local.session) && local.island.as_ref() == Some(island) {
            local.island = None;
            local.mesh = MeshMembership::No;
            self.remove_member(address, Some(island));
        }
    }

    fn remove_member(&mut self, address: Address, island: Option<&IslandId>) {
        let Some(island) = island else { return };
        if let Some(members) = self.island_members.get_mut(island) {
            members.remove(&address);
            if members.is_empty() {
                self.island_members.remove(island);
            }
        }
    }
}

impl LocalSession {
    /// The headers of the announcement.
    pub(crate) fn headers(&self) -> Headers {
        Headers {
            transports: self.transports.clone(),
            resumption: self.resumption.map(|own| Box::new(own.headers())),
            ..Headers::for_session(self.session)
        }
    }

    pub(crate) fn resumable(&self) -> Resumable {
        Resumable { session: self.session, hash: self.resumption.map(|own| own.hash) }
    }

    /// Ends the session in favour of a newer one.
    pub(crate) fn kick(self) {
        metrics::kicks().increment(1);
        self.sender.close(Close::NewSession);
    }
}

#[cfg(test)]
impl LocalSessions {
    /// Number of members of an island.
    pub(crate) fn members_count(&self, island: &IslandId) -> usize {
        self.island_members.get(island).map_or(0, HashSet::len)
    }

    /// Whether no island has members.
    pub(crate) fn has_no_members(&self) -> bool {
        self.island_members.is_empty()
    }
}
