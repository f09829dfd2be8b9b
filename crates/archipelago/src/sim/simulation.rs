//! One simulation: a workload runs against the engine, and its quality and speed are measured.

use std::time::Duration;

use super::{
    fixtures::{self, address},
    measure::{Recall, percentile},
    workload::{Walkers, Workload},
};
use crate::{
    engine::Engine,
    event::{Heartbeat, Input, Output},
    invariants::{InvariantChecker, Violation},
    settings::{Settings, SettingsError},
};

/// The parameters of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulationConfig {
    /// Where peers are and how they move.
    pub workload: Workload,
    /// Number of peers.
    pub peers: usize,
    /// The engine's settings.
    pub settings: Settings,
    /// Seconds to measure, after the first minute, in which all peers arrive.
    pub seconds: u32,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Whether crowds are split by position. Otherwise islands fill in the order of arrival.
    pub split_by_position: bool,
    /// Whether to check the invariants after each flush. Slow above some thousands of peers.
    pub check_invariants: bool,
}

/// The results of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements {
    /// The share of a peer's ten nearest neighbours within the join distance that are in its island, over
    /// all peers and the measured time. 1 if no peer has a neighbour.
    pub recall: f64,
    /// Assignments to another island, per peer and minute.
    pub changes_per_minute: f64,
    /// Most assignments to another island in one flush, as a share of all peers.
    pub largest_change: f64,
    /// Flushes until the engine produced no more output after all peers stopped, 0 to 9; `None`: it still
    /// did in the tenth flush.
    pub silent_after: Option<u32>,
    /// Number of islands at the end.
    pub islands: usize,
    /// Number of peers at the end.
    pub peers: usize,
    /// Bytes of engine memory per peer at the end.
    pub bytes_per_peer: f64,
    /// Median duration of a measured flush.
    pub flush_p50: Duration,
    /// 99th percentile.
    pub flush_p99: Duration,
    /// Maximum.
    pub flush_max: Duration,
}

/// Why a simulation failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulationError {
    /// The engine rejected the settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An invariant was violated.
    #[error("after {seconds} s: {violation}")]
    Violation {
        /// Simulated seconds until then.
        seconds: f64,
        /// The violation.
        violation: Violation,
    },
}

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const FLUSHES_PER_SECOND: u32 = 4;
/// All peers arrive within this time.
const ARRIVAL_S: u32 = 60;
/// Interval of recall samples.
const SAMPLE_INTERVAL_S: u32 = 5;
const FREEZE_FLUSHES: u32 = 10;

/// A running simulation.
pub struct Simulation {
    config: SimulationConfig,
    walkers: Walkers,
    engine: Engine,
    checker: Option<InvariantChecker>,
    now: Duration,
    outputs: Vec<Output>,
    arrived: Vec<bool>,
}

impl Simulation {
    /// Prepares a simulation. No peer has arrived yet.
    ///
    /// # Errors
    ///
    /// The engine rejects the settings.
    pub fn new(config: SimulationConfig) -> Result<Self, SettingsError> {
        let mut engine = Engine::new(config.settings.clone(), 0)?;
        engine.rebalances = config.split_by_position;
        let walkers = Walkers::new(config.workload, config.peers, config.seed);
        let checker = config.check_invariants.then(InvariantChecker::default);
        let arrived = vec![false; walkers.count()];
        let now = Duration::from_secs(1_000);
        Ok(Self { config, walkers, engine, checker, now, outputs: Vec::new(), arrived })
    }

    /// Simulates the arrival of all peers, then measures. `clock` is read before and after each flush.
    ///
    /// # Errors
    ///
    /// The first violation, if invariants are checked.
    pub fn run(&mut self, mut clock: impl FnMut() -> Duration) -> Result<Measurements, SimulationError> {
        for flush in 0..ARRIVAL_S * FLUSHES_PER_SECOND {
            self.advance(flush, &mut clock)?;
        }
        let (mut recall, mut flush_times) = (Recall::default(), Vec::new());
        let (mut changes, mut largest) = (0, 0);
        for flush in 0..self.config.seconds * FLUSHES_PER_SECOND {
            flush_times.push(self.advance(flush, &mut clock)?);
            let changed = self.count_island_changes();
            changes += changed;
            largest = largest.max(changed);
            if (flush + 1).is_multiple_of(SAMPLE_INTERVAL_S * FLUSHES_PER_SECOND) {
                recall.sample(&self.engine);
            }
        }
        let minutes = f64::from(self.config.seconds.max(1)) / 60.0;
        let peers = self.config.peers.max(1) as f64;
        flush_times.sort_unstable();
        Ok(Measurements {
            recall: recall.share(),
            changes_per_minute: changes as f64 / peers / minutes,
            largest_change: largest as f64 / peers,
            flush_p50: percentile(&flush_times, 0.5),
            flush_p99: percentile(&flush_times, 0.99),
            flush_max: percentile(&flush_times, 1.0),
            islands: self.engine.islands_count(),
            peers: self.engine.peers_count(),
            bytes_per_peer: self.engine.bytes() as f64 / self.engine.peers_count().max(1) as f64,
            silent_after: self.flushes_until_silent(&mut clock)?,
        })
    }

    /// The engine in its present state.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Simulates a quarter of a second: all peers walk, a quarter of them send heartbeats, the engine
    /// flushes. Returns the duration of the flush.
    fn advance(
        &mut self,
        flush: u32,
        clock: &mut impl FnMut() -> Duration,
    ) -> Result<Duration, SimulationError> {
        self.walkers.step(FLUSH_INTERVAL.as_secs_f64());
        let elapsed = (self.now - Duration::from_secs(1_000)).as_secs_f64();
        for index in 0..self.walkers.count() {
            let due = arrival_s(index, self.walkers.count(), self.config.workload) <= elapsed;
            if due && index as u32 % FLUSHES_PER_SECOND == flush % FLUSHES_PER_SECOND {
                self.send_heartbeat(index);
            }
        }
        self.flush(clock)
    }

    fn send_heartbeat(&mut self, peer_index: usize) {
        let peer = address(peer_index as u32);
        match self.walkers.position(peer_index) {
            Some(position) => {
                self.arrived[peer_index] = true;
                self.handle(Input::Heartbeat(Heartbeat::new(peer, position)));
            }
            None if std::mem::take(&mut self.arrived[peer_index]) => {
                self.handle(Input::Disconnected { peer, session: None });
            }
            None => {}
        }
    }

    fn handle(&mut self, input: Input) {
        if let Some(checker) = &mut self.checker {
            checker.observe_input(&input);
        }
        self.engine.handle(input, self.now);
    }

    fn flush(&mut self, clock: &mut impl FnMut() -> Duration) -> Result<Duration, SimulationError> {
        self.now += FLUSH_INTERVAL;
        if let Ok(node) = "node".parse() {
            self.handle(Input::Transport(fixtures::node(node, u32::MAX)));
        }
        self.outputs.clear();
        let before = clock();
        self.engine.flush(self.now, &mut self.outputs);
        let taken = clock().saturating_sub(before);
        if let Some(checker) = &mut self.checker {
            let seconds = (self.now - Duration::from_secs(1_000)).as_secs_f64();
            checker
                .check_flush(&self.engine, &self.outputs)
                .map_err(|violation| SimulationError::Violation { seconds, violation })?;
        }
        Ok(taken)
    }

    /// Number of assignments to another island in the last flush.
    fn count_island_changes(&self) -> usize {
        let changes = self.outputs.iter().filter(|output| match output {
            Output::Assigned { island, from, .. } => from.as_ref().is_some_and(|from| *from != island.id),
            _ => false,
        });
        changes.count()
    }

    /// Keeps all peers where they are and counts the flushes until there is no more output.
    fn flushes_until_silent(
        &mut self,
        clock: &mut impl FnMut() -> Duration,
    ) -> Result<Option<u32>, SimulationError> {
        let mut last = 0;
        for flush in 1..=FREEZE_FLUSHES {
            self.flush(clock)?;
            if self.outputs.iter().any(|output| !matches!(output, Output::Closed { .. })) {
                last = flush;
            }
        }
        Ok((last < FREEZE_FLUSHES).then_some(last))
    }
}

/// Time of a peer's arrival, in seconds. In the crossing workload all peers are present from the start.
fn arrival_s(index: usize, peers: usize, workload: Workload) -> f64 {
    match workload {
        Workload::Crossing => 0.0,
        _ => f64::from(ARRIVAL_S - 1) * index as f64 / peers as f64,
    }
}
