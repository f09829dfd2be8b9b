//! The reports of other tasks to a shard, and the traits of the rooms and sockets that it serves.

use std::{
    fmt, io, mem,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Release},
        },
    },
    task::Wake,
};

use mio::{Registry, event::Event};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// A room of a shard.
pub(crate) trait Flush: Send + Sync {
    /// Queues the collected messages for each member.
    fn flush(&self);
}

/// The socket of a member of a shard.
pub(crate) trait MemberSocket: Send {
    /// The token of the member in the shard's poll.
    fn alias(&self) -> u32;

    /// Registers the socket with the shard that serves it.
    ///
    /// # Errors
    ///
    /// The error of the operating system; the socket cannot be served.
    fn register(&mut self, registry: &Registry) -> io::Result<()>;

    /// Records an event of the shard's poll. Returns whether the member was not listed as ready before.
    fn set_ready(&mut self, event: &Event) -> bool;

    /// Reads the frames that have arrived and writes the queued ones, as far as the socket and the rate allow.
    /// Returns when the member is due again although its waker has not been called; `Break` is the end of the
    /// membership.
    fn serve(&mut self, now: Instant) -> ControlFlow<(), Instant>;

    /// Ends the membership. The seat is freed at once, although the socket may stay open for a while.
    fn end(self: Box<Self>, registry: &Registry);
}

/// The part of a shard that other tasks use: they add members, and report members and rooms with work for the
/// shard.
///
/// Each list is bounded by the number of members: a member is listed once until it is served, and a room
/// once until it is flushed.
#[derive(Default)]
pub(crate) struct ShardHandle {
    inbox: Mutex<Inbox>,
    notify: Notify,
    /// Members of its rooms. The registry counts them, to give new rooms to the shard with the fewest.
    pub(crate) members: AtomicUsize,
}

#[derive(Default)]
pub(crate) struct Inbox {
    /// Members with a socket that may be read or written, or with frames to write.
    pub(crate) ready: Vec<u32>,
    /// Rooms with frames to flush, and the time of the oldest frame.
    pub(crate) rooms: Vec<(Instant, Arc<dyn Flush>)>,
    pub(crate) sockets: Vec<Box<dyn MemberSocket>>,
    /// The shard sleeps until it is notified.
    is_silent: bool,
    /// The shard takes nothing any more.
    is_ended: bool,
}

impl ShardHandle {
    /// Hands a member's socket over to the shard.
    ///
    /// If the shard has ended, its node has too: the socket is closed.
    pub(crate) fn add(&self, socket: Box<dyn MemberSocket>) {
        self.update(|inbox| {
            if !inbox.is_ended {
                inbox.sockets.push(socket);
            }
        });
    }

    /// Schedules the flush of a room that got its first frame now.
    pub(crate) fn schedule_flush(&self, room: Arc<dyn Flush>) {
        self.update(|inbox| inbox.rooms.push((Instant::now(), room)));
    }

    /// Takes everything that was reported.
    pub(crate) fn take(&self) -> Inbox {
        let mut inbox = self.inbox.lock();
        let is_ended = inbox.is_ended;
        mem::replace(&mut *inbox, Inbox { is_ended, ..Inbox::default() })
    }

    /// Records that the shard has ended, and closes the sockets that it has not taken.
    pub(crate) fn end(&self) {
        self.inbox.lock().is_ended = true;
        drop(self.take());
    }

    /// Takes the members that were reported as ready.
    pub(crate) fn take_ready(&self) -> Vec<u32> {
        mem::take(&mut self.inbox.lock().ready)
    }

    /// Waits until something is reported.
    pub(crate) async fn reported(&self) {
        let is_empty = {
            let mut inbox = self.inbox.lock();
            inbox.is_silent = inbox.ready.is_empty() && inbox.rooms.is_empty() && inbox.sockets.is_empty();
            inbox.is_silent
        };
        if is_empty {
            self.notify.notified().await;
        }
    }

    fn update(&self, update: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox.lock();
        update(&mut inbox);
        let was_silent = mem::replace(&mut inbox.is_silent, false);
        drop(inbox);
        if was_silent {
            self.notify.notify_one();
        }
    }
}

/// Reports a member to its shard when its socket or its queue is ready.
#[derive(Debug)]
pub(crate) struct MemberWaker {
    alias: u32,
    shard: Arc<ShardHandle>,
    /// The member is listed as ready.
    is_listed: AtomicBool,
}

impl MemberWaker {
    pub(crate) fn new(alias: u32, shard: Arc<ShardHandle>) -> Arc<Self> {
        Arc::new(Self { alias, shard, is_listed: AtomicBool::default() })
    }

    /// Lists the member as ready; returns `false` if it was listed already.
    pub(crate) fn list(&self) -> bool {
        !self.is_listed.swap(true, AcqRel)
    }

    /// To be called before the member is served, so that an event during that time lists it again.
    pub(crate) fn clear(&self) {
        self.is_listed.store(false, Release);
    }
}

impl Wake for MemberWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.list() {
            self.shard.update(|inbox| inbox.ready.push(self.alias));
        }
    }
}

impl fmt::Debug for ShardHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ShardHandle").field("members", &self.members).finish_non_exhaustive()
    }
}
