//! The phase of a connection, and the deadlines of each phase.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use admission::Permit;
use tokio::time::{Instant, Sleep};

use crate::settings::Settings;

/// Bytes of a response that a client must read per second to keep its connection.
const MIN_BYTES_PER_SECOND: u64 = 1024;

/// The phase of a connection, shared by its stream, which sees bytes, and its service, which sees requests.
/// Both change it and both run in the connection's task, which checks the deadlines after each step
/// ([`Deadlines::poll`]). So there is no concurrent access; the atomics only make the type `Sync`.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    /// The [`Phase`] in the lower two bits, and a counter of phase changes above them. So two phases of the
    /// same kind have different numbers.
    phase: AtomicU32,
    /// The client does not read the bytes that are written to it.
    write_blocked: AtomicBool,
    /// Bytes written so far: the client has read them, or the kernel has buffered them for it.
    written: AtomicU64,
    permit: Permit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A request head is arriving.
    Head,
    /// A request is being answered.
    Request,
    /// Between two requests.
    Idle,
    /// The connection uses another protocol.
    Upgraded,
}

impl ConnectionState {
    pub(crate) fn new(permit: Permit) -> Self {
        Self {
            phase: AtomicU32::new(Phase::Head as u32),
            write_blocked: AtomicBool::new(false),
            written: AtomicU64::new(0),
            permit,
        }
    }

    /// Bytes have arrived.
    pub(crate) fn received(&self) {
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// A request head has arrived.
    pub(crate) fn begin_request(&self) {
        self.enter(Phase::Request);
        self.permit.set_waiting(false);
    }

    /// The response to a request has been handed to the connection.
    pub(crate) fn end_request(&self, upgraded: bool) {
        if upgraded {
            self.enter(Phase::Upgraded);
        } else {
            self.enter(Phase::Idle);
            self.permit.set_waiting(true);
        }
    }

    /// A write to the client would block.
    pub(crate) fn write_blocked(&self) {
        if self.phase().0 != Phase::Upgraded && !self.write_blocked.swap(true, Relaxed) {
            self.permit.set_waiting(true);
        }
    }

    /// A write took `count` of the `offered` bytes.
    pub(crate) fn wrote(&self, count: usize, offered: usize) {
        self.written.fetch_add(count as u64, Relaxed);
        if count == offered && self.write_blocked.swap(false, Relaxed) {
            self.permit.set_waiting(self.phase().0 != Phase::Request);
        }
    }

    /// Completes when the limiter evicted this connection to admit one of another network.
    pub(crate) async fn evicted(&self) {
        self.permit.evicted().await;
    }

    fn enter(&self, phase: Phase) {
        let number = (self.phase.load(Relaxed) >> 2).wrapping_add(1);
        self.phase.store(number << 2 | phase as u32, Relaxed);
    }

    fn phase(&self) -> (Phase, u32) {
        let number = self.phase.load(Relaxed);
        let phase = match number & 3 {
            0 => Phase::Head,
            1 => Phase::Request,
            2 => Phase::Idle,
            _ => Phase::Upgraded,
        };
        (phase, number)
    }
}

/// The timers of a connection.
pub(crate) struct Deadlines<'a> {
    state: &'a ConnectionState,
    settings: &'a Settings,
    read: Pin<Box<Sleep>>,
    /// The number of the phase for which the timer was set.
    read_phase: u32,
    write: Option<WriteWindow>,
}

/// A period in which a client must read some of its response.
struct WriteWindow {
    deadline: Pin<Box<Sleep>>,
    /// The bytes written before the period.
    written: u64,
}

impl<'a> Deadlines<'a> {
    /// Starts the timers of a connection. Its first request head must have arrived by `head_deadline`.
    pub(crate) fn new(state: &'a ConnectionState, settings: &'a Settings, head_deadline: Instant) -> Self {
        let read = Box::pin(tokio::time::sleep_until(head_deadline));
        Self { state, settings, read, read_phase: state.phase().1, write: None }
    }

    /// Completes with the name of the exceeded deadline. The caller must poll it after each step of the
    /// connection, because a step may set another deadline.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.poll_write(cx).is_ready() {
            return Poll::Ready("write_timeout");
        }
        self.poll_read(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        let (phase, number) = self.state.phase();
        let (timeout, reason) = match phase {
            Phase::Head => (self.settings.head_timeout, "head_timeout"),
            Phase::Idle => (self.settings.idle_timeout, "idle"),
            Phase::Request | Phase::Upgraded => return Poll::Pending,
        };
        if number != self.read_phase {
            self.read_phase = number;
            self.read.as_mut().reset(Instant::now() + timeout);
        }
        ready!(self.read.as_mut().poll(cx));
        Poll::Ready(reason)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.state.write_blocked.load(Relaxed) {
            self.write = None;
            return Poll::Pending;
        }
        let (timeout, written) = (self.settings.write_timeout, self.state.written.load(Relaxed));
        let window = self
            .write
            .get_or_insert_with(|| WriteWindow { deadline: Box::pin(tokio::time::sleep(timeout)), written });
        while window.deadline.as_mut().poll(cx).is_ready() {
            if written - window.written < min_bytes(timeout) {
                return Poll::Ready(());
            }
            window.written = written;
            window.deadline.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    }
}

fn min_bytes(window: Duration) -> u64 {
    window.as_secs().max(1) * MIN_BYTES_PER_SECOND
}
