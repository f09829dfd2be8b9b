//! The progress line and the summary.

use std::{
    collections::HashSet,
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    bot_pool::BotPool,
    convergence::Convergence,
    delivery_log::{BotLog, DeliveryCounts, count_deliveries},
    move_loss::{self, MoveLoss},
    moves::Moves,
    proximity_check::ProximityCheck,
    server::Load,
    sessions::Sessions,
};

/// Shows the progress: one line that is rewritten on a terminal, plain lines elsewhere.
pub(crate) struct ProgressDisplay {
    json: bool,
    bar: Option<ProgressBar>,
    last: Mutex<(Instant, u64, u64)>,
    lines: AtomicU64,
}

impl ProgressDisplay {
    pub(crate) fn new(json: bool) -> Self {
        // With `--json` the standard output has JSON lines only.
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        let (last, lines) = (Mutex::new((Instant::now(), 0, 0)), AtomicU64::default());
        Self { json, bar, last, lines }
    }

    pub(crate) fn line(&self, pool: &BotPool, proximity: &ProximityCheck) {
        let number = self.lines.fetch_add(1, Relaxed);
        // Plain lines are for a log: one in five is enough.
        if number == 0 || self.bar.is_none() && !number.is_multiple_of(5) {
            return;
        }
        let (sent, received) = (pool.sent.load(Relaxed), pool.received.load(Relaxed));
        let now = Instant::now();
        let (sent_rate, received_rate) = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let seconds = (now - last.0).as_secs_f64();
            let rates = ((sent - last.1) as f64 / seconds, (received - last.2) as f64 / seconds);
            *last = (now, sent, received);
            rates
        };
        let (latency, assignment) =
            (Percentiles::of(&pool.latency()), Percentiles::of(&pool.assignment_latency()));
        let logs: Vec<_> = pool.logs().collect();
        let logs: Vec<&BotLog> = logs.iter().map(|log| &**log).collect();
        let (counts, verdict) =
            (Counts::of(&logs, pool), count_deliveries(logs.iter().copied(), Instant::now()));
        let line = format!(
            "{} peers, {} islands, {} rooms | {sent_rate:.0} sent/s, {received_rate:.0} received/s | lost {}, \
             unheard {} | latency {latency} ms | heartbeat to island {assignment} ms",
            counts.people,
            counts.islands,
            counts.rooms,
            verdict.lost + verdict.disordered,
            proximity.unheard_pairs(),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => eprintln!("{line}"),
        }
    }

    /// Prints the result of a comparison that SIGUSR1 requested.
    pub(crate) fn convergence(&self, convergence: &Convergence) {
        if self.json {
            println!("{}", serde_json::to_string(convergence).unwrap_or_default());
        } else {
            println!("{convergence}");
        }
    }

    pub(crate) fn summary(&self, summary: &Summary) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.json {
            println!("{}", serde_json::to_string(summary).unwrap_or_default());
        } else {
            summary.print();
        }
    }
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p99: f64,
    max: f64,
    pub(crate) samples: u64,
}

impl Percentiles {
    pub(crate) fn of(microseconds: &Histogram<u64>) -> Self {
        let at = |quantile| microseconds.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0), samples: microseconds.len() }
    }

    /// The percentiles of durations of up to an hour.
    pub(crate) fn of_durations(times: impl Iterator<Item = Duration>) -> Self {
        const HOUR_US: u64 = 3_600_000_000;
        let mut histogram = Histogram::new_with_bounds(1, HOUR_US, 3).expect("these bounds are valid");
        times.for_each(|time| histogram.saturating_record(time.as_micros() as u64));
        Self::of(&histogram)
    }

    pub(crate) fn with_max(&self) -> String {
        format!("{self} max {:.1}", self.max)
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.1} p99 {:.1}", self.p50, self.p99)
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Counts {
    /// Bots that are in a room.
    people: usize,
    islands: usize,
    rooms: usize,
}

impl Counts {
    fn of(logs: &[&BotLog], pool: &BotPool) -> Self {
        let mut rooms = HashSet::new();
        let mut people = 0;
        for log in logs {
            let before = people;
            for stay in log.room_logs.values().filter(|stay| stay.left.is_none()) {
                rooms.insert(&stay.url);
                people = before + 1;
            }
        }
        Self { people, islands: pool.islands().len(), rooms: rooms.len() }
    }
}

/// The result of a run. Its field names are JSON keys.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    seconds: f64,
    bots: usize,
    /// Bots that behave like stock clients.
    stock: usize,
    signed_in: u64,
    #[serde(flatten)]
    counts: Counts,
    /// Bots that never entered a room, although they were assigned one, or nothing.
    absent: usize,
    sent: u64,
    received: u64,
    sent_per_second: f64,
    received_per_second: f64,
    #[serde(flatten)]
    verdict: DeliveryCounts,
    #[serde(flatten)]
    moves: Moves,
    /// Losses between bots that stayed in one island, over all rooms.
    over_moves: MoveLoss,
    /// Messages that arrived through a second room and were dropped.
    doubles: u64,
    /// Messages that were delivered again through a second room.
    given_twice: u64,
    /// How often a pair was near for long enough to be checked.
    near_pairs: u64,
    unheard: u64,
    /// Unheard pairs among those that are near at the end.
    unheard_in_the_end: u64,
    disconnects: u64,
    #[serde(flatten)]
    sessions: Sessions,
    /// `None`: no director was given.
    convergence: Option<Convergence>,
    latency_ms: Percentiles,
    heartbeat_to_island_ms: Percentiles,
    server: Option<Load>,
    #[serde(skip)]
    idle: bool,
}

impl Summary {
    pub(crate) fn new(
        pool: &BotPool,
        proximity: &ProximityCheck,
        convergence: Option<Convergence>,
        server: Option<Load>,
        elapsed: Duration,
        idle: bool,
    ) -> Self {
        let (sent, received) = (pool.sent.load(Relaxed), pool.received.load(Relaxed));
        let seconds = elapsed.as_secs_f64();
        let (logs, now) = (pool.logs().collect::<Vec<_>>(), Instant::now());
        let logs: Vec<&BotLog> = logs.iter().map(|log| &**log).collect();
        let absent = |log: &&&BotLog| log.room_logs.is_empty() && log.assignments.can_be_in_room();
        Self {
            seconds,
            bots: pool.count(),
            stock: logs.iter().filter(|log| log.stock).count(),
            signed_in: pool.signed_in.load(Relaxed),
            counts: Counts::of(&logs, pool),
            absent: logs.iter().filter(absent).count(),
            sent,
            received,
            sent_per_second: sent as f64 / seconds,
            received_per_second: received as f64 / seconds,
            verdict: count_deliveries(logs.iter().copied(), now),
            moves: Moves::of(&logs),
            over_moves: move_loss::count_move_loss(&logs, now),
            doubles: pool.duplicates.load(Relaxed),
            given_twice: pool.delivered_twice.load(Relaxed),
            near_pairs: proximity.pairs_checked(),
            unheard: proximity.unheard_pairs(),
            unheard_in_the_end: proximity.unheard_pairs_now(),
            disconnects: pool.disconnects.load(Relaxed),
            sessions: Sessions::of(&logs),
            convergence,
            latency_ms: Percentiles::of(&pool.latency()),
            heartbeat_to_island_ms: Percentiles::of(&pool.assignment_latency()),
            server,
            idle,
        }
    }

    /// Whether all bots were present, and no message that had to arrive was lost.
    pub(crate) fn is_good(&self) -> bool {
        let present = if self.idle { self.signed_in >= self.bots as u64 } else { self.absent == 0 };
        let DeliveryCounts { lost, disordered, .. } = self.verdict;
        let together = self.over_moves.overlapping.lost == 0;
        let converged = self.convergence.as_ref().is_none_or(|convergence| convergence.converged);
        let back = self.sessions.sessions_failed == 0;
        present && back && converged && lost == 0 && disordered == 0 && self.unheard == 0 && together
    }

    fn print(&self) {
        let Self { seconds, bots, signed_in, counts, absent, sent, received, verdict, .. } = self;
        println!(
            "{bots} bots ({} like stock clients) for {seconds:.0} s: {signed_in} sign-ins, {} disconnects",
            self.stock, self.disconnects
        );
        println!(
            "  at the end      {} peers in {} islands and {} rooms, {absent} never in a room",
            counts.people, counts.islands, counts.rooms
        );
        println!("{}", self.sessions);
        if let Some(convergence) = &self.convergence {
            println!("  convergence     {convergence}");
        }
        println!("  sent            {sent} ({:.0}/s)", self.sent_per_second);
        println!("  received        {received} ({:.0}/s)", self.received_per_second);
        println!(
            "  lost            {} of {} that had to arrive, {} duplicate or out of order",
            verdict.lost, verdict.expected, verdict.disordered
        );
        let MoveLoss { overlapping, to_stock, from_stock } = self.over_moves;
        println!("  connections     {}", self.moves.counts_by_kind(|connections| connections.bots));
        println!("  changes         {}", self.moves.counts_by_kind(|connections| connections.changes));
        println!("  moves           {}", self.moves);
        println!(
            "  lost over moves {overlapping} between overlapping clients, {to_stock} to stock clients, {from_stock} \
             from stock to overlapping clients"
        );
        println!("  duplicates      {} dropped, {} delivered twice", self.doubles, self.given_twice);
        println!(
            "  unheard         {} of {} times that a pair was near, {} at the end",
            self.unheard, self.near_pairs, self.unheard_in_the_end
        );
        println!("  latency         {} ms", self.latency_ms);
        println!(
            "  heartbeat to island  {} ms ({} samples)",
            self.heartbeat_to_island_ms, self.heartbeat_to_island_ms.samples
        );
        if let Some(load) = &self.server {
            println!(
                "  server          {:.1} % of a core, {:.0} deliveries/s at {:.3} µs each, {:.0} MiB resident, {:.1} KiB more for each bot",
                load.cpu_percent,
                load.deliveries_per_second,
                load.cpu_us_per_delivery,
                load.resident_mib,
                load.kib_per_bot
            );
        }
        println!("{}", if self.is_good() { "all checks passed" } else { "CHECKS FAILED" });
    }
}
