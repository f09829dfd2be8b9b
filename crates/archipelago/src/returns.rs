use std::{collections::VecDeque, time::Duration};

use rustc_hash::FxHashMap;

use crate::{ground::Point, ids::Serial};

/// Where peers were that left lately, so that those who come back are put where they were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Returns {
    memories: FxHashMap<u32, Memory>,
    queue: VecDeque<(Duration, u32)>,
}

/// Where a peer was when it left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) island: Serial,
    pub(crate) at: Point,
    until: Duration,
}

impl Returns {
    pub(crate) fn remember(&mut self, peer: u32, island: Serial, at: Point, until: Duration) {
        self.memories.insert(peer, Memory { island, at, until });
        self.queue.push_back((until, peer));
    }

    /// Where the peer was, once.
    pub(crate) fn recall(&mut self, peer: u32) -> Option<Memory> {
        self.memories.remove(&peer)
    }

    pub(crate) fn of(&self, peer: u32) -> Option<&Memory> {
        self.memories.get(&peer)
    }

    /// Forgets, and returns, the next peer whose time to return has passed.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<u32> {
        while let Some(&(until, peer)) = self.queue.front() {
            if until > now {
                return None;
            }
            self.queue.pop_front();
            // It may have returned, and left again later.
            if self.memories.get(&peer).is_some_and(|memory| memory.until == until) {
                self.memories.remove(&peer);
                return Some(peer);
            }
        }
        None
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.memories.capacity() * (size_of::<(u32, Memory)>() + 1)
            + self.queue.capacity() * size_of::<(Duration, u32)>()
    }
}
