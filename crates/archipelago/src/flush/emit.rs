use rustc_hash::FxHashMap;

use crate::{
    engine::Engine,
    event::Output,
    ids::{IdCache, Serial},
    peers::{Flags, PeerState},
    registry::{NO_NODE, NodeIndex},
    slab::NONE,
};

/// Gives an id to each island that began in this flush and is still there, in the order of their
/// making.
pub(super) fn emit_opened(engine: &mut Engine, outputs: &mut Vec<Output>) {
    if engine.pending.opened_count == 0 {
        return;
    }
    let is_new =
        |island: &u32| engine.islands[*island].serial == Serial::NONE && engine.islands.is_populated(*island);
    let mut opened: Vec<u32> = engine.pending.changed.iter().copied().filter(is_new).collect();
    opened.sort_unstable_by_key(|&island| engine.islands[island].age);
    // A number may have been given up and taken again within the flush.
    opened.dedup();
    for island in opened {
        let serial = engine.ids.allocate();
        engine.islands.assign_serial(island, serial);
        outputs.push(Output::Opened { island: engine.ids.island_id(serial) });
    }
    engine.pending.opened_count = 0;
}

/// Tells what changed between the last flush and the end of this one.
pub(super) fn emit_changes(engine: &mut Engine, outputs: &mut Vec<Output>) {
    let listed = std::mem::take(&mut engine.pending.to_report);
    let mut names = std::mem::take(&mut engine.scratch.names);
    for &peer in &listed {
        emit_membership(engine, peer, &mut names, outputs);
    }
    let mut seats = free_seats(engine, &listed);
    for peer in listed {
        engine.peers[peer].flags.replace(Flags::REPORT_QUEUED, false);
        if !emit_assignment(engine, peer, &mut seats, &mut names, outputs) {
            engine.queue_report(peer);
        }
        clear_stale_node(engine, peer);
    }
    engine.scratch.names = names;
}

/// Reports the difference in membership.
fn emit_membership(engine: &mut Engine, peer: u32, names: &mut IdCache, outputs: &mut Vec<Output>) {
    let island = engine.spatial.island_of(peer);
    let record = &mut engine.peers[peer];
    let before = std::mem::replace(&mut record.reported_island, island);
    let address = record.address;
    // All tokens of a peer that leaves are revoked. For a peer that joins, those of the island that it joins
    // are: the room must not keep the older session's socket because its peer returned.
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

/// How many of those who have no seat yet can have one, of nodes that were promised to more people
/// than they have seats for.
fn free_seats(engine: &Engine, listed: &[u32]) -> FxHashMap<NodeIndex, u32> {
    let mut seats: FxHashMap<NodeIndex, u32> = FxHashMap::default();
    for &peer in listed {
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

/// Tells a peer where it is, if that is not what it was told last. Returns `false` if it must wait
/// until its node takes more peers, or has a seat for it.
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
    let place = &engine.islands[island];
    if (record.last_assigned, record.last_assigned_node) == (place.serial, place.node) {
        return true;
    }
    // Without a node it waits with its island, whose members are listed when one is found.
    let Some(transport) = engine.registry.name(place.node) else { return true };
    if !engine.registry.is_available(place.node) {
        return false;
    }
    if record.last_assigned_node != place.node
        && let Some(seats) = seats.get_mut(&place.node)
    {
        let Some(rest) = seats.checked_sub(1) else { return false };
        *seats = rest;
    }
    let from =
        (record.last_assigned != Serial::NONE).then(|| names.island_id(&engine.ids, record.last_assigned));
    outputs.push(Output::Assigned {
        peer: record.address,
        session: engine.peers.session(peer),
        island: names.island_id(&engine.ids, place.serial),
        transport: transport.clone(),
        from,
    });
    let (told, told_node) = (place.serial, place.node);
    let record = &mut engine.peers[peer];
    (record.last_assigned, record.last_assigned_node) = (told, told_node);
    true
}

/// Whoever is no longer where it was told, and could not be told where it is, has lost its place in the
/// room all the same: if it returns, it needs another connection.
fn clear_stale_node(engine: &mut Engine, peer: u32) {
    let island = engine.spatial.island_of(peer);
    if island != NONE && engine.islands[island].serial != engine.peers[peer].last_assigned {
        engine.peers[peer].last_assigned_node = NO_NODE;
    }
}

/// Reports the islands that are no more, and gives up their numbers.
pub(super) fn emit_closed(engine: &mut Engine, outputs: &mut Vec<Output>) {
    let mut closed = std::mem::take(&mut engine.pending.closed);
    for island in closed.drain(..) {
        outputs.push(Output::Closed { island: engine.ids.island_id(engine.islands[island].serial) });
        engine.islands.remove(island);
    }
    engine.pending.closed = closed;
}
