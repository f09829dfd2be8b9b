//! The summary of a `--heartbeats` run, from the director's metrics and from the counts of this
//! process.

use serde::Serialize;

use super::{
    peers::AssignmentStats,
    reading::{BucketPercentiles, Reading},
    sender::SendReport,
};
use crate::percentiles::Percentiles;

/// The result of a run. Its field names are JSON keys.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    people: usize,
    /// Peers and islands that the director counts.
    peers: f64,
    islands: f64,
    offered_per_second: f64,
    sent: u64,
    /// Until the bus had flushed the last heartbeat; at least the time planned.
    seconds: f64,
    sent_per_second: f64,
    /// How late heartbeats were published on the bus.
    late_ms: Percentiles,
    /// Heartbeats that the director received while they were sent and in the second after.
    heard: f64,
    heard_per_second: f64,
    /// Sent and not received.
    lost: f64,
    /// Messages that the director's bus client counted as dropped.
    dropped: f64,
    flush_ms: BucketPercentiles,
    /// How late flushes started.
    lag_ms: BucketPercentiles,
    skipped_flushes: f64,
    changes: u64,
    /// From the due time of a jump's heartbeat to the assignment.
    told_ms: Percentiles,
    untold: u64,
    /// Assignments that were published again because a gateway reported another one.
    retold: f64,
    director_cores: f64,
    director_us_per_heartbeat: f64,
    director_resident_mib: f64,
    bus_cores: Option<f64>,
    bus_us_per_heartbeat: Option<f64>,
    bus_resident_mib: Option<f64>,
    /// CPU time of this process.
    own_us_per_heartbeat: Option<f64>,
}

impl Summary {
    pub(super) fn new(
        people: usize,
        rate: f64,
        report: &SendReport,
        assignments: &AssignmentStats,
        [before, during, after]: [&Reading; 3],
    ) -> Self {
        const HEARD: &str = "atoll_director_heartbeats_total";
        const MIB: f64 = 1024.0 * 1024.0;
        let (heard, seconds) = (after.since(before, HEARD), (during.at - before.at).as_secs_f64());
        let cpu = during.since(before, "atoll_process_cpu_seconds");
        let sent = report.messages as f64;
        let bus = before.bus.zip(during.bus).map(|(earlier, later)| (later.0 - earlier.0, later.1));
        let dropped = ["atoll_bus_dropped_total", "atoll_bus_slow_consumer_total"]
            .map(|name| after.sum_since(before, name, "\"director\""));
        Self {
            people,
            peers: during.value("dcl_archipelago_peers_count"),
            islands: during.value("dcl_archipelago_islands_count"),
            offered_per_second: rate,
            sent: report.messages,
            seconds: report.elapsed.as_secs_f64(),
            sent_per_second: sent / report.elapsed.as_secs_f64(),
            late_ms: Percentiles::of(&report.lateness_us),
            heard,
            heard_per_second: during.since(before, HEARD) / seconds,
            lost: sent - heard,
            dropped: dropped[0] + dropped[1],
            flush_ms: BucketPercentiles::between(before, during, "atoll_director_flush_seconds"),
            lag_ms: BucketPercentiles::between(before, during, "atoll_director_flush_lag_seconds"),
            skipped_flushes: after.since(before, "atoll_director_flushes_skipped_total"),
            changes: assignments.island_changes,
            told_ms: Percentiles::of(&assignments.latency_us),
            untold: assignments.unassigned_jumps,
            retold: after.since(before, "atoll_director_retold_total"),
            director_cores: cpu / seconds,
            director_us_per_heartbeat: 1e6 * cpu / sent,
            director_resident_mib: during.value("process_resident_memory_bytes") / MIB,
            bus_cores: bus.map(|(cpu, _)| cpu / seconds),
            bus_us_per_heartbeat: bus.map(|(cpu, _)| 1e6 * cpu / sent),
            bus_resident_mib: bus.map(|(_, bytes)| bytes as f64 / MIB),
            own_us_per_heartbeat: report.cpu_seconds.map(|cpu| 1e6 * cpu / sent),
        }
    }

    /// Whether the director received every heartbeat, assigned every jump, and knows every peer.
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0.0 && self.dropped == 0.0 && self.untold == 0 && self.peers == self.people as f64
    }

    pub(super) fn print(&self) {
        println!(
            "  sent            {} ({:.0}/s of {:.0}/s, for {:.1} s), late {} ms",
            self.sent,
            self.sent_per_second,
            self.offered_per_second,
            self.seconds,
            self.late_ms.with_max()
        );
        println!(
            "  received        {:.0} ({:.0}/s), {:.0} lost, of which {:.0} dropped by the director's bus",
            self.heard, self.heard_per_second, self.lost, self.dropped
        );
        println!("  peers           {:.0} of {}, {:.0} islands", self.peers, self.people, self.islands);
        println!("  flush           {}", self.flush_ms);
        println!("  flush, late     {}, {:.0} skipped", self.lag_ms, self.skipped_flushes);
        println!(
            "  assignments     {}, {:.0} repeated; after {} jumps {} ms, {} missing",
            self.changes,
            self.retold,
            self.told_ms.samples,
            self.told_ms.with_max(),
            self.untold
        );
        println!(
            "  director        {:.2} cores, {:.1} µs a heartbeat, {:.0} MiB",
            self.director_cores, self.director_us_per_heartbeat, self.director_resident_mib
        );
        if let (Some(cores), Some(each), Some(mib)) =
            (self.bus_cores, self.bus_us_per_heartbeat, self.bus_resident_mib)
        {
            println!("  nats-server     {cores:.2} cores, {each:.1} µs a heartbeat, {mib:.0} MiB");
        }
        if let Some(each) = self.own_us_per_heartbeat {
            println!("  this program    {each:.1} µs a heartbeat");
        }
    }
}
