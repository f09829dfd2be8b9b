use std::time::Duration;

use crate::{
    engine::Engine,
    ids::Serial,
    islands::{Desertion, IslandState},
    peers::{Flags, State},
    registry::NO_NODE,
    slab::NONE,
};

/// Lets those go that were not heard for too long. Looks at everybody, but only when the one that
/// was silent longest at the last look could have become too silent since.
pub(super) fn fall_silent(engine: &mut Engine, now: Duration) {
    if now < engine.silence_due {
        return;
    }
    let silence = engine.settings.silence;
    let mut due = now.saturating_add(silence);
    let mut silent = Vec::new();
    for peer in engine.peers.known() {
        let record = &engine.peers[peer];
        let deadline = record.last_heard().saturating_add(silence);
        match record.state {
            State::Departed | State::Forgotten => {}
            State::Known | State::Present if deadline <= now => silent.push(peer),
            State::Known | State::Present => due = due.min(deadline),
        }
    }
    engine.silence_due = due;
    for peer in silent {
        match engine.peers[peer].state {
            State::Known => forget_peer(engine, peer),
            _ => {
                engine.peers[peer].flags.replace(Flags::SILENT, true);
                engine.depart(peer);
            }
        }
    }
}

/// Takes those who left out of their islands, and remembers where they were.
pub(super) fn take_out(engine: &mut Engine, now: Duration) {
    let until = now.saturating_add(engine.settings.return_window);
    let leaving = std::mem::take(&mut engine.pending.leaving);
    for &peer in &leaving {
        if engine.peers[peer].state != State::Departed {
            continue;
        }
        let at = engine.ground.spot(peer);
        let island = engine.ground.island_of(peer);
        if island != NONE {
            engine.returns.remember(peer, engine.islands[island].serial, at, until);
            take(engine, peer, island, until);
        } else if engine.returns.of(peer).is_none() {
            // It came and went between two flushes. Its session is remembered all the same.
            engine.returns.remember(peer, Serial::NONE, at, until);
        }
    }
    engine.pending.leaving = leaving;
    engine.pending.leaving.clear();
}

/// Takes those out of their islands who are still in the world, and in no cluster any more.
pub(super) fn take_out_unclustered(engine: &mut Engine, now: Duration) {
    for peer in std::mem::take(&mut engine.pending.unclustered) {
        let island = engine.ground.island_of(peer);
        if island != NONE && !engine.belongs(peer) {
            take(engine, peer, island, now);
        }
    }
}

fn take(engine: &mut Engine, peer: u32, island: u32, kept_until: Duration) {
    // Its place in the room ends too: if it returns, it needs another connection.
    engine.peers[peer].told_node = NO_NODE;
    engine.ground.take(peer);
    engine.crossings.forget(peer);
    engine.list(peer);
    engine.mark_dirty(island);
    engine.mark_changed(island);
    desert_if_empty(engine, island, kept_until);
}

fn desert_if_empty(engine: &mut Engine, island: u32, until: Duration) {
    if engine.ground.size(island) > 0 {
        return;
    }
    engine.islands.set_state(island, IslandState::Deserted);
    let serial = engine.islands[island].serial;
    engine.deserted.push_back(Desertion { island, serial, until });
}

/// Forgets those whose time to return has passed, and ends the islands that were kept for them.
pub(super) fn forget(engine: &mut Engine, now: Duration) {
    while let Some(peer) = engine.returns.expire(now) {
        if engine.peers[peer].state == State::Departed {
            forget_peer(engine, peer);
        }
    }
    while let Some(&Desertion { island, serial, until }) = engine.deserted.front() {
        if until > now {
            return;
        }
        engine.deserted.pop_front();
        let record = &engine.islands[island];
        // Somebody may have returned to it, and left again later.
        let kept_longer = engine.deserted.iter().any(|other| other.serial == serial);
        if record.serial == serial && record.state == IslandState::Deserted && !kept_longer {
            engine.close_island(island);
        }
    }
}

fn forget_peer(engine: &mut Engine, peer: u32) {
    engine.wishes.remove(&peer);
    engine.announced.remove(&peer);
    engine.replaced.remove(&peer);
    engine.crossings.forget(peer);
    engine.ground.dismiss_peer(peer);
    engine.set_cluster(peer, None);
    engine.peers.forget(peer);
}
