//! Removes peers that disconnected, timed out or lost their cluster from their islands, and forgets
//! them after the return window.

use std::time::Duration;

use crate::{
    engine::Engine,
    ids::Serial,
    islands::{EmptyIsland, IslandState},
    peers::{Flags, PeerState},
    registry::NO_NODE,
    slab::NONE,
};

/// Marks peers as departed that sent nothing for longer than the `silence` setting. It scans all peers,
/// but only when the earliest deadline seen by the last scan has passed.
pub(super) fn time_out_peers(engine: &mut Engine, now: Duration) {
    if now < engine.next_silence_check {
        return;
    }
    let silence = engine.settings.silence;
    let mut due = now.saturating_add(silence);
    let mut silent = Vec::new();
    for peer in engine.peers.known() {
        let record = &engine.peers[peer];
        let deadline = record.last_seen().saturating_add(silence);
        match record.state {
            PeerState::Departed | PeerState::Forgotten => {}
            PeerState::Connected | PeerState::Present if deadline <= now => silent.push(peer),
            PeerState::Connected | PeerState::Present => due = due.min(deadline),
        }
    }
    engine.next_silence_check = due;
    for peer in silent {
        match engine.peers[peer].state {
            PeerState::Connected => remove_peer(engine, peer),
            _ => {
                engine.peers[peer].flags.replace(Flags::TIMED_OUT, true);
                engine.mark_departed(peer);
            }
        }
    }
}

/// Removes departed peers from their islands, and remembers the island and the position of each for the
/// return window.
pub(super) fn remove_departed(engine: &mut Engine, now: Duration) {
    let until = now.saturating_add(engine.settings.return_window);
    let leaving = std::mem::take(&mut engine.pending.leaving);
    for &peer in &leaving {
        if engine.peers[peer].state != PeerState::Departed {
            continue;
        }
        let at = engine.spatial.position(peer);
        let island = engine.spatial.island_of(peer);
        if island != NONE {
            engine.reconnect_grace.insert(peer, engine.islands[island].serial, at, until);
            remove_member(engine, peer, island, until);
        } else if engine.reconnect_grace.get(peer).is_none() {
            // It arrived and left between two flushes. Its record is kept all the same, so that an
            // older session stays rejected.
            engine.reconnect_grace.insert(peer, Serial::NONE, at, until);
        }
    }
    engine.pending.leaving = leaving;
    engine.pending.leaving.clear();
}

/// Removes peers from their islands that are still in the world but no longer in a cluster.
pub(super) fn remove_unclustered(engine: &mut Engine, now: Duration) {
    for peer in std::mem::take(&mut engine.pending.unclustered) {
        let island = engine.spatial.island_of(peer);
        if island != NONE && !engine.is_placeable(peer) {
            remove_member(engine, peer, island, now);
        }
    }
}

/// Removes a member from its island. If the island is empty then, it is kept until `kept_until`.
fn remove_member(engine: &mut Engine, peer: u32, island: u32, kept_until: Duration) {
    // Its membership of the room ends too: if it rejoins, it needs a new connection string.
    engine.peers[peer].last_assigned_node = NO_NODE;
    engine.spatial.remove_member(peer);
    engine.zone_transitions.remove(peer);
    engine.queue_report(peer);
    engine.mark_dirty(island);
    engine.mark_changed(island);
    keep_empty_island(engine, island, kept_until);
}

/// Keeps an island that has no members left until `until`, so that they can rejoin it.
fn keep_empty_island(engine: &mut Engine, island: u32, until: Duration) {
    if engine.spatial.size(island) > 0 {
        return;
    }
    engine.islands.set_state(island, IslandState::Empty);
    let serial = engine.islands[island].serial;
    engine.empty_islands.push_back(EmptyIsland { island, serial, until });
}

/// Forgets departed peers after their return window, and closes empty islands that were kept for them.
pub(super) fn expire_grace(engine: &mut Engine, now: Duration) {
    while let Some(peer) = engine.reconnect_grace.expire(now) {
        if engine.peers[peer].state == PeerState::Departed {
            remove_peer(engine, peer);
        }
    }
    while let Some(&EmptyIsland { island, serial, until }) = engine.empty_islands.front() {
        if until > now {
            return;
        }
        engine.empty_islands.pop_front();
        let record = &engine.islands[island];
        // A peer may have rejoined it and left again later.
        let kept_longer = engine.empty_islands.iter().any(|other| other.serial == serial);
        if record.serial == serial && record.state == IslandState::Empty && !kept_longer {
            engine.close_island(island);
        }
    }
}

/// Removes all data of a peer that is in no island.
fn remove_peer(engine: &mut Engine, peer: u32) {
    engine.preferred_island.remove(&peer);
    engine.client_transports.remove(&peer);
    engine.stale_heartbeats.remove(&peer);
    engine.zone_transitions.remove(peer);
    engine.spatial.remove_peer(peer);
    engine.set_cluster(peer, None);
    engine.peers.remove(peer);
}
