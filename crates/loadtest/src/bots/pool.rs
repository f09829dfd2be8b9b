//! The state that all bots share: their positions and islands, when each received messages of each
//! other, and each one's log.

use std::{
    collections::HashMap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use hdrhistogram::Histogram;
use parking_lot::{Mutex, MutexGuard};
use protocol::{Address, IslandId, Position};
use tokio::{sync::Notify, time::Instant};

use super::{log::BotLog, numbering::Numbering, receipt_times::ReceiptTimes};
use crate::percentiles::latency_histogram;

pub(crate) struct BotPool {
    began: Instant,
    pub(crate) numbering: Numbering,
    indices: Mutex<HashMap<Address, usize>>,
    bots: Vec<Bot>,
    pub(crate) received_at: ReceiptTimes,
    pub(crate) signed_in: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Messages that arrived a second time, through another room, and that the client dropped.
    pub(crate) duplicates: AtomicU64,
    /// Messages that the client delivered a second time nevertheless.
    pub(crate) delivered_twice: AtomicU64,
    pub(crate) disconnects: AtomicU64,
    /// Microseconds from the first heartbeat of a session, or that of a jump, to the assignment.
    pub(crate) assignments: Mutex<Histogram<u64>>,
    stopped: AtomicBool,
    stop: Notify,
}

#[derive(Default)]
struct Bot {
    position: Mutex<Option<Position>>,
    island: Mutex<Option<IslandId>>,
    /// Whether its island is on a transport that bots cannot join.
    has_no_room: AtomicBool,
    log: Mutex<BotLog>,
    latency: OnceLock<Mutex<Histogram<u64>>>,
    /// When each of the last [`SENT_RING`] positions was sent, in microseconds, by its index.
    sent_at: OnceLock<Vec<AtomicU64>>,
}

/// How many positions the ring of send times holds.
const SENT_RING: usize = 512;

impl BotPool {
    pub(crate) fn new(count: usize, numbering: Numbering) -> Self {
        Self {
            began: Instant::now(),
            numbering,
            indices: Mutex::default(),
            bots: std::iter::repeat_with(Bot::default).take(count).collect(),
            received_at: ReceiptTimes::new(count),
            signed_in: AtomicU64::default(),
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            delivered_twice: AtomicU64::default(),
            disconnects: AtomicU64::default(),
            assignments: Mutex::new(latency_histogram()),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
        }
    }

    pub(crate) fn register(&self, index: usize, address: Address) {
        self.indices.lock().insert(address, index);
        self.log(index).address = Some(address);
    }

    pub(crate) fn index_of(&self, address: Address) -> Option<usize> {
        self.indices.lock().get(&address).copied()
    }

    pub(crate) fn log(&self, bot: usize) -> MutexGuard<'_, BotLog> {
        self.bots[bot].log.lock()
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = MutexGuard<'_, BotLog>> {
        self.bots.iter().map(|bot| bot.log.lock())
    }

    pub(crate) fn set_position(&self, bot: usize, position: Position) {
        *self.bots[bot].position.lock() = Some(position);
    }

    /// The positions of all bots; `None`: the bot has not sent one yet.
    pub(crate) fn positions(&self) -> Vec<Option<Position>> {
        self.bots.iter().map(|bot| *bot.position.lock()).collect()
    }

    /// Whether two bots must receive each other when they are near: both were last assigned a room,
    /// since on another transport a bot receives nothing, and if the realm `has_rules`, both have the
    /// same island.
    pub(crate) fn can_communicate(&self, one: usize, other: usize, has_rules: bool) -> bool {
        let [one, other] = [one, other].map(|bot| &self.bots[bot]);
        let same_island = || {
            let island = one.island.lock().clone();
            island == *other.island.lock()
        };
        !one.has_no_room.load(Relaxed) && !other.has_no_room.load(Relaxed) && (!has_rules || same_island())
    }

    pub(crate) fn set_island(&self, bot: usize, island: IslandId, is_room: bool) {
        *self.bots[bot].island.lock() = Some(island);
        self.bots[bot].has_no_room.store(!is_room, Relaxed);
    }

    /// The islands that bots were last assigned.
    pub(crate) fn islands(&self) -> Vec<IslandId> {
        let mut islands: Vec<IslandId> =
            self.bots.iter().filter_map(|bot| bot.island.lock().clone()).collect();
        islands.sort_unstable();
        islands.dedup();
        islands
    }

    pub(crate) fn now_ms(&self) -> u32 {
        self.began.elapsed().as_millis() as u32
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Records that a bot sends its position with this index now.
    pub(crate) fn record_send(&self, bot: usize, index: u32) {
        let ring = self.bots[bot]
            .sent_at
            .get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(SENT_RING).collect());
        ring[index as usize % SENT_RING].store(self.now_us(), Relaxed);
    }

    /// Records that a bot receives a position of another now, and the latency.
    pub(crate) fn record_receipt(&self, bot: usize, sender: usize, index: u32) {
        self.received.fetch_add(1, Relaxed);
        self.received_at.set(bot, sender, self.now_ms());
        if let Some(ring) = self.bots[sender].sent_at.get() {
            let latency = self.now_us().saturating_sub(ring[index as usize % SENT_RING].load(Relaxed));
            let histogram = self.bots[bot].latency.get_or_init(|| Mutex::new(latency_histogram()));
            histogram.lock().saturating_record(latency);
        }
    }

    /// The latencies of all bots together, in microseconds.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        let mut all = latency_histogram();
        for bot in self.bots.iter().filter_map(|bot| bot.latency.get()) {
            // Histograms of equal bounds always add.
            let _ = all.add(&*bot.lock());
        }
        all
    }

    pub(crate) fn record_assignment(&self, since: Instant) {
        self.assignments.lock().saturating_record(since.elapsed().as_micros() as u64);
    }

    pub(crate) fn assignment_latency(&self) -> Histogram<u64> {
        self.assignments.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.bots.len()
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.stop.notify_waiters();
    }

    pub(crate) async fn stopped(&self) {
        let stop = self.stop.notified();
        if !self.stopped.load(Relaxed) {
            stop.await;
        }
    }
}
