//! The live feed: a ring buffer of the last events, which each reader reads at its own pace.
//!
//! The state of a reader is a position in the ring. So a slow reader needs no memory and delays no other
//! reader: when the ring overwrites an event that it has not read, it receives a `reset` instead.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use admission::Network;
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{Ulid, unix_ms};
use serde::Serialize;
use tokio::{sync::watch, time};

use crate::{
    event::{Event, Mark},
    metrics,
};

/// The bounds of a feed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The number of events that are kept.
    pub(crate) events: usize,
    /// The limit of readers at a time.
    pub(crate) readers: usize,
    /// The limit of readers from one client network at a time.
    pub(crate) readers_per_network: usize,
    /// The interval in which a reader receives a comment while there are no events.
    pub(crate) keep_alive: Duration,
}

/// The live feed, shared by the publisher and all readers.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Distinguishes the events of this process from those of earlier ones. Each process numbers them from 1.
    run: Ulid,
    limits: Limits,
    ring: Mutex<Ring>,
    /// The number of the last event.
    latest: watch::Sender<u64>,
    /// The number of the last event that any reader has received.
    delivered: AtomicU64,
    slots: Mutex<ReaderSlots>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The encoded events. The last of them has the number `last`.
    frames: VecDeque<Bytes>,
    last: u64,
    closed: bool,
}

/// The slots of the present readers, by slot number.
#[derive(Debug, Default)]
struct ReaderSlots {
    next: u64,
    occupied: BTreeMap<u64, ReaderSlot>,
}

/// The slot that a reader occupies.
#[derive(Debug)]
struct ReaderSlot {
    network: Network,
    /// The time at which the reader last requested a chunk.
    last_active: Instant,
}

/// A reader of the feed. Dropping it frees its slot.
#[derive(Debug)]
pub(crate) struct Reader {
    feed: Arc<Feed>,
    slot: u64,
    /// The number of the last event that the reader has received.
    last: u64,
    greeting: Option<Bytes>,
    latest: watch::Receiver<u64>,
}

/// The feed accepts no further reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReaderRejected {
    #[error("there are too many readers")]
    Full,
    #[error("there are too many readers of this network")]
    NetworkFull,
    #[error("this realm is about to stop")]
    Closed,
}

/// The id of an event: `<run>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EventId {
    run: Ulid,
    number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (run, number) = text.split_once('-').ok_or(())?;
        Ok(Self { run: Ulid::from_string(run).map_err(drop)?, number: number.parse().map_err(drop)? })
    }
}

/// The limit of a chunk of events, in bytes. A single larger event is a chunk of its own.
const CHUNK_BYTES: usize = 64 * 1024;
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

impl Feed {
    /// A feed without events.
    pub(crate) fn new(run: Ulid, limits: Limits) -> Self {
        let (latest, _) = watch::channel(0);
        Self {
            run,
            limits,
            ring: Mutex::default(),
            latest,
            delivered: AtomicU64::default(),
            slots: Mutex::default(),
        }
    }

    /// Appends these events and wakes the readers. Drops the oldest events above the limit.
    pub(crate) fn publish(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let mut ring = self.ring.lock();
        for event in events {
            // Encoding does not fail: events consist of strings and numbers.
            let Ok(json) = event.json() else { continue };
            ring.last += 1;
            let frame = frame(event.name(), self.id(ring.last), &json);
            ring.frames.push_back(frame);
            metrics::feed_events(event.name()).increment(1);
        }
        let excess = ring.frames.len().saturating_sub(self.limits.events);
        ring.frames.drain(..excess);
        self.latest.send_replace(ring.last);
    }

    /// Adds a reader: one that has received all events up to `last_id`, or one that begins with the next
    /// event.
    ///
    /// # Errors
    /// [`ReaderRejected`] if there are too many readers, or the feed is closed.
    pub(crate) fn read(
        self: &Arc<Self>,
        last_id: Option<&str>,
        network: Network,
        now: Instant,
    ) -> Result<Reader, ReaderRejected> {
        let latest = self.latest.subscribe();
        let ring = self.ring.lock();
        if ring.closed {
            return Err(ReaderRejected::Closed);
        }
        let slot = self.slots.lock().take(self.limits, network, now).inspect_err(|_| {
            metrics::feed_refused().increment(1);
        })?;
        let (last, greeting) = match last_id.map(EventId::from_str) {
            None => (ring.last, Some(self.mark("ready", ring.last, None))),
            Some(Ok(EventId { run, number })) if run == self.run && number <= ring.last => (number, None),
            Some(_) => (ring.last, Some(self.reset(ring.last, "unknown-id"))),
        };
        // The events after the given id are no longer kept. The reader was not slow, so the reason is another
        // one.
        let (last, greeting) = match ring.retains_after(last) {
            true => (last, greeting),
            false => (ring.last, Some(self.reset(ring.last, "too-old"))),
        };
        Ok(Reader { feed: self.clone(), slot, last, greeting, latest })
    }

    /// Frees the slots of readers that have received nothing for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        // A reader that reads receives at least a comment in each interval.
        let timeout = 2 * self.limits.keep_alive + Duration::from_secs(1);
        let mut slots = self.slots.lock();
        let before = slots.occupied.len();
        slots.occupied.retain(|_, slot| now.saturating_duration_since(slot.last_active) < timeout);
        let stalled = before - slots.occupied.len();
        metrics::feed_stalled().increment(stalled as u64);
        metrics::feed_readers().set(slots.occupied.len() as f64);
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        *self.latest.borrow()
    }

    /// The number of the last event that any reader has received, or is about to receive.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    fn deliver(&self, number: u64) {
        self.delivered.fetch_max(number, Ordering::Release);
    }

    /// Ends all readers, and rejects new ones.
    pub(crate) fn close(&self) {
        self.ring.lock().closed = true;
        self.latest.send_modify(|_| ());
    }

    pub(crate) fn readers_count(&self) -> usize {
        self.slots.lock().occupied.len()
    }

    fn reset(&self, last: u64, reason: &'static str) -> Bytes {
        metrics::feed_resets(reason).increment(1);
        self.mark("reset", last, Some(reason))
    }

    fn mark(&self, name: &str, last: u64, reason: Option<&'static str>) -> Bytes {
        let id = self.id(last);
        frame(name, id, &json(&Mark { time: unix_ms(SystemTime::now()), id: id.to_string(), reason }))
    }

    fn id(&self, number: u64) -> EventId {
        EventId { run: self.run, number }
    }
}

impl Ring {
    /// Whether the ring still has all events after this one.
    fn retains_after(&self, number: u64) -> bool {
        number + self.frames.len() as u64 >= self.last
    }

    /// The first events after this one, at most a chunk, and the number of the last of them.
    fn after(&self, number: u64) -> (Bytes, u64) {
        let skipped = self.frames.len() - (self.last - number) as usize;
        let (mut chunk, mut last) = (Vec::new(), number);
        for frame in self.frames.range(skipped..) {
            if !chunk.is_empty() && chunk.len() + frame.len() > CHUNK_BYTES {
                break;
            }
            chunk.extend_from_slice(frame);
            last += 1;
        }
        (chunk.into(), last)
    }
}

impl ReaderSlots {
    fn take(&mut self, limits: Limits, network: Network, now: Instant) -> Result<u64, ReaderRejected> {
        if self.occupied.len() >= limits.readers {
            return Err(ReaderRejected::Full);
        }
        let of_network = self.occupied.values().filter(|slot| slot.network == network).count();
        if of_network >= limits.readers_per_network {
            return Err(ReaderRejected::NetworkFull);
        }
        self.next += 1;
        self.occupied.insert(self.next, ReaderSlot { network, last_active: now });
        Ok(self.next)
    }
}

impl Reader {
    /// The next chunk to send: whole events, or a comment. `None` if the feed has ended, or if the reader
    /// received nothing for so long that its slot was freed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.feed.slots.lock().occupied.get_mut(&self.slot)?.last_active = Instant::now();
        if let Some(greeting) = self.greeting.take() {
            self.feed.deliver(self.last);
            return Some(greeting);
        }
        loop {
            // Must precede the look at the ring: an event that is published after the look then wakes this
            // reader.
            self.latest.mark_unchanged();
            {
                let ring = self.feed.ring.lock();
                if ring.closed {
                    return None;
                }
                if !ring.retains_after(self.last) {
                    self.last = ring.last;
                    self.feed.deliver(self.last);
                    return Some(self.feed.reset(ring.last, "slow"));
                }
                if self.last < ring.last {
                    let (chunk, last) = ring.after(self.last);
                    self.last = last;
                    self.feed.deliver(self.last);
                    return Some(chunk);
                }
            }
            tokio::select! {
                // The result is ignored: the sender lives in the feed, which this reader keeps alive.
                _ = self.latest.changed() => {}
                () = time::sleep(self.feed.limits.keep_alive) => {
                    return Some(Bytes::from_static(KEEP_ALIVE));
                }
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.feed.slots.lock().occupied.remove(&self.slot);
    }
}

/// Encodes one event (HTML Standard, 9.2: server-sent events). The JSON has no line breaks, so one `data:`
/// line is enough.
fn frame(name: &str, id: EventId, json: &str) -> Bytes {
    format!("event: {name}\nid: {id}\ndata: {json}\n\n").into()
}

fn json(body: &impl Serialize) -> String {
    // Encoding does not fail: a mark consists of strings and numbers.
    serde_json::to_string(body).unwrap_or_default()
}

#[cfg(test)]
mod tests;
