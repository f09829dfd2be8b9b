//! A shard: one task that reads and writes the sockets of its rooms.
//!
//! An active shard looks at its sockets every few milliseconds instead of being woken for each message: at each
//! look it reads the sockets that became readable, flushes the rooms in which frames have waited long enough,
//! and writes to their members. Most of the cost of a delivery is the system call of its write and the switch
//! to the task that makes it; here many frames share both. A silent shard sleeps until its first readable
//! socket wakes it.

use std::{
    collections::{BTreeSet, VecDeque},
    future, io, mem,
    ops::ControlFlow,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use mio::{Events, Poll};
use rustc_hash::FxHashMap;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task,
    time::{self, Instant},
};

use crate::shard_handle::{Flush, MemberSocket, ShardHandle};

/// The task of a shard.
pub(crate) struct Shard {
    handle: Arc<ShardHandle>,
    /// How long a room collects frames before it is flushed.
    flush_interval: Duration,
    members: FxHashMap<u32, Member>,
    /// When members are due to be served although nothing is ready: one entry for each member.
    timers: BTreeSet<(Instant, u32)>,
    /// Rooms to flush, in the order of their oldest frames.
    rooms: VecDeque<(Instant, Arc<dyn Flush>)>,
    turns: VecDeque<Turn>,
    next_look: Instant,
    /// The TCP sockets of the members.
    poll: Poll,
    events: Events,
}

struct Member {
    socket: Box<dyn MemberSocket>,
    /// Its entry in `timers`.
    timer: Option<Instant>,
}

/// A part of the work of a look.
enum Turn {
    /// Read and write these members: those of one look or one room.
    Serve(Vec<u32>),
    Flush(Arc<dyn Flush>),
}

/// A poll that the runtime watches, so that its first event wakes a silent shard. The runtime does not watch it
/// while the shard is active: each packet would wake a thread.
struct WatchedPoll<'a>(&'a Poll);

impl AsRawFd for WatchedPoll<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[expect(deprecated, reason = "its replacement is unsafe; the borrowed poll keeps the descriptor open")]
fn watch(poll: &Poll) -> io::Result<AsyncFd<WatchedPoll<'_>>> {
    AsyncFd::with_interest(WatchedPoll(poll), Interest::READABLE)
}

/// How long a silent shard sleeps if the runtime cannot watch its poll.
const RETRY: Duration = Duration::from_millis(100);
/// Members that are served in one turn. Then the next list has its turn.
const TURN: usize = 64;
/// Time of work after which other tasks run, at the end of a turn.
const YIELD_AFTER: Duration = Duration::from_millis(3);
/// A shard without work for this long sleeps. To watch and to unwatch its poll takes the kernel time in
/// proportion to the number of members, so a shard with a little work stays awake.
const SILENT_AFTER: Duration = Duration::from_millis(100);
/// Looks in one flush interval: every 2 ms by default, of which the runtime's timer makes 3 ms. A message waits
/// for up to half a look longer than the flush interval, and up to one look before that. Fewer looks cost less
/// in a room of 50, and more in larger loads.
const LOOKS_PER_FLUSH: u32 = 7;
/// Sockets that one system call reports.
const EVENTS: usize = 1024;

impl Shard {
    /// A shard without members.
    ///
    /// # Errors
    ///
    /// The error of the operating system, if it has no file descriptor left.
    pub(crate) fn new(handle: Arc<ShardHandle>, flush_interval: Duration) -> io::Result<Self> {
        Ok(Self {
            handle,
            flush_interval,
            members: FxHashMap::default(),
            timers: BTreeSet::new(),
            rooms: VecDeque::new(),
            turns: VecDeque::new(),
            next_look: Instant::now(),
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
        })
    }

    /// Serves the sockets; does not return.
    pub(crate) async fn run(mut self) {
        let look_interval = self.look_interval();
        let (mut worked_at, mut resumed_at) = (Instant::now(), Instant::now());
        loop {
            let now = Instant::now();
            if now >= self.next_look {
                self.look(now);
                self.next_look = now + look_interval;
            }
            if !self.turns.is_empty() || !self.rooms.is_empty() {
                worked_at = now;
            }
            if self.take_turn() {
                if now < resumed_at + YIELD_AFTER {
                    continue;
                }
                task::yield_now().await;
            } else if now < worked_at + SILENT_AFTER {
                time::sleep_until(self.next_look).await;
            } else {
                self.sleep().await;
                self.next_look = Instant::now();
            }
            resumed_at = Instant::now();
        }
    }

    fn look_interval(&self) -> Duration {
        (self.flush_interval / LOOKS_PER_FLUSH).max(Duration::from_millis(1))
    }

    /// Collects the work. The members that are ready come first, so that the messages that have arrived from
    /// them are part of the batches that are flushed.
    fn look(&mut self, now: Instant) {
        self.take_inbox();
        self.poll_sockets();
        self.take_due_members(now);
        // Each room is flushed at the look that is closest to the flush interval after its oldest frame.
        let (interval, horizon) = (self.flush_interval, now + self.look_interval() / 2);
        let due = self.rooms.iter().take_while(|(oldest, _)| *oldest + interval <= horizon).count();
        self.turns.extend(self.rooms.drain(..due).map(|(_, room)| Turn::Flush(room)));
    }

    fn take_inbox(&mut self) {
        let inbox = self.handle.take();
        self.rooms.extend(inbox.rooms);
        self.add_turn(inbox.ready);
        let mut added = Vec::new();
        for mut socket in inbox.sockets {
            if let Err(error) = socket.register(self.poll.registry()) {
                tracing::warn!(%error, "a socket was closed: it could not be registered");
                socket.end(self.poll.registry());
                continue;
            }
            added.push(socket.alias());
            self.members.insert(socket.alias(), Member { socket, timer: None });
        }
        self.add_turn(added);
    }

    /// Lists the members with sockets that became readable or writable.
    fn poll_sockets(&mut self) {
        loop {
            if let Err(error) = self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                // An interrupted poll is repeated at the next look.
                tracing::debug!(%error, "sockets could not be polled");
                return;
            }
            let mut ready = Vec::new();
            for event in &self.events {
                let alias = event.token().0 as u32;
                if let Some(member) = self.members.get_mut(&alias)
                    && member.socket.set_ready(event)
                {
                    ready.push(alias);
                }
            }
            self.add_turn(ready);
            if self.events.iter().count() < EVENTS {
                return;
            }
        }
    }

    fn take_due_members(&mut self, now: Instant) {
        let mut due = Vec::new();
        while let Some(&(at, alias)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(member) = self.members.get_mut(&alias) {
                member.timer = None;
                due.push(alias);
            }
        }
        self.add_turn(due);
    }

    fn add_turn(&mut self, members: Vec<u32>) {
        if !members.is_empty() {
            self.turns.push_back(Turn::Serve(members));
        }
    }

    /// Does the next part of the work; returns whether there was any.
    fn take_turn(&mut self) -> bool {
        match self.turns.pop_front() {
            None => return false,
            Some(Turn::Serve(mut members)) => {
                let rest = members.split_off(members.len().min(TURN));
                self.add_turn(rest);
                let now = Instant::now();
                members.into_iter().for_each(|alias| self.serve(alias, now));
            }
            Some(Turn::Flush(room)) => {
                room.flush();
                let members = self.handle.take_ready();
                self.add_turn(members);
            }
        }
        true
    }

    fn serve(&mut self, alias: u32, now: Instant) {
        let Some(member) = self.members.get_mut(&alias) else { return };
        let timer = match member.socket.serve(now) {
            ControlFlow::Continue(due) => Some(due),
            ControlFlow::Break(()) => None,
        };
        if member.timer != timer {
            if let Some(at) = mem::replace(&mut member.timer, timer) {
                self.timers.remove(&(at, alias));
            }
            self.timers.extend(timer.map(|at| (at, alias)));
        }
        if timer.is_none()
            && let Some(Member { socket, .. }) = self.members.remove(&alias)
        {
            socket.end(self.poll.registry());
        }
    }

    /// Sleeps until the next timer, or until anything becomes ready.
    async fn sleep(&mut self) {
        let due = self.timers.first().map(|&(due, _)| due);
        let timer = async {
            match due {
                Some(due) => time::sleep_until(due).await,
                None => future::pending().await,
            }
        };
        let readable = async {
            match watch(&self.poll) {
                Ok(poll) => drop(poll.readable().await),
                Err(_) => time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            () = self.handle.reported() => {}
            () = timer => {}
            () = readable => {}
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.handle.end();
    }
}

#[cfg(test)]
mod tests;
