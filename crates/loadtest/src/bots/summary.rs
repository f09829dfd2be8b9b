//! The summary of a run.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    convergence::Convergence,
    log::{BotLog, Deliveries, DeliveryCounts, Sessions, count_deliveries},
    move_loss::{self, LossCount, MoveLoss},
    moves::Moves,
    pool::BotPool,
    proximity_check::ProximityCheck,
};
use crate::{percentiles::Percentiles, realm_metrics::Load};

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Counts {
    /// Bots that are in a room.
    pub(crate) people: usize,
    pub(crate) islands: usize,
    pub(crate) rooms: usize,
}

impl Counts {
    pub(crate) fn of(logs: &[&BotLog], pool: &BotPool) -> Self {
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

/// The entries into rooms of one transport. The field names are JSON keys.
#[derive(Debug, Serialize)]
struct RoomEntries {
    entered: u64,
    /// From the assignment of the room to its welcome.
    assignment_to_room_ms: Percentiles,
}

impl RoomEntries {
    fn by_transport(logs: &[&BotLog]) -> BTreeMap<&'static str, Self> {
        let entries = || logs.iter().flat_map(|log| &log.entries);
        let of_transport = |name: &'static str| {
            let times = || entries().filter(move |(transport, _)| *transport == name).map(|(_, took)| *took);
            let assignment_to_room_ms = Percentiles::of_durations(times().flatten());
            (name, Self { entered: times().count() as u64, assignment_to_room_ms })
        };
        let names: HashSet<&'static str> = entries().map(|(transport, _)| *transport).collect();
        names.into_iter().map(of_transport).collect()
    }
}

/// The links that bots in meshes have at the end. The field names are JSON keys.
#[derive(Debug, Serialize)]
struct MeshLinks {
    bots: usize,
    least: usize,
    mean: f64,
    most: usize,
}

impl MeshLinks {
    /// `None` if no bot is in a mesh.
    fn of(logs: &[&BotLog]) -> Option<Self> {
        let rooms = logs.iter().flat_map(|log| log.room_logs.values());
        let links =
            rooms.filter(|room| room.transport == "p2p" && room.left.is_none()).map(|room| room.links);
        let links: Vec<usize> = links.collect();
        let (bots, least, most) = (links.len(), *links.iter().min()?, *links.iter().max()?);
        Some(Self { bots, least, mean: links.iter().sum::<usize>() as f64 / bots as f64, most })
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
    /// The messages that had to arrive.
    #[serde(flatten)]
    verdict: DeliveryCounts,
    /// All messages, by transport and kind.
    deliveries: Deliveries,
    /// By transport.
    room_entries: BTreeMap<&'static str, RoomEntries>,
    /// `None`: no bot is in a mesh.
    mesh_links: Option<MeshLinks>,
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
        let deliveries = count_deliveries(logs.iter().flat_map(|log| log.room_logs.values()), now);
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
            verdict: deliveries.required(),
            deliveries,
            room_entries: RoomEntries::by_transport(&logs),
            mesh_links: MeshLinks::of(&logs),
            moves: Moves::of(&logs),
            over_moves: move_loss::count_move_loss(&logs, now),
            doubles: pool.duplicates.load(Relaxed),
            given_twice: pool.delivered_twice.load(Relaxed),
            near_pairs: proximity.pairs_checked(),
            unheard: proximity.unheard_pairs(),
            unheard_in_the_end: proximity.unheard_pairs_now(),
            disconnects: pool.disconnects.load(Relaxed),
            sessions: Sessions::of(logs.iter().map(|log| &log.sessions)),
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

    pub(crate) fn print(&self) {
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
        self.print_transports();
        let MoveLoss { overlapping, to_stock, from_stock, lossy } = self.over_moves;
        println!("  connections     {}", self.moves.counts_by_kind(|connections| connections.bots));
        println!("  changes         {}", self.moves.counts_by_kind(|connections| connections.changes));
        println!("  moves           {}", self.moves);
        println!(
            "  lost over moves {overlapping} between overlapping clients, {to_stock} to stock clients, {from_stock} \
             from stock to overlapping clients"
        );
        if lossy.expected > 0 {
            println!("  lossy over moves  {lossy}, which may be lost");
        }
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

    fn print_transports(&self) {
        for (transport, entries) in &self.room_entries {
            let RoomEntries { entered, assignment_to_room_ms: times } = entries;
            println!(
                "  {transport:<15} {entered} rooms entered, {} ms after the assignment",
                times.with_max()
            );
            if let Some(counts) = self.deliveries.0.get(transport) {
                let lost =
                    |counts: DeliveryCounts| LossCount { expected: counts.expected, lost: counts.lost };
                println!(
                    "                  lost {} reliable and {} lossy",
                    lost(counts.reliable),
                    lost(counts.lossy)
                );
            }
        }
        if let Some(MeshLinks { bots, least, mean, most }) = &self.mesh_links {
            println!("  mesh            {bots} bots with {least} to {most} links, {mean:.1} on average");
        }
    }
}
