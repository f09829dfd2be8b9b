//! Going on where another engine ended.

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

/// What somebody who takes over knows of a realm.
#[derive(Debug, Clone, Default)]
pub struct EngineSnapshot {
    /// The owners' rules.
    pub rules: Arc<Rules>,
    /// What time it is, in minutes since midnight, UTC, if that is known.
    pub minute: Option<u16>,
    /// The nodes that offer rooms. They count as heard just now.
    pub transports: Vec<Transport>,
    /// The people, in any order. Of one peer the greatest session counts. Whoever has signed in and
    /// not said where it is, is not among them: that is an [`Input::Connected`] afterwards.
    pub peers: Vec<PeerSnapshot>,
}

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSnapshot {
    /// Who.
    pub peer: Address,
    /// Its session; none if its messages carry none.
    pub session: Option<SessionId>,
    /// What its client can join, if it said so.
    pub transports: Option<Vec<String>>,
    /// Where it stands.
    pub position: Position,
    /// The id of the island that it would like to be in, if it said so.
    pub desired_room: Option<String>,
    /// What its client was last told, unless it has [left](crate::Output::Left) that island since;
    /// `None` is a newcomer. Of one that has departed, where it was, unless that island has ended since
    /// because its last members went elsewhere.
    pub last_assigned: Option<LastAssignment>,
    /// The cluster that it is in, where somebody else says who is together. If it is not known, that of
    /// the others who were told of its island.
    pub cluster: Option<String>,
    /// When it was last heard, in the time of the engine.
    pub last_seen: Duration,
    /// When it disconnected, if it did, in the time of the engine: it may come back. Its island
    /// heard of it; otherwise it is still there, and an [`Input::Disconnected`] follows.
    pub departed_at: Option<Duration>,
    /// Its session took over from an older one, whose tokens are not revoked yet as far as is known:
    /// they are at the first flush, before anything is told.
    pub taken_over: bool,
}

/// Where a client was told that it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LastAssignment {
    /// The island.
    pub island: IslandId,
    /// The node that holds its room.
    pub node: NodeName,
}

/// A peer that is being counted in, and what it was told.
struct RestoredMember {
    island: u32,
    /// It has left, and its place is kept.
    kept_until: Option<Duration>,
    node: NodeIndex,
}

impl Engine {
    /// An engine that goes on where another ended. `started_ms` is as for [`new`](Self::new); if an
    /// island is of an engine that started later, a later time is taken.
    ///
    /// Islands keep their ids, be they of another prefix; no new one has an id that was ever given.
    /// Members of an island are all who were told of it, and its node is the one that most of them
    /// were told: the others are told anew. So whoever stands where it stood is told nothing, and who
    /// is not where it should be is put right by the next flush, as ever. Crowds are left as they are
    /// until somebody in them moves. Who disconnected is remembered for the rest of the return window.
    ///
    /// Rules, hours and places hold at once. What was waiting for a time to pass waits anew.
    pub fn resume(
        settings: Settings,
        started_ms: u64,
        snapshot: EngineSnapshot,
        now: Duration,
    ) -> Result<Self, SettingsError> {
        let mut engine = Self::new(settings, started_ms)?;
        let EngineSnapshot { rules, minute, transports, peers: mut residents } = snapshot;
        engine.handle(Input::Rules(rules), now);
        minute.into_iter().for_each(|minute| engine.handle(Input::TimeOfDay { minute }, now));
        transports.into_iter().for_each(|transport| engine.handle(Input::Transport(transport), now));
        let window = engine.settings.return_window;
        let all = residents.len();
        residents.retain(|resident| is_in_world_bounds(resident.position));
        engine.counters.positions_refused += (all - residents.len()) as u64;
        residents.retain(|resident| is_in_return_window(resident, window, now));
        residents.sort_unstable_by_key(|resident| (resident.peer, Reverse(resident.session)));
        residents.dedup_by_key(|resident| resident.peer);
        // Those who left, in the order in which they will be forgotten.
        residents.sort_by_key(|resident| resident.departed_at);
        if engine.clusters.is_some() {
            infer_clusters(&mut residents);
        }
        engine.restore_islands(started_ms, &residents);
        let placed = residents.into_iter().filter_map(|resident| engine.restore_peer(resident)).collect();
        engine.restore_nodes(placed);
        engine.defer_zone_transitions(now);
        flush::refresh(&mut engine, now);
        engine.init_placement(now);
        engine.just_resumed = true;
        Ok(engine)
    }

    /// Makes the islands that people were told of, the oldest first, empty yet.
    fn restore_islands(&mut self, started_ms: u64, residents: &[PeerSnapshot]) {
        let told = residents.iter().filter_map(|resident| resident.last_assigned.as_ref());
        let mut ids: Vec<IslandId> = told.map(|told| told.island.clone()).collect();
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

    /// Counts a peer in, as a member of the island that it was told of.
    fn restore_peer(&mut self, resident: PeerSnapshot) -> Option<RestoredMember> {
        let PeerSnapshot {
            peer: address,
            session,
            transports,
            position,
            desired_room,
            last_assigned: told,
            ..
        } = resident;
        let PeerSnapshot { cluster, last_seen: heard, departed_at: departed, taken_over, .. } = resident;
        let peer = self.resolve_sender(address, session)?;
        let at = Point { x: position.x, z: position.z };
        self.set_position(peer, at);
        self.set_cluster(peer, cluster.as_deref());
        self.enter_current_zone(peer);
        if let Some(transports) = transports {
            self.client_transports.insert(peer, transports);
            self.set_capabilities(peer);
        }
        let serial = told.as_ref().and_then(|told| self.ids.serial(told.island.as_str()));
        let island = serial.and_then(|serial| self.islands.find(serial));
        let node = told.map_or(NO_NODE, |told| self.registry.find_or_add(&told.node));
        let record = &mut self.peers[peer];
        record.set_last_seen(heard);
        record.height_m = position.y;
        let kept_until = departed.map(|departed| departed.saturating_add(self.settings.return_window));
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

    /// Gives each island the node that most of its members were told of, or, where all have left, most
    /// of those. Who was told another is told anew.
    fn restore_nodes(&mut self, mut placed: Vec<RestoredMember>) {
        placed.sort_unstable_by_key(|placed| (placed.island, placed.kept_until.is_some(), placed.node));
        for of_island in placed.chunk_by(|a, b| a.island == b.island) {
            let (island, left) = (of_island[0].island, of_island[0].kept_until.is_some());
            let mut counted = of_island.chunk_by(|a, b| a.kept_until.is_some() == b.kept_until.is_some());
            let by_node = counted.next().unwrap_or_default().chunk_by(|a, b| a.node == b.node);
            let most = by_node.max_by_key(|placed| (placed.len(), Reverse(placed[0].node)));
            let node = most.map_or(NO_NODE, |placed| placed[0].node);
            self.islands[island].node = node;
            if left {
                self.islands.set_state(island, IslandState::Empty);
                let serial = self.islands[island].serial;
                let until = of_island.iter().filter_map(|placed| placed.kept_until).max();
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
        self.empty_islands.make_contiguous().sort_by_key(|desertion| desertion.until);
    }

    /// Who stands on the other side of the border of an area that keeps its people to themselves has
    /// only just crossed it, and stays in its island until that has lasted.
    fn defer_zone_transitions(&mut self, now: Duration) {
        let islands: Vec<u32> = self.islands.populated().collect();
        for island in islands {
            if self.spatial.single_zone(island).is_some() {
                continue;
            }
            let main = self.majority_zone(island);
            for peer in self.members_of(island) {
                let reaches = &self.spatial.distances;
                if reaches.enclosure(self.spatial.traits(peer).zone()) != reaches.enclosure(main) {
                    self.begin_transition_from(peer, main, now);
                }
            }
        }
    }

    /// Rules decide that would if nothing had changed lately, and nothing moves soon that need not.
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

    /// Whether this is what a peer's client was last told: the ids of island and node, or nothing.
    /// True as well where there is nothing to mend: of a session that is not the present one, of
    /// whoever is in no island that has a node, or is about to be told anyway.
    pub fn matches_last_assignment(
        &self,
        peer: Address,
        session: Option<SessionId>,
        told: Option<(&str, &str)>,
    ) -> bool {
        let Some(peer) = self.peers.find(peer) else { return true };
        let record = &self.peers[peer];
        let mute = record.state != PeerState::Present || record.flags.has(Flags::AWAITING_HEARTBEAT);
        if mute || !self.is_current_session(peer, session) || !self.island_has_node(peer) {
            return true;
        }
        match (self.registry.name(record.last_assigned_node), told) {
            // It was told nothing, or is to be told again.
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

/// Whoever was told of an island and whose cluster is not known is taken to be in that of most of the
/// others there, or, where none is known, in one of their own.
fn infer_clusters(residents: &mut [PeerSnapshot]) {
    let mut known: BTreeMap<IslandId, BTreeMap<String, usize>> = BTreeMap::new();
    for resident in residents.iter() {
        if let (Some(told), Some(cluster)) = (&resident.last_assigned, &resident.cluster) {
            *known.entry(told.island.clone()).or_default().entry(cluster.clone()).or_default() += 1;
        }
    }
    for PeerSnapshot { last_assigned: told, cluster, .. } in
        residents.iter_mut().filter(|resident| resident.cluster.is_none())
    {
        *cluster = told.as_ref().map(|told| {
            let known = known.get(&told.island).into_iter().flatten();
            let most = known.max_by_key(|(_, members)| **members).map(|(cluster, _)| cluster.clone());
            most.unwrap_or_else(|| format!("island {}", told.island))
        });
    }
}

/// Whether a peer is still to be known: it is there, or may still come back.
fn is_in_return_window(resident: &PeerSnapshot, return_window: Duration, now: Duration) -> bool {
    resident.departed_at.is_none_or(|departed| departed.saturating_add(return_window) > now)
}
