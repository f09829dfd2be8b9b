//! Benchmarks of a flush. Single-threaded.
//!
//! Between two flushes all peers walk for a quarter of a second, the flush interval: 0.4 m; or, in the
//! benchmarks named `far`, for two seconds, the heartbeat interval of some clients: 3 m. The time of `handle`
//! for those heartbeats is measured separately.

#[path = "../tests/reference_engine/mod.rs"]
mod reference_engine;

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use archipelago::{
    ClientReport, Engine, EngineSnapshot, Heartbeat, Input, LastAssignment, Output, PeerSnapshot, PeerView,
    ReportedAssignment, Settings,
    invariants::{Bounds, Partition},
    sim::{Walkers, Workload, address, node},
};
use divan::{Bencher, counter::ItemsCount};
use protocol::Address;
use reference_engine::ReferenceEngine;

fn main() {
    divan::main();
}

/// Time that all peers walk between two flushes, in seconds.
const STEP_S: f64 = 0.25;
const FAR_S: f64 = 2.0;
const WORKLOADS: [Workload; 3] = [Workload::City, Workload::Sparse, Workload::Hotspots];
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// An engine with walking peers.
struct BenchWorld {
    walkers: Walkers,
    engine: Engine,
    now: Duration,
    outputs: Vec<Output>,
    round: usize,
}

impl BenchWorld {
    fn new(workload: Workload, peers: usize) -> Self {
        // A silence limit of a day: peers without heartbeats must not be removed while a benchmark runs.
        let settings = Settings {
            silence: Duration::from_secs(86_400),
            transport_timeout: Duration::from_secs(3_600),
            ..Settings::default()
        };
        Self::with(settings, workload, peers)
    }

    /// With a node that has seats for all peers.
    fn with(settings: Settings, workload: Workload, peers: usize) -> Self {
        let mut engine = Engine::new(settings, 0).expect("valid settings");
        let now = Duration::from_secs(1_000);
        let node = node("node".parse().expect("a name"), u32::MAX);
        engine.handle(Input::Transport(node), now);
        Self { walkers: Walkers::new(workload, peers, 1), engine, now, outputs: Vec::new(), round: 0 }
    }

    /// The same, after five flushes.
    fn after_five_flushes(workload: Workload, peers: usize) -> Self {
        let mut bench = Self::new(workload, peers);
        for _ in 0..5 {
            bench.walk(FAR_S, 1);
            bench.flush();
        }
        bench
    }

    fn inputs(&mut self, every: usize) -> Vec<Input> {
        self.round += 1;
        let is_due = |index: &usize| (index + self.round).is_multiple_of(every);
        let peers = (0..self.walkers.count()).filter(is_due);
        let input = |index: usize| {
            let position = self.walkers.position(index)?;
            Some(Input::Heartbeat(Heartbeat::new(address(index as u32), position)))
        };
        peers.filter_map(input).collect()
    }

    /// All peers walk; one in `every` sends a heartbeat, having walked for `step_s` since its last one.
    fn walk(&mut self, step_s: f64, every: usize) {
        self.walkers.step(step_s / every as f64);
        for input in self.inputs(every) {
            self.engine.handle(input, self.now);
        }
    }

    /// The state to resume from: the assignment of every peer.
    fn snapshot(&self) -> EngineSnapshot {
        let peer_snapshot = |peer: PeerView<'_>| {
            let island = peer.island()?;
            Some(PeerSnapshot {
                peer: peer.address(),
                session: peer.session(),
                transports: None,
                position: peer.position(),
                desired_room: None,
                needs_assignment: false,
                cluster: None,
                last_assigned: Some(LastAssignment {
                    island: island.id(),
                    node: island.transport()?.clone(),
                }),
                last_seen: self.now,
                departed_at: None,
                taken_over: false,
            })
        };
        EngineSnapshot {
            transports: self.engine.transports().map(|view| view.transport.clone()).collect(),
            peers: self.engine.peers().filter_map(peer_snapshot).collect(),
            ..EngineSnapshot::default()
        }
    }

    fn flush(&mut self) -> usize {
        self.now += Duration::from_millis(250);
        self.outputs.clear();
        self.engine.flush(self.now, &mut self.outputs);
        self.outputs.len()
    }
}

fn flushes(bencher: Bencher<'_, '_>, workload: Workload, peers: usize, step_s: f64, every: usize) {
    let bench = RefCell::new(BenchWorld::after_five_flushes(workload, peers));
    bencher
        .counter(ItemsCount::new(peers / every))
        .with_inputs(|| bench.borrow_mut().walk(step_s, every))
        .bench_local_values(|()| bench.borrow_mut().flush());
}

/// All peers moved.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_city(bencher: Bencher<'_, '_>, peers: usize) {
    flushes(bencher, Workload::City, peers, STEP_S, 1);
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_sparse(bencher: Bencher<'_, '_>, peers: usize) {
    flushes(bencher, Workload::Sparse, peers, STEP_S, 1);
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_hotspots(bencher: Bencher<'_, '_>, peers: usize) {
    flushes(bencher, Workload::Hotspots, peers, STEP_S, 1);
}

/// All peers moved by 3 m.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_far_city(bencher: Bencher<'_, '_>, peers: usize) {
    flushes(bencher, Workload::City, peers, FAR_S, 1);
}

/// One peer in a hundred moved, by 3 m.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn one_percent_moving_city(bencher: Bencher<'_, '_>, peers: usize) {
    flushes(bencher, Workload::City, peers, FAR_S, 100);
}

/// Time of `handle` when all peers move.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn heartbeats_city(bencher: Bencher<'_, '_>, peers: usize) {
    let bench = RefCell::new(BenchWorld::after_five_flushes(Workload::City, peers));
    bencher
        .counter(ItemsCount::new(peers))
        .with_inputs(|| {
            let mut bench = bench.borrow_mut();
            bench.flush();
            bench.walkers.step(FAR_S);
            bench.inputs(1)
        })
        .bench_local_values(|inputs| {
            let bench = &mut *bench.borrow_mut();
            inputs.into_iter().for_each(|input| bench.engine.handle(input, bench.now));
        });
}

/// All peers arrive at once: their heartbeats and the first flush of an engine.
#[divan::bench(args = [10_000, 100_000], sample_count = 10, sample_size = 1)]
fn cold_start_city(bencher: Bencher<'_, '_>, peers: usize) {
    bencher
        .counter(ItemsCount::new(peers))
        .with_inputs(|| {
            let mut bench = BenchWorld::new(Workload::City, peers);
            let inputs = bench.inputs(1);
            (bench, inputs)
        })
        .bench_local_values(|(mut bench, inputs)| {
            inputs.into_iter().for_each(|input| bench.engine.handle(input, bench.now));
            bench.flush();
            bench
        });
}

/// A takeover: resuming an engine from the clients' assignments, and its first flush.
#[divan::bench(args = [10_000, 100_000], sample_count = 10, sample_size = 1)]
fn resume_city(bencher: Bencher<'_, '_>, peers: usize) {
    let bench = BenchWorld::after_five_flushes(Workload::City, peers);
    let settings = bench.engine.settings();
    bencher.counter(ItemsCount::new(peers)).with_inputs(|| bench.snapshot()).bench_local_values(|snapshot| {
        let mut engine = Engine::resume(settings.clone(), 1, snapshot, bench.now).expect("valid settings");
        let mut outputs = Vec::new();
        engine.flush(bench.now, &mut outputs);
        assert_eq!(outputs, []);
        engine
    });
}

/// Time of `handle` for heartbeats of peers that stay, with the last assignments of their clients.
#[divan::bench(args = [10_000, 100_000], sample_count = 10, sample_size = 1)]
fn reporting_heartbeats_city(bencher: Bencher<'_, '_>, peers: usize) {
    let bench = RefCell::new(BenchWorld::after_five_flushes(Workload::City, peers));
    let peer_snapshots = bench.borrow().snapshot().peers;
    let heartbeat = |snapshot: &PeerSnapshot| {
        let last = snapshot.last_assigned.as_ref()?;
        let reported = ReportedAssignment { island: last.island.to_string(), node: last.node.to_string() };
        let client = ClientReport { last_assigned: Some(reported), ..ClientReport::default() };
        let heartbeat = Heartbeat::new(snapshot.peer, snapshot.position);
        Some(Input::Heartbeat(Heartbeat { client: Some(Box::new(client)), ..heartbeat }))
    };
    bencher
        .counter(ItemsCount::new(peers))
        .with_inputs(|| peer_snapshots.iter().filter_map(heartbeat).collect::<Vec<_>>())
        .bench_local_values(|inputs| {
            let bench = &mut *bench.borrow_mut();
            inputs.into_iter().for_each(|input| bench.engine.handle(input, bench.now));
        });
}

/// The baseline: the reference engine, which computes every distance, in a world where the size limit has no
/// effect, so that there is one correct partition. Both engines must produce it, which is checked.
#[divan::bench(args = [1_000, 10_000], sample_count = 5, sample_size = 1)]
fn baseline_reference_engine(bencher: Bencher<'_, '_>, peers: usize) {
    let comparison = RefCell::new(Comparison::new(peers));
    bencher
        .with_inputs(|| {
            let mut comparison = comparison.borrow_mut();
            comparison.walk();
            comparison.bench.flush();
        })
        .bench_local_values(|()| comparison.borrow_mut().reference.flush(&mut Vec::new()));
    comparison.borrow().compare();
}

/// The engine in the world of the baseline.
#[divan::bench(args = [1_000, 10_000], sample_count = 20, sample_size = 1)]
fn baseline_engine(bencher: Bencher<'_, '_>, peers: usize) {
    let comparison = RefCell::new(Comparison::new(peers));
    bencher
        .with_inputs(|| comparison.borrow_mut().walk())
        .bench_local_values(|()| comparison.borrow_mut().bench.flush());
}

/// The engine and the reference engine with the same peers.
struct Comparison {
    bench: BenchWorld,
    reference: ReferenceEngine,
}

impl Comparison {
    fn new(peers: usize) -> Self {
        let limit = 10_000;
        let settings = BenchWorld::new(Workload::Town, 0).engine.settings().clone();
        let settings = Settings { max_island_size: limit, ..settings };
        let bench = BenchWorld::with(settings, Workload::Town, peers);
        let bounds = Bounds::uniform(limit, 64.0, 80.0);
        let mut comparison = Self { bench, reference: ReferenceEngine::new(bounds, None) };
        comparison.walk();
        comparison.bench.flush();
        comparison.reference.flush(&mut Vec::new());
        comparison
    }

    fn walk(&mut self) {
        self.bench.walkers.step(FAR_S);
        for input in self.bench.inputs(1) {
            self.reference.handle(&input);
            self.bench.engine.handle(input, self.bench.now);
        }
    }

    fn compare(&self) {
        let member_sets = |partition: Partition| -> BTreeSet<BTreeSet<Address>> {
            let islands = partition.islands.into_iter();
            islands.map(|island| island.members.into_iter().map(|(peer, _)| peer).collect()).collect()
        };
        assert!(member_sets(self.reference.partition()) == member_sets(Partition::of(&self.bench.engine)));
    }
}

/// Prints the engine's memory per peer in bytes; no time is measured.
#[divan::bench(args = WORKLOADS, sample_count = 1, sample_size = 1)]
fn bytes_of_a_million(bencher: Bencher<'_, '_>, workload: Workload) {
    let bench = BenchWorld::after_five_flushes(workload, 1_000_000);
    let bytes = bench.engine.bytes() as f64 / bench.engine.peers_count() as f64;
    println!("{workload}: {bytes:.0} bytes a peer, {} islands", bench.engine.islands_count());
    bencher.bench_local(|| ());
}
