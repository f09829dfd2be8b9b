//! Removes peers that disconnected, timed out or lost their cluster from their islands, and forgets
//! them after the return window.

use std::time::Duration;

use crate::{
    ids::{IslandIndex, PeerIndex},
    world::{EmptyIsland, Flags, IslandState, PeerState, World},
};

/// Marks peers as departed that sent nothing for longer than the `silence` setting. It scans all peers,
/// but only when the earliest deadline seen by the last scan has passed.
pub(super) fn time_out_peers(world: &mut World, silence: Duration, now: Duration) {
    if now < world.peers.next_silence_check {
        return;
    }
    let mut due = now.saturating_add(silence);
    let mut silent = Vec::new();
    for peer in world.peers.known() {
        let record = &world.peers[peer];
        let deadline = record.last_seen().saturating_add(silence);
        match record.state {
            PeerState::Departed | PeerState::Forgotten => {}
            PeerState::Connected | PeerState::Present if deadline <= now => silent.push(peer),
            PeerState::Connected | PeerState::Present => due = due.min(deadline),
        }
    }
    world.peers.next_silence_check = due;
    for peer in silent {
        match world.peers[peer].state {
            PeerState::Connected => world.remove_peer(peer),
            _ => {
                world.peers[peer].flags.replace(Flags::TIMED_OUT, true);
                world.mark_departed(peer);
            }
        }
    }
}

/// Removes departed peers from their islands, and remembers the island and the position of each for the
/// return window.
pub(super) fn remove_departed(world: &mut World, return_window: Duration, now: Duration) {
    let until = now.saturating_add(return_window);
    let leaving = std::mem::take(&mut world.changes.leaving);
    for &peer in &leaving {
        if world.peers[peer].state != PeerState::Departed {
            continue;
        }
        let at = world.spatial.position(peer);
        if let Some(island) = world.spatial.island_of(peer) {
            world.peers.reconnect_grace.insert(peer, world.islands[island].serial, at, until);
            remove_member(world, peer, island, until);
        } else if world.peers.reconnect_grace.get(peer).is_none() {
            // It arrived and left between two flushes. Its record is kept all the same, so that an
            // older session stays rejected.
            world.peers.reconnect_grace.insert(peer, None, at, until);
        }
    }
    world.changes.leaving = leaving;
    world.changes.leaving.clear();
}

/// Removes peers from their islands that are still in the world but no longer in a cluster.
pub(super) fn remove_unclustered(world: &mut World, now: Duration) {
    for peer in std::mem::take(&mut world.changes.unclustered) {
        if let Some(island) = world.spatial.island_of(peer)
            && !world.is_placeable(peer)
        {
            remove_member(world, peer, island, now);
        }
    }
}

/// Removes a member from its island. If the island is empty then, it is kept until `kept_until`.
fn remove_member(world: &mut World, peer: PeerIndex, island: IslandIndex, kept_until: Duration) {
    // Its membership of the room ends too: if it rejoins, it needs a new connection string.
    world.peers[peer].last_assigned_node = None;
    world.spatial.remove_member(peer);
    world.zone_transitions.remove(peer);
    world.queue_report(peer);
    world.mark_dirty(island);
    world.mark_changed(island);
    keep_empty_island(world, island, kept_until);
}

/// Keeps an island that has no members left until `until`, so that they can rejoin it.
fn keep_empty_island(world: &mut World, island: IslandIndex, until: Duration) {
    if world.spatial.size(island) > 0 {
        return;
    }
    world.islands.set_state(island, IslandState::Empty);
    if let Some(serial) = world.islands[island].serial {
        world.islands.empty.push_back(EmptyIsland { island, serial, until });
    }
}

/// Forgets departed peers after their return window, and closes empty islands that were kept for them.
pub(super) fn expire_grace(world: &mut World, now: Duration) {
    while let Some(peer) = world.peers.reconnect_grace.expire(now) {
        if world.peers[peer].state == PeerState::Departed {
            world.remove_peer(peer);
        }
    }
    while let Some(&EmptyIsland { island, serial, until }) = world.islands.empty.front() {
        if until > now {
            return;
        }
        world.islands.empty.pop_front();
        let record = &world.islands[island];
        // A peer may have rejoined it and left again later.
        let kept_longer = world.islands.empty.iter().any(|other| other.serial == serial);
        if record.serial == Some(serial) && record.state == IslandState::Empty && !kept_longer {
            world.close_island(island);
        }
    }
}
