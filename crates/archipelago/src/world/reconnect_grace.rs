//! Remembers for the return window the island of each departed peer, so that a peer that reconnects
//! rejoins it.

use std::{collections::VecDeque, time::Duration};

use rustc_hash::FxHashMap;

use crate::{ids::PeerIndex, island_ids::Serial, point::Point};

/// The last islands of departed peers, and the order in which they expire.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReconnectGrace {
    entries: FxHashMap<PeerIndex, LastIsland>,
    queue: VecDeque<(Duration, PeerIndex)>,
}

/// The island, if it was in one, and the position of a peer when it left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastIsland {
    pub(crate) island: Option<Serial>,
    pub(crate) at: Point,
    until: Duration,
}

impl ReconnectGrace {
    pub(crate) fn insert(&mut self, peer: PeerIndex, island: Option<Serial>, at: Point, until: Duration) {
        self.entries.insert(peer, LastIsland { island, at, until });
        self.queue.push_back((until, peer));
    }

    /// Removes and returns the last island of a peer.
    pub(crate) fn take(&mut self, peer: PeerIndex) -> Option<LastIsland> {
        self.entries.remove(&peer)
    }

    pub(crate) fn get(&self, peer: PeerIndex) -> Option<&LastIsland> {
        self.entries.get(&peer)
    }

    /// Removes and returns the next peer with an expired return window.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<PeerIndex> {
        while let Some(&(until, peer)) = self.queue.front() {
            if until > now {
                return None;
            }
            self.queue.pop_front();
            // The peer may have reconnected and left again: then a later entry of the queue is the
            // valid one.
            if self.entries.get(&peer).is_some_and(|last| last.until == until) {
                self.entries.remove(&peer);
                return Some(peer);
            }
        }
        None
    }

    /// Approximate bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(PeerIndex, LastIsland)>() + 1)
            + self.queue.capacity() * size_of::<(Duration, PeerIndex)>()
    }
}
