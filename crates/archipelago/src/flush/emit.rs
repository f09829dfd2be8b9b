//! Emits the outputs of a flush: islands opened and closed, members joined and left, and new
//! assignments.

use rustc_hash::FxHashMap;

use crate::{
    engine::Engine,
    event::Output,
    ids::{IdCache, Serial},
    peers::{Flags, PeerState},
    registry::{NO_NODE, NodeIndex},
    slab::NONE,
};

/// Gives an id to each island that was created in this flush and still has members, in the order of
/// creation.
pub(super) fn emit_opened(engine: &mut Engine, outputs: &mut Vec<Output>) {
    if engine.pending.opened_count == 0 {
        return;
    }
    let is_new =
        |island: &u32| engine.islands[*island].serial == Serial::NONE && engine.islands.is_populated(*island);
    let mut opened: Vec<u32> = engine.pending.changed.iter().copied().filter(is_new).collect();
    opened.sort_unstable_by_key(|&island| engine.islands[island].age);
    // An island number may have been freed and reused within the flush, and then is reports twice.
    opened.dedup();
    for island in opened {
        let serial = engine.ids.allocate();
        engine.islands.assign_serial(island, serial);
        outputs.push(Output::Opened { island: engine.ids.island_id(serial) });
    }
    engine.pending.opened_count = 0;
}

/// Emits the differences in membership and assignment between the last flush and the end of this one.
pub(super) fn emit_changes(engine: &mut Engine, outputs: &mut Vec<Output>) {
    let reports = std::mem::take(&mut engine.pending.to_report);
    let mut names = std::mem::take(&mut engine.scratch.names);
    for &peer in &reports {
        emit_membership(engine, peer, &mut names, outputs);
    }
    let mut seats = free_seats(engine, &reports);
    for peer in reports {
        engine.peers[peer].flags.replace(Flags::REPORT_QUEUED, false);
        if !emit_assignment(engine, peer, &mut seats, &mut names, outputs) {
            engine.queue_report(peer);
        }
        clear_stale_node(engine, peer);
    }
    engine.scratch.names = names;
}

/// Emits the difference in the membership of one peer.
fn emit_membership(engine: &mut Engine, peer: u32, names: &mut IdCache, outputs: &mut Vec<Output>) {
    let island = engine.spatial.island_of(peer);
    let record = &mut engine.peers[peer];
    let before = std::mem::replace(&mut record.reported_island, island);
    let address = record.address;
    // When a peer leaves, all its tokens for the island are revoked. When it joins, the tokens of its
    // older session for the joined island are revoked: otherwise the room would keep the older
    // session's socket because its peer is a member again.
    let taken_over = island != NONE && record.flags.replace(Flags::TAKEN_OVER, false);
    let session = engine.peers.session(peer);
    let mut id = |island: u32| names.island_id(&engine.ids, engine.islands[island].serial);
    if taken_over {
        outputs.push(Output::TakenOver { island: id(island), peer: address });
    }
    if before == island {
        return;
    }
    if before != NONE {
        outputs.push(Output::Left { island: id(before), peer: address, session });
    }
    if island != NONE {
        outputs.push(Output::Joined { island: id(island), peer: address, session });
    }
}

/// For each overbooked node, the number of queued peers that can still get a seat: the peers without a
/// seat there, less the seats that are overbooked.
fn free_seats(engine: &Engine, reports: &[u32]) -> FxHashMap<NodeIndex, u32> {
    let mut seats: FxHashMap<NodeIndex, u32> = FxHashMap::default();
    for &peer in reports {
        let (record, island) = (&engine.peers[peer], engine.spatial.island_of(peer));
        if record.state == PeerState::Present && island != NONE {
            let node = engine.islands[island].node;
            if record.last_assigned_node != node && engine.registry.is_overbooked(node) {
                *seats.entry(node).or_default() += 1;
            }
        }
    }
    for (&node, seats) in &mut seats {
        *seats = seats.saturating_sub(engine.registry.overbooked_by(node));
    }
    seats
}

/// Emits the assignment of a peer if it differs from its last one. Returns `false` if the peer has to
/// wait until its node accepts peers again or has a free seat.
fn emit_assignment(
    engine: &mut Engine,
    peer: u32,
    seats: &mut FxHashMap<NodeIndex, u32>,
    names: &mut IdCache,
    outputs: &mut Vec<Output>,
) -> bool {
    let island = engine.spatial.island_of(peer);
    let record = &engine.peers[peer];
    if record.state != PeerState::Present || record.flags.has(Flags::AWAITING_HEARTBEAT) || island == NONE {
        return true;
    }
    let target = &engine.islands[island];
    if (record.last_assigned, record.last_assigned_node) == (target.serial, target.node) {
        return true;
    }
    // An island without a node: its members are queued again when it gets one.
    let Some(transport) = engine.registry.name(target.node) else { return true };
    if !engine.registry.is_available(target.node) {
        return false;
    }
    if record.last_assigned_node != target.node
        && let Some(seats) = seats.get_mut(&target.node)
    {
        let Some(rest) = seats.checked_sub(1) else { return false };
        *seats = rest;
    }
    let from =
        (record.last_assigned != Serial::NONE).then(|| names.island_id(&engine.ids, record.last_assigned));
    outputs.push(Output::Assigned {
        peer: record.address,
        session: engine.peers.session(peer),
        island: names.island_id(&engine.ids, target.serial),
        transport: transport.clone(),
        from,
    });
    let (serial, node) = (target.serial, target.node);
    let record = &mut engine.peers[peer];
    (record.last_assigned, record.last_assigned_node) = (serial, node);
    true
}

/// A peer that changed its island and could not be assigned yet has lost its membership of the old
/// room. If it rejoins the old island, it needs a new connection string: its last node is cleared.
fn clear_stale_node(engine: &mut Engine, peer: u32) {
    let island = engine.spatial.island_of(peer);
    if island != NONE && engine.islands[island].serial != engine.peers[peer].last_assigned {
        engine.peers[peer].last_assigned_node = NO_NODE;
    }
}

/// Emits the islands that were closed and frees their numbers.
pub(super) fn emit_closed(engine: &mut Engine, outputs: &mut Vec<Output>) {
    let mut closed = std::mem::take(&mut engine.pending.closed);
    for island in closed.drain(..) {
        outputs.push(Output::Closed { island: engine.ids.island_id(engine.islands[island].serial) });
        engine.islands.remove(island);
    }
    engine.pending.closed = closed;
}
