//! `atoll sim`: runs the island engine with simulated peers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use archipelago::{
    Engine, Settings, scenario,
    sim::{Measurements, Simulation, SimulationConfig, Workload, draw, layouts},
};
use serde::Serialize;

/// The flags of `atoll sim`. A flag's doc comment is its help text.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// The workload: crowd-100, festival, plaza, town, city, sparse, hotspots, teleports, exodus, spawn
    /// or crossing.
    #[arg(long, default_value = "crowd-100", conflicts_with_all = ["scenario", "layouts"])]
    workload: Workload,
    /// The number of peers; each workload has its own default.
    #[arg(long)]
    peers: Option<usize>,
    /// The maximum of members of an island.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// The simulated seconds to measure, after the minute in which all peers arrive.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
    /// The seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Assign peers in the order of arrival, instead of splitting crowds by place: the baseline.
    #[arg(long)]
    first_come: bool,
    /// Check the invariants after every flush; slow above some thousand peers.
    #[arg(long)]
    check: bool,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    /// Draw peers and islands, coloured by island, into this file at the end.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Run a scenario file instead, and report the line that fails.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Run so many random layouts instead, from --seed on: peers arrive, walk, leave and stop, and then
    /// the engine must stop changing assignments.
    #[arg(long, value_name = "COUNT")]
    layouts: Option<u64>,
}

pub(crate) fn run(flags: &Flags) -> Result<ExitCode> {
    if let Some(path) = &flags.scenario {
        return run_scenario(path, flags.svg.as_deref());
    }
    if let Some(count) = flags.layouts {
        return run_layouts(flags.seed, count);
    }
    let people = flags.peers.unwrap_or_else(|| flags.workload.default_peers());
    let settings = Settings { max_island_size: flags.limit, ..Settings::default() };
    let plan = SimulationConfig {
        workload: flags.workload,
        peers: people,
        settings,
        seconds: flags.seconds,
        seed: flags.seed,
        split_by_position: !flags.first_come,
        check_invariants: flags.check,
    };
    let mut trial = Simulation::new(plan)?;
    let began = Instant::now();
    let outcome = trial.run(|| began.elapsed())?;
    if let Some(path) = &flags.svg {
        write_drawing(trial.engine(), path)?;
    }
    let report = Report::new(flags, people, &outcome);
    if flags.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(ExitCode::SUCCESS)
}

fn write_drawing(engine: &Engine, path: &Path) -> Result<()> {
    fs::write(path, draw(engine)).with_context(|| format!("cannot write {}", path.display()))
}

fn run_scenario(path: &Path, svg: Option<&Path>) -> Result<ExitCode> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let staged = match scenario::run_to_engine(&text) {
        Ok(staged) => staged,
        Err(error) => bail!("{}: {error}", path.display()),
    };
    println!("{}: passed", path.display());
    if let (Some((engine, _)), Some(svg)) = (staged, svg) {
        write_drawing(&engine, svg)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_layouts(first_seed: u64, count: u64) -> Result<ExitCode> {
    let began = Instant::now();
    let total =
        layouts::run(first_seed, count).context("replay it with --layouts 1 and its seed as --seed")?;
    println!(
        "{} layouts from seed {first_seed} on became stable in {:.0} s; {} of them ({:.0} %) had a group above the limit",
        total.layouts,
        began.elapsed().as_secs_f64(),
        total.crowded,
        100.0 * total.crowded as f64 / total.layouts.max(1) as f64,
    );
    Ok(ExitCode::SUCCESS)
}

/// The result of a simulation. Its field names are JSON keys.
#[derive(Debug, Serialize)]
struct Report {
    workload: String,
    peers: usize,
    limit: u32,
    seed: u64,
    by_place: bool,
    /// The share of a peer's ten nearest peers that are in its island.
    recall: f64,
    /// Island changes of one peer per minute.
    churn: f64,
    largest_change: f64,
    /// Flushes without movement until no assignment changed; absent: more than ten.
    settled: Option<u32>,
    islands: usize,
    flush_ms: FlushTimes,
    bytes_per_peer: f64,
}

#[derive(Debug, Serialize)]
struct FlushTimes {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Report {
    fn new(flags: &Flags, peers: usize, outcome: &Measurements) -> Self {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
        Self {
            workload: flags.workload.to_string(),
            peers,
            limit: flags.limit,
            seed: flags.seed,
            by_place: !flags.first_come,
            recall: outcome.recall,
            churn: outcome.changes_per_minute,
            largest_change: outcome.largest_change,
            settled: outcome.silent_after,
            islands: outcome.islands,
            flush_ms: FlushTimes {
                p50: milliseconds(outcome.flush_p50),
                p99: milliseconds(outcome.flush_p99),
                max: milliseconds(outcome.flush_max),
            },
            bytes_per_peer: outcome.bytes_per_peer,
        }
    }

    fn print(&self) {
        let settled = self.settled.map_or("never".to_owned(), |flushes| format!("after {flushes} flushes"));
        println!("{}: {} peers, limit {}, seed {}", self.workload, self.peers, self.limit, self.seed);
        println!("  recall@10       {:.3}", self.recall);
        println!(
            "  churn           {:.2} island changes per peer and minute, at most {:.1} % of all peers in one flush",
            self.churn,
            100.0 * self.largest_change
        );
        println!("  settled         {settled}");
        println!("  islands         {}", self.islands);
        let FlushTimes { p50, p99, max } = self.flush_ms;
        println!("  flush           p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms");
        println!("  memory          {:.0} bytes a peer", self.bytes_per_peer);
    }
}
