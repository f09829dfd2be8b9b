//! Emits the outputs of a flush: islands opened and closed, members joined and left, and new
//! assignments.

use std::{sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use crate::{
    event::{AssignedIsland, Output},
    ids::{IslandIndex, NodeIndex, PeerIndex},
    island_ids::{IdCache, Serial},
    world::{Flags, PeerState, World},
};

/// Gives an id to each island that was created in this flush and still has members, in the order of
/// creation.
pub(super) fn emit_opened(world: &mut World, outputs: &mut Vec<Output>) {
    if world.changes.opened_count == 0 {
        return;
    }
    let is_new =
        |&island: &IslandIndex| world.islands[island].serial.is_none() && world.islands.is_populated(island);
    let mut opened: Vec<IslandIndex> = world.changes.changed.iter().copied().filter(is_new).collect();
    opened.sort_unstable_by_key(|&island| world.islands[island].age);
    // An island index may have been freed and reused within the flush, and is then listed twice.
    opened.dedup();
    for island in opened {
        let serial = world.islands.ids.allocate();
        world.islands.assign_serial(island, serial);
        outputs.push(Output::Opened { island: world.islands.ids.island_id(serial) });
    }
    world.changes.opened_count = 0;
}

/// Emits the differences in membership and assignment between the last flush and the end of this one.
pub(super) fn emit_changes(world: &mut World, names: &mut IdCache, now: Duration, outputs: &mut Vec<Output>) {
    for (peer, reported) in std::mem::take(&mut world.changes.missed) {
        outputs.push(Output::AssignmentMissed { peer: world.peers[peer].address, reported });
    }
    let reports = std::mem::take(&mut world.changes.to_report);
    for &peer in &reports {
        emit_membership(world, peer, names, outputs);
    }
    let seats = free_seats(world, &reports);
    let mut assignments = Assignments { now, seats, islands: FxHashMap::default(), names, outputs };
    for peer in reports {
        world.peers[peer].flags.replace(Flags::REPORT_QUEUED, false);
        if !assignments.emit(world, peer) {
            world.queue_report(peer);
        }
        clear_stale_node(world, peer);
    }
}

/// Emits the difference in the membership of one peer.
fn emit_membership(world: &mut World, peer: PeerIndex, names: &mut IdCache, outputs: &mut Vec<Output>) {
    let island = world.spatial.island_of(peer);
    let record = &mut world.peers[peer];
    let before = std::mem::replace(&mut record.reported_island, island);
    let address = record.address;
    // When a peer leaves, all its tokens for the island are revoked. When it joins, the tokens of its
    // older session for the joined island are revoked: otherwise the room would keep the older
    // session's socket because its peer is a member again.
    let taken_over = island.is_some() && record.flags.replace(Flags::TAKEN_OVER, false);
    let session = world.peers.session(peer);
    let mut id = |island: Option<IslandIndex>| {
        let serial = world.islands[island?].serial?;
        Some(names.island_id(&world.islands.ids, serial))
    };
    if taken_over && let Some(island) = id(island) {
        outputs.push(Output::TakenOver { island, peer: address });
    }
    if before == island {
        return;
    }
    if let Some(island) = id(before) {
        outputs.push(Output::Left { island, peer: address, session });
    }
    if let Some(island) = id(island) {
        outputs.push(Output::Joined { island, peer: address, session });
    }
}

/// For each overbooked node, the number of queued peers that can still get a seat: the peers without a
/// seat there, less the seats that are overbooked.
fn free_seats(world: &World, reports: &[PeerIndex]) -> FxHashMap<NodeIndex, u32> {
    let mut seats: FxHashMap<NodeIndex, u32> = FxHashMap::default();
    for &peer in reports {
        let record = &world.peers[peer];
        if record.state == PeerState::Present
            && let Some(island) = world.spatial.island_of(peer)
            && let Some(node) = world.islands[island].node
            && record.last_assigned_node != Some(node)
            && world.nodes.is_overbooked(node)
        {
            *seats.entry(node).or_default() += 1;
        }
    }
    for (&node, seats) in &mut seats {
        *seats = seats.saturating_sub(world.nodes.overbooked_by(node));
    }
    seats
}

/// The assignments of a flush.
struct Assignments<'a> {
    now: Duration,
    /// For each overbooked node, how many more peers can get a seat.
    seats: FxHashMap<NodeIndex, u32>,
    /// The islands that were assigned so far.
    islands: FxHashMap<IslandIndex, Arc<AssignedIsland>>,
    names: &'a mut IdCache,
    outputs: &'a mut Vec<Output>,
}

impl Assignments<'_> {
    /// Emits the assignment of a peer if it differs from its last one. Returns `false` if the peer has
    /// to wait until its node accepts peers again or has a free seat.
    fn emit(&mut self, world: &mut World, peer: PeerIndex) -> bool {
        let Some(island) = world.spatial.island_of(peer) else { return true };
        let record = &world.peers[peer];
        if record.state != PeerState::Present || record.flags.has(Flags::AWAITING_HEARTBEAT) {
            return true;
        }
        let target = &world.islands[island];
        if (record.last_assigned, record.last_assigned_node) == (target.serial, target.node) {
            return true;
        }
        // An island without a node: its members are queued again when it gets one.
        let (Some(serial), Some(node)) = (target.serial, target.node) else { return true };
        if !world.nodes.is_available(node) {
            return false;
        }
        if record.last_assigned_node != Some(node)
            && let Some(seats) = self.seats.get_mut(&node)
        {
            let Some(rest) = seats.checked_sub(1) else { return false };
            *seats = rest;
        }
        let island = self.island(world, island, serial, node);
        let record = &mut world.peers[peer];
        let former = record.last_assigned.replace(serial);
        record.last_assigned_node = Some(node);
        let (address, session) = (record.address, world.peers.session(peer));
        let from = former.map(|serial| self.names.island_id(&world.islands.ids, serial));
        world.peers.assignment_retry.on_assigned(peer, self.now);
        self.outputs.push(Output::Assigned { peer: address, session, island, from });
        true
    }

    /// The content of an island, which is collected once a flush.
    fn island(
        &mut self,
        world: &World,
        island: IslandIndex,
        serial: Serial,
        node: NodeIndex,
    ) -> Arc<AssignedIsland> {
        let names = &mut *self.names;
        let collect = || {
            let transport = world.nodes.transport(node);
            let mut members = Vec::with_capacity(world.spatial.size(island) as usize);
            // Internal iteration: `extend` would ask the nested iterator for one member at a time.
            world.members(island).for_each(|member| members.push(member));
            Arc::new(AssignedIsland {
                id: names.island_id(&world.islands.ids, serial),
                node: transport.node.clone(),
                node_url: transport.public_url.clone(),
                rule: world.rule_name(world.islands[island].rule.index()),
                media: world.media(island),
                members,
            })
        };
        self.islands.entry(island).or_insert_with(collect).clone()
    }
}

/// A peer that changed its island and could not be assigned yet has lost its membership of the old
/// room. If it rejoins the old island, it needs a new connection string: its last node is cleared.
fn clear_stale_node(world: &mut World, peer: PeerIndex) {
    if let Some(island) = world.spatial.island_of(peer)
        && world.islands[island].serial != world.peers[peer].last_assigned
    {
        world.peers[peer].last_assigned_node = None;
    }
}

/// Emits the islands that were closed and frees their indexes.
pub(super) fn emit_closed(world: &mut World, outputs: &mut Vec<Output>) {
    let mut closed = std::mem::take(&mut world.changes.closed);
    for island in closed.drain(..) {
        outputs.extend(world.islands.id(island).map(|island| Output::Closed { island }));
        world.islands.remove(island);
    }
    world.changes.closed = closed;
}
