//! Resuming: a new engine that continues with the islands of an engine that was lost, rebuilt from the
//! last assignments of clients.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{Address, IslandId, NodeName, Position, SessionId};

use crate::{
    engine::{Engine, is_in_world_bounds},
    event::Input,
    flush::{self, PlacementState},
    ids::{IslandIds, Serial},
    islands::{EmptyIsland, IslandState},
    peers::{Flags, PeerState},
    registry::{NO_NODE, NodeIndex, Transport},
    rules::Rules,
    settings::{Settings, SettingsError},
    spatial::Point,
};

/// The known state of a realm from which an engine resumes. It is collected from other components, not
/// copied from the engine that was lost.
#[derive(Debug, Clone, Default)]
pub struct EngineSnapshot {
    /// The rules of the realm's owner.
    pub rules: Arc<Rules>,
    /// The time of day in minutes since midnight, UTC, if it is known.
    pub minute: Option<u16>,
    /// The nodes that offer rooms. They count as announced at the time of the resume.
    pub transports: Vec<Transport>,
    /// The peers, in any order. If a peer occurs more than once, its greatest session counts. A peer
    /// that signed in and has not sent a heartbeat is not included: pass an [`Input::Connected`] for it
    /// afterwards.
    pub peers: Vec<PeerSnapshot>,
}

/// The known state of a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSnapshot {
    /// Its address.
    pub peer: Address,
    /// Its session; `None` if its messages carry none.
    pub session: Option<SessionId>,
    /// The transports that its client announced, if it did.
    pub transports: Option<Vec<String>>,
    /// Its position.
    pub position: Position,
    /// The id of its preferred island, if it has one.
    pub desired_room: Option<String>,
    /// The last assignment that its client was sent, unless the peer has [left](crate::Output::Left)
    /// that island since; `None` for a peer without an assignment. For a departed peer: the island and
    /// node before it left, unless that island was closed since because its last members joined other
    /// islands.
    pub last_assigned: Option<LastAssignment>,
    /// Its cluster, with [external clustering](crate::Clustering::External). If it is not known, the
    /// cluster of most peers with the same last island is assumed.
    pub cluster: Option<String>,
    /// When its last message arrived, in the time of the engine.
    pub last_seen: Duration,
    /// When it disconnected, in the time of the engine, if its [`Output::Left`](crate::Output::Left)
    /// was emitted: it may rejoin within the return window. If it was not emitted, the value is `None`,
    /// the peer still counts as a member, and an [`Input::Disconnected`] must follow.
    pub departed_at: Option<Duration>,
    /// Its session took over from an older one and, as far as is known, the tokens of the old session
    /// are not revoked yet. The first flush revokes them before it emits an assignment.
    pub taken_over: bool,
}

/// The island and node of the assignment that a client was sent last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LastAssignment {
    /// The island.
    pub island: IslandId,
    /// The node that hosts its room.
    pub node: NodeName,
}

/// A peer that was restored, and its last assignment.
struct RestoredMember {
    island: u32,
    /// Set for a departed peer: the end of its return window.
    kept_until: Option<Duration>,
    node: NodeIndex,
}

impl Engine {
    /// Creates an engine that continues with the islands of an earlier engine. `started_ms` is as for
    /// [`new`](Self::new); if the id of an island has a later start time, a time after that is used.
    ///
    /// Islands keep their ids, even ids with another prefix, and no new island gets an id that was used
    /// before. The members of an island are all peers with a last assignment to it. Its node is the
    /// node of most of these assignments; members with another node get a new assignment. So a peer
    /// with a valid assignment is sent nothing, and the next flush corrects the others as usual. Crowds
    /// are left as they are until a member moves. Departed peers are remembered for the rest of their
    /// return window.
    ///
    /// Rules, time of day and positions take effect at once. Pending settling times start again.
    ///
    /// # Errors
    ///
    /// A value of `settings` is out of its bounds.
    pub fn resume(
        settings: Settings,
        started_ms: u64,
        snapshot: EngineSnapshot,
        now: Duration,
    ) -> Result<Self, SettingsError> {
        let mut engine = Self::new(settings, started_ms)?;
        let EngineSnapshot { rules, minute, transports, mut peers } = snapshot;
        engine.handle(Input::Rules(rules), now);
        minute.into_iter().for_each(|minute| engine.handle(Input::TimeOfDay { minute }, now));
        transports.into_iter().for_each(|transport| engine.handle(Input::Transport(transport), now));
        let window = engine.settings.return_window;
        let all = peers.len();
        peers.retain(|peer| is_in_world_bounds(peer.position));
        engine.counters.positions_refused += (all - peers.len()) as u64;
        peers.retain(|peer| is_in_return_window(peer, window, now));
        peers.sort_unstable_by_key(|peer| (peer.peer, Reverse(peer.session)));
        peers.dedup_by_key(|peer| peer.peer);
        // Departed peers, in the order in which they expire.
        peers.sort_by_key(|peer| peer.departed_at);
        if engine.clusters.is_some() {
            infer_clusters(&mut peers);
        }
        engine.restore_islands(started_ms, &peers);
        let members = peers.into_iter().filter_map(|peer| engine.restore_peer(peer)).collect();
        engine.restore_nodes(members);
        engine.defer_zone_transitions(now);
        flush::refresh(&mut engine, now);
        engine.init_placement(now);
        engine.just_resumed = true;
        Ok(engine)
    }

    /// Creates the islands of the last assignments, the oldest first, without members.
    fn restore_islands(&mut self, started_ms: u64, peers: &[PeerSnapshot]) {
        let assignments = peers.iter().filter_map(|peer| peer.last_assigned.as_ref());
        let mut ids: Vec<IslandId> = assignments.map(|assignment| assignment.island.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        let serials = (1..=ids.len() as u64).map(Serial);
        self.ids = IslandIds::resume(&self.settings.id_prefix, started_ms, ids);
        for serial in serials {
            let island = self.islands.add(serial.0);
            self.islands.assign_serial(island, serial);
            self.spatial.add_island(island);
        }
    }

    /// Restores a peer as a member of the island that it was assigned to.
    fn restore_peer(&mut self, peer: PeerSnapshot) -> Option<RestoredMember> {
        let PeerSnapshot {
            peer: address, session, transports, position, desired_room, last_assigned, ..
        } = peer;
        let PeerSnapshot { cluster, last_seen, departed_at, taken_over, .. } = peer;
        let peer = self.resolve_sender(address, session)?;
        let at = Point { x: position.x, z: position.z };
        self.set_position(peer, at);
        self.set_cluster(peer, cluster.as_deref());
        self.enter_current_zone(peer);
        if let Some(transports) = transports {
            self.client_transports.insert(peer, transports);
            self.set_capabilities(peer);
        }
        let serial = last_assigned.as_ref().and_then(|last| self.ids.serial(last.island.as_str()));
        let island = serial.and_then(|serial| self.islands.find(serial));
        let node = last_assigned.map_or(NO_NODE, |last| self.registry.find_or_add(&last.node));
        let record = &mut self.peers[peer];
        record.set_last_seen(last_seen);
        record.height_m = position.y;
        let kept_until = departed_at.map(|departed| departed.saturating_add(self.settings.return_window));
        if let Some(until) = kept_until {
            self.peers.set_state(peer, PeerState::Departed);
            self.reconnect_grace.insert(peer, serial.unwrap_or(Serial::NONE), at, until);
        } else {
            self.peers.set_state(peer, PeerState::Present);
            match island {
                Some(island) => {
                    let record = &mut self.peers[peer];
                    (record.reported_island, record.last_assigned_node) = (island, node);
                    record.last_assigned = serial.unwrap_or(Serial::NONE);
                    self.spatial.add_member(peer, island);
                }
                None => self.pending.joining.push(peer),
            }
        }
        if taken_over {
            self.mark_taken_over(peer);
        }
        if let Some(room) = desired_room {
            self.set_preferred_island(peer, &room);
        }
        island.map(|island| RestoredMember { island, kept_until, node })
    }

    /// Sets the node of each island to the node that most members were assigned to; if all members
    /// departed, most of those. Members with another node get a new assignment.
    fn restore_nodes(&mut self, mut members: Vec<RestoredMember>) {
        members.sort_unstable_by_key(|member| (member.island, member.kept_until.is_some(), member.node));
        for of_island in members.chunk_by(|a, b| a.island == b.island) {
            let (island, left) = (of_island[0].island, of_island[0].kept_until.is_some());
            let mut counted = of_island.chunk_by(|a, b| a.kept_until.is_some() == b.kept_until.is_some());
            let by_node = counted.next().unwrap_or_default().chunk_by(|a, b| a.node == b.node);
            let most = by_node.max_by_key(|members| (members.len(), Reverse(members[0].node)));
            let node = most.map_or(NO_NODE, |members| members[0].node);
            self.islands[island].node = node;
            if left {
                self.islands.set_state(island, IslandState::Empty);
                let serial = self.islands[island].serial;
                let until = of_island.iter().filter_map(|member| member.kept_until).max();
                self.empty_islands.extend(until.map(|until| EmptyIsland { island, serial, until }));
                continue;
            }
            let size = self.spatial.size(island);
            self.islands[island].reserved_seats = size;
            self.registry.reserve(node, 0, size);
            self.mark_dirty(island);
            for peer in self.members_of(island) {
                if self.peers[peer].last_assigned_node != node {
                    self.queue_report(peer);
                }
            }
        }
        self.empty_islands.make_contiguous().sort_by_key(|empty| empty.until);
    }

    /// A member beyond the border of an enclosure is treated as if it had just crossed the border: it
    /// stays in its island until the settling time has passed.
    fn defer_zone_transitions(&mut self, now: Duration) {
        let islands: Vec<u32> = self.islands.populated().collect();
        for island in islands {
            if self.spatial.single_zone(island).is_some() {
                continue;
            }
            let main = self.majority_zone(island);
            for peer in self.members_of(island) {
                let distances = &self.spatial.distances;
                if distances.enclosure(self.spatial.traits(peer).zone()) != distances.enclosure(main) {
                    self.begin_transition_from(peer, main, now);
                }
            }
        }
    }

    /// Sets the rule of each island to the one that applies now, and starts the move cooldown of each,
    /// so that no island moves soon for an improvement only.
    fn init_placement(&mut self, now: Duration) {
        let islands: Vec<u32> = self.islands.populated().collect();
        for island in islands {
            let (zone, size) = (self.majority_zone(island), self.spatial.size(island));
            self.islands[island].rule = self.zones.rule_for(zone, size);
            self.placement
                .insert(island, PlacementState { moved_at: Some(now), ..PlacementState::default() });
        }
    }

    fn members_of(&self, island: u32) -> Vec<u32> {
        self.spatial.members(island).map(|member| member.peer).collect()
    }

    /// Whether `last_assigned`, the ids of island and node or nothing, is the last assignment of a
    /// peer's client. Also `true` where nothing needs to be corrected: for a session that is not the
    /// current one, for a peer in no island with a node, and for a peer that is about to get an
    /// assignment.
    pub fn matches_last_assignment(
        &self,
        peer: Address,
        session: Option<SessionId>,
        last_assigned: Option<(&str, &str)>,
    ) -> bool {
        let Some(peer) = self.peers.find(peer) else { return true };
        let record = &self.peers[peer];
        let unassigned = record.state != PeerState::Present || record.flags.has(Flags::AWAITING_HEARTBEAT);
        if unassigned || !self.is_current_session(peer, session) || !self.island_has_node(peer) {
            return true;
        }
        match (self.registry.name(record.last_assigned_node), last_assigned) {
            // No assignment was sent yet, or one is pending.
            (None, _) => true,
            (Some(node), Some((island, other))) => {
                node.as_str() == other && self.ids.matches(record.last_assigned, island)
            }
            (Some(_), None) => false,
        }
    }

    fn is_current_session(&self, peer: u32, session: Option<SessionId>) -> bool {
        session.is_none() || session == self.peers.session(peer)
    }

    /// Handles [`Input::ResendAssignment`].
    pub(crate) fn resend_assignment(
        &mut self,
        address: Address,
        session: Option<SessionId>,
        from: Option<&IslandId>,
    ) {
        let Some(peer) = self.peers.find(address) else { return };
        if !self.is_current_session(peer, session) {
            self.counters.stale_messages += 1;
            return;
        }
        let from = from.and_then(|island| self.ids.serial(island.as_str()));
        let record = &mut self.peers[peer];
        (record.last_assigned, record.last_assigned_node) = (from.unwrap_or(Serial::NONE), NO_NODE);
        if self.island_has_node(peer) {
            self.queue_report(peer);
        }
    }
}

/// Assumes a cluster for each assigned peer without a known one: the cluster of most peers with the
/// same last island, or, if none is known, one of their own.
fn infer_clusters(peers: &mut [PeerSnapshot]) {
    let mut known: BTreeMap<IslandId, BTreeMap<String, usize>> = BTreeMap::new();
    for peer in peers.iter() {
        if let (Some(last), Some(cluster)) = (&peer.last_assigned, &peer.cluster) {
            *known.entry(last.island.clone()).or_default().entry(cluster.clone()).or_default() += 1;
        }
    }
    for PeerSnapshot { last_assigned, cluster, .. } in peers.iter_mut().filter(|peer| peer.cluster.is_none())
    {
        *cluster = last_assigned.as_ref().map(|last| {
            let known = known.get(&last.island).into_iter().flatten();
            let most = known.max_by_key(|(_, members)| **members).map(|(cluster, _)| cluster.clone());
            most.unwrap_or_else(|| format!("island {}", last.island))
        });
    }
}

/// Whether a peer is present, or departed and still in its return window.
fn is_in_return_window(peer: &PeerSnapshot, return_window: Duration, now: Duration) -> bool {
    peer.departed_at.is_none_or(|departed| departed.saturating_add(return_window) > now)
}
