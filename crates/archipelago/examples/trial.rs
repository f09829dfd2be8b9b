//! Simulates workloads, first by place and then first come first served, and prints a table.
//!
//! `cargo run --release -p archipelago --example trial -- [SEED] [WORKLOAD...]`

use std::time::Instant;

use archipelago::{
    Settings,
    sim::{Plan, Trial, Workload},
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let named: Vec<Workload> = arguments.filter_map(|name| name.parse().ok()).collect();
    let workloads = if named.is_empty() { Workload::all().collect() } else { named };
    println!(
        "workload    people  rule        recall  changes  largest  islands  settled   p50 µs   p99 µs   max µs  bytes"
    );
    let start = Instant::now();
    for workload in workloads {
        for by_place in [true, false] {
            let people = workload.people();
            let settings = Settings::default();
            let plan =
                Plan { workload, people, settings, seconds: 120, seed, by_place, witnessed: people <= 2_000 };
            let outcome =
                Trial::new(plan).map_err(Into::into).and_then(|mut trial| trial.run(|| start.elapsed()));
            match outcome {
                Err(error) => println!("{workload:<11} {people:>6}  {error}"),
                Ok(it) => println!(
                    "{workload:<11} {people:>6}  {:<11} {:>5.3}  {:>7.2}  {:>6.1}%  {:>7}  {:>7}  {:>7}  {:>7}  {:>7}  {:>5.0}",
                    if by_place { "by place" } else { "first come" },
                    it.recall,
                    it.changes_per_minute,
                    it.largest_change * 100.0,
                    it.islands,
                    it.settled_after.map_or("never".into(), |flushes| flushes.to_string()),
                    it.flush_p50.as_micros(),
                    it.flush_p99.as_micros(),
                    it.flush_max.as_micros(),
                    it.bytes_per_peer,
                ),
            }
        }
    }
}
