use std::{collections::VecDeque, time::Duration};

use rustc_hash::FxHashMap;

use crate::{ids::Serial, spatial::Point};

/// Where peers were that left lately, so that those who come back are put where they were.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReconnectGrace {
    entries: FxHashMap<u32, LastIsland>,
    queue: VecDeque<(Duration, u32)>,
}

/// Where a peer was when it left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastIsland {
    pub(crate) island: Serial,
    pub(crate) at: Point,
    until: Duration,
}

impl ReconnectGrace {
    pub(crate) fn insert(&mut self, peer: u32, island: Serial, at: Point, until: Duration) {
        self.entries.insert(peer, LastIsland { island, at, until });
        self.queue.push_back((until, peer));
    }

    /// Where the peer was, once.
    pub(crate) fn take(&mut self, peer: u32) -> Option<LastIsland> {
        self.entries.remove(&peer)
    }

    pub(crate) fn get(&self, peer: u32) -> Option<&LastIsland> {
        self.entries.get(&peer)
    }

    /// Forgets, and returns, the next peer whose time to return has passed.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<u32> {
        while let Some(&(until, peer)) = self.queue.front() {
            if until > now {
                return None;
            }
            self.queue.pop_front();
            // It may have returned, and left again later.
            if self.entries.get(&peer).is_some_and(|memory| memory.until == until) {
                self.entries.remove(&peer);
                return Some(peer);
            }
        }
        None
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(u32, LastIsland)>() + 1)
            + self.queue.capacity() * size_of::<(Duration, u32)>()
    }
}
