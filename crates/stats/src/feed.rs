//! The live feed: the last events in a ring, which each reader walks along at its own pace.
//!
//! A reader is a place in the ring. So one that is slow costs no memory and nobody else's time: what it
//! has not taken when the ring goes over it, it is told that it missed.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use admission::Network;
use bytes::Bytes;
use protocol::{Ulid, unix_ms};
use serde::Serialize;
use tokio::{sync::watch, time};

use crate::event::{Event, Mark};

/// The bounds of a feed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The events that are kept.
    pub(crate) events: usize,
    /// The most readers at a time.
    pub(crate) readers: usize,
    /// The most readers of one network at a time.
    pub(crate) readers_per_network: usize,
    /// How often a reader to whom nothing happens is sent a comment.
    pub(crate) keep_alive: Duration,
}

/// A feed.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Tells the events of this run from those of others.
    run: Ulid,
    limits: Limits,
    ring: Mutex<Ring>,
    /// The number of the last event.
    latest: watch::Sender<u64>,
    /// The number of the last event that any reader was handed.
    delivered: AtomicU64,
    slots: Mutex<ReaderSlots>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Events as they go out, the last of which has the number `last`.
    frames: VecDeque<Bytes>,
    last: u64,
    closed: bool,
}

/// The readers that are there.
#[derive(Debug, Default)]
struct ReaderSlots {
    next: u64,
    taken: BTreeMap<u64, ReaderSlot>,
}

/// What is known of a reader.
#[derive(Debug)]
struct ReaderSlot {
    network: Network,
    /// When it last took something.
    last_active: Instant,
}

/// One who reads the feed.
#[derive(Debug)]
pub(crate) struct Reader {
    feed: Arc<Feed>,
    slot: u64,
    /// The number of the last event that it has.
    last: u64,
    greeting: Option<Bytes>,
    latest: watch::Receiver<u64>,
}

/// There is no room for another reader, or the feed has ended.
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

/// The most bytes of events that are handed over at once.
const CHUNK_BYTES: usize = 64 * 1024;
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

impl Feed {
    /// A feed in which nothing has happened yet.
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

    /// Tells these events.
    pub(crate) fn publish(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let mut ring = self.ring();
        for event in events {
            // What consists of texts and numbers alone can be written.
            let Ok(json) = event.json() else { continue };
            ring.last += 1;
            let frame = frame(event.name(), self.id(ring.last), &json);
            ring.frames.push_back(frame);
            metrics::counter!("atoll_stats_feed_events_total", "event" => event.name()).increment(1);
        }
        let excess = ring.frames.len().saturating_sub(self.limits.events);
        ring.frames.drain(..excess);
        self.latest.send_replace(ring.last);
    }

    /// Another reader: one that has everything up to the event `last_id`, or one that begins now.
    pub(crate) fn read(
        self: &Arc<Self>,
        last_id: Option<&str>,
        network: Network,
        now: Instant,
    ) -> Result<Reader, ReaderRejected> {
        let latest = self.latest.subscribe();
        let ring = self.ring();
        if ring.closed {
            return Err(ReaderRejected::Closed);
        }
        let slot = self.slots().take(self.limits, network, now).inspect_err(|_| {
            metrics::counter!("atoll_stats_feed_refused_total").increment(1);
        })?;
        let (last, greeting) = match last_id.map(EventId::from_str) {
            None => (ring.last, Some(self.mark("ready", ring.last, None))),
            Some(Ok(EventId { run, number })) if run == self.run && number <= ring.last => (number, None),
            Some(_) => (ring.last, Some(self.reset(ring.last, "unknown-id"))),
        };
        // Whoever is too far behind by now was not slow: its events are simply not kept any more.
        let (last, greeting) = match ring.retains_after(last) {
            true => (last, greeting),
            false => (ring.last, Some(self.reset(ring.last, "too-old"))),
        };
        Ok(Reader { feed: self.clone(), slot, last, greeting, latest })
    }

    /// Gives the seats of readers who have taken nothing for long to others.
    pub(crate) fn sweep(&self, now: Instant) {
        // A reader that takes anything takes a comment in each interval.
        let timeout = 2 * self.limits.keep_alive + Duration::from_secs(1);
        let mut slots = self.slots();
        let before = slots.taken.len();
        slots.taken.retain(|_, seat| now.saturating_duration_since(seat.last_active) < timeout);
        let stalled = before - slots.taken.len();
        metrics::counter!("atoll_stats_feed_stalled_total").increment(stalled as u64);
        metrics::gauge!("atoll_stats_feed_readers").set(slots.taken.len() as f64);
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        *self.latest.borrow()
    }

    /// The number of the last event that any reader knows of, or may know of at once.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    fn deliver(&self, number: u64) {
        self.delivered.fetch_max(number, Ordering::Release);
    }

    /// Ends all readers, and takes no more.
    pub(crate) fn close(&self) {
        self.ring().closed = true;
        self.latest.send_modify(|_| ());
    }

    pub(crate) fn readers_count(&self) -> usize {
        self.slots().taken.len()
    }

    fn reset(&self, last: u64, reason: &'static str) -> Bytes {
        metrics::counter!("atoll_stats_feed_resets_total", "reason" => reason).increment(1);
        self.mark("reset", last, Some(reason))
    }

    fn mark(&self, name: &str, last: u64, reason: Option<&'static str>) -> Bytes {
        let id = self.id(last);
        frame(name, id, &json(&Mark { time: unix_ms(SystemTime::now()), id: id.to_string(), reason }))
    }

    fn id(&self, number: u64) -> EventId {
        EventId { run: self.run, number }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, ReaderSlots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Whether all events after this one are still here.
    fn retains_after(&self, number: u64) -> bool {
        number + self.frames.len() as u64 >= self.last
    }

    /// Some of the events after this one, and the number of the last of them.
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
        if self.taken.len() >= limits.readers {
            return Err(ReaderRejected::Full);
        }
        let of_network = self.taken.values().filter(|seat| seat.network == network).count();
        if of_network >= limits.readers_per_network {
            return Err(ReaderRejected::NetworkFull);
        }
        self.next += 1;
        self.taken.insert(self.next, ReaderSlot { network, last_active: now });
        Ok(self.next)
    }
}

impl Reader {
    /// What is to be sent next: whole events, or a comment; `None` when the feed has ended, or the
    /// reader had taken nothing for so long that its seat is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.feed.slots().taken.get_mut(&self.slot)?.last_active = Instant::now();
        if let Some(greeting) = self.greeting.take() {
            self.feed.deliver(self.last);
            return Some(greeting);
        }
        loop {
            // Before the ring is looked at, so that nothing that comes after is overlooked.
            self.latest.mark_unchanged();
            {
                let ring = self.feed.ring();
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
                // The sender is in the feed, which this keeps.
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
        self.feed.slots().taken.remove(&self.slot);
    }
}

/// One event as it goes out (HTML Standard, 9.2: server-sent events). JSON has no line breaks.
fn frame(name: &str, id: EventId, json: &str) -> Bytes {
    format!("event: {name}\nid: {id}\ndata: {json}\n\n").into()
}

fn json(body: &impl Serialize) -> String {
    // What consists of texts and numbers alone can be written.
    serde_json::to_string(body).unwrap_or_default()
}

#[cfg(test)]
mod tests;
