//! Resuming: a new engine that continues with the islands of an engine that was lost, rebuilt from the
//! last assignments of clients.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use protocol::IslandId;

use crate::{
    engine::Engine,
    event::Input,
    flush,
    ids::{IslandIndex, NodeIndex, PeerIndex},
    island_ids::IslandIds,
    point::{Point, is_in_world_bounds},
    settings::{Settings, SettingsError},
    snapshot::{EngineSnapshot, PeerSnapshot},
    world::{EmptyIsland, IslandRule, IslandState, PeerState, PlacementState, World},
};

/// A peer that was restored, and its last assignment.
struct RestoredMember {
    island: IslandIndex,
    /// Set for a departed peer: the end of its return window.
    kept_until: Option<Duration>,
    node: Option<NodeIndex>,
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
        if engine.world.clusters.is_some() {
            infer_clusters(&mut peers);
        }
        let Self { settings, world, .. } = &mut engine;
        restore_islands(world, IslandIds::resume(&settings.id_prefix, started_ms, island_ids(&peers)));
        let members = peers.into_iter().filter_map(|peer| restore_peer(world, peer, window)).collect();
        restore_nodes(world, members);
        defer_zone_transitions(world, now);
        flush::refresh(world, settings, now);
        init_placement(world, now);
        world.changes.restored = true;
        Ok(engine)
    }
}

/// The ids of the islands of the last assignments, each once.
fn island_ids(peers: &[PeerSnapshot]) -> Vec<IslandId> {
    let assignments = peers.iter().filter_map(|peer| peer.last_assigned.as_ref());
    let mut ids: Vec<IslandId> = assignments.map(|assignment| assignment.island.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Creates the islands with these ids, the oldest first, without members.
fn restore_islands(world: &mut World, ids: IslandIds) {
    for serial in ids.restored() {
        let island = world.islands.add(serial.number());
        world.islands.assign_serial(island, serial);
        world.spatial.add_island(island);
    }
    world.islands.ids = ids;
}

/// Restores a peer as a member of the island that it was assigned to.
fn restore_peer(world: &mut World, peer: PeerSnapshot, return_window: Duration) -> Option<RestoredMember> {
    let PeerSnapshot { peer: address, session, transports, position, desired_room, last_assigned, .. } = peer;
    let PeerSnapshot { needs_assignment, cluster, last_seen, departed_at, taken_over, .. } = peer;
    let peer = world.sender(address, session, None)?;
    let at = Point::from(position);
    world.set_position(peer, at);
    world.set_cluster(peer, cluster.as_deref());
    world.enter_current_zone(peer);
    if transports.is_some() {
        world.peers.set_transports(peer, transports);
        world.update_capabilities(peer);
    }
    let serial = last_assigned.as_ref().and_then(|last| world.islands.ids.serial(last.island.as_str()));
    let island = serial.and_then(|serial| world.islands.find(serial));
    let node = last_assigned.and_then(|last| world.nodes.find_or_add(&last.node));
    let record = &mut world.peers[peer];
    record.set_last_seen(last_seen);
    record.height_m = position.y;
    let kept_until = departed_at.map(|departed| departed.saturating_add(return_window));
    if let Some(until) = kept_until {
        world.peers.set_state(peer, PeerState::Departed);
        world.peers.reconnect_grace.insert(peer, serial, at, until);
    } else {
        world.peers.set_state(peer, PeerState::Present);
        match island {
            Some(island) => {
                let record = &mut world.peers[peer];
                record.reported_island = Some(island);
                if !needs_assignment {
                    (record.last_assigned, record.last_assigned_node) = (serial, node);
                }
                world.spatial.add_member(peer, island);
            }
            None => world.changes.joining.push(peer),
        }
    }
    if taken_over {
        world.mark_taken_over(peer);
    }
    if let Some(room) = desired_room {
        world.set_preferred_island(peer, &room);
    }
    island.map(|island| RestoredMember { island, kept_until, node })
}

/// Sets the node of each island to the node that most members were assigned to; if all members
/// departed, most of those. Members with another node, or without an assignment, get a new one.
fn restore_nodes(world: &mut World, mut members: Vec<RestoredMember>) {
    members.sort_unstable_by_key(|member| (member.island, member.kept_until.is_some(), member.node));
    for of_island in members.chunk_by(|a, b| a.island == b.island) {
        let (island, left) = (of_island[0].island, of_island[0].kept_until.is_some());
        let mut counted = of_island.chunk_by(|a, b| a.kept_until.is_some() == b.kept_until.is_some());
        let by_node = counted.next().unwrap_or_default().chunk_by(|a, b| a.node == b.node);
        let rank = |node: Option<NodeIndex>| (node.is_some(), Reverse(node));
        let most = by_node.max_by_key(|members| (members.len(), rank(members[0].node)));
        let node = most.and_then(|members| members[0].node);
        world.islands[island].node = node;
        if left {
            world.islands.set_state(island, IslandState::Empty);
            let until = of_island.iter().filter_map(|member| member.kept_until).max();
            if let (Some(serial), Some(until)) = (world.islands[island].serial, until) {
                world.islands.empty.push_back(EmptyIsland { island, serial, until });
            }
            continue;
        }
        let size = world.spatial.size(island);
        world.islands[island].reserved_seats = size;
        if let Some(node) = node {
            world.nodes.reserve(node, 0, size);
        }
        world.mark_dirty(island);
        for peer in members_of(world, island) {
            if world.peers[peer].last_assigned_node != node {
                world.queue_report(peer);
            }
        }
    }
    world.islands.empty.make_contiguous().sort_by_key(|empty| empty.until);
}

/// A member beyond the border of an enclosure is treated as if it had just crossed the border: it
/// stays in its island until the settling time has passed.
fn defer_zone_transitions(world: &mut World, now: Duration) {
    let islands: Vec<IslandIndex> = world.islands.populated().collect();
    for island in islands {
        if world.spatial.single_zone(island).is_some() {
            continue;
        }
        let main = world.majority_zone(island);
        for peer in members_of(world, island) {
            let distances = &world.spatial.distances;
            if distances.enclosure(world.spatial.traits(peer).zone()) != distances.enclosure(main) {
                world.begin_transition_from(peer, main, now);
            }
        }
    }
}

/// Sets the rule of each island to the one that applies now, and starts the move cooldown of each,
/// so that no island moves soon for an improvement only.
fn init_placement(world: &mut World, now: Duration) {
    let islands: Vec<IslandIndex> = world.islands.populated().collect();
    for island in islands {
        let (zone, size) = (world.majority_zone(island), world.spatial.size(island));
        world.islands[island].rule = IslandRule::decided(world.zones.rule_for(zone, size));
        let state = PlacementState { moved_at: Some(now), ..PlacementState::default() };
        world.islands.placements.set_state(island, state);
    }
}

fn members_of(world: &World, island: IslandIndex) -> Vec<PeerIndex> {
    world.spatial.members(island).map(|member| member.peer).collect()
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
