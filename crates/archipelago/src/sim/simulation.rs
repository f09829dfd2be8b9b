use std::time::Duration;

use protocol::{Address, IslandId, Position};
use rustc_hash::FxHashMap;

use super::{
    Walkers, Workload, address,
    measure::{Recall, percentile},
};
use crate::{
    Engine, Input, Output, Settings, SettingsError,
    invariants::{InvariantChecker, Violation},
};

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulationConfig {
    /// Who walks where.
    pub workload: Workload,
    /// How many people.
    pub peers: usize,
    /// The engine's settings.
    pub settings: Settings,
    /// For how long to measure, after the first minute, in which everybody arrives.
    pub seconds: u32,
    /// What chance does.
    pub seed: u64,
    /// Whether pieces of crowds are cut by place. Without it, who comes first is served first.
    pub split_by_position: bool,
    /// Whether to hold each flush against the invariants. Slow above some thousands of people.
    pub check_invariants: bool,
}

/// What a simulation showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements {
    /// Of the ten people nearest to somebody, within the join distance, the share who are in the
    /// same island; over everybody, over the measured time. 1 where nobody is near anybody.
    pub recall: f64,
    /// Island changes that a person was told of, in a minute.
    pub changes_per_minute: f64,
    /// The most island changes that all people together were told of in one flush, as a share of
    /// them.
    pub largest_change: f64,
    /// Flushes after which nothing was announced any more once everybody stood still, 0 to 10;
    /// `None`: it was never silent in ten.
    pub silent_after: Option<u32>,
    /// Islands at the end.
    pub islands: usize,
    /// Peers at the end.
    pub peers: usize,
    /// Bytes that the engine holds for each peer at the end.
    pub bytes_per_peer: f64,
    /// Half of the measured flushes took at most this long.
    pub flush_p50: Duration,
    /// 99 of 100 did.
    pub flush_p99: Duration,
    /// All did.
    pub flush_max: Duration,
}

/// Why a simulation could not go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulationError {
    /// The settings do not hold.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Something was not as it must be.
    #[error("after {seconds} s: {violation}")]
    Violation {
        /// Simulated seconds until then.
        seconds: f64,
        /// What.
        violation: Violation,
    },
}

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const FLUSHES_PER_SECOND: u32 = 4;
/// Everybody arrives within this time.
const ARRIVAL_S: u32 = 60;
/// How often the recall is taken.
const SAMPLE_INTERVAL_S: u32 = 5;
const FREEZE_FLUSHES: u32 = 10;

/// A simulation under way.
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
    /// Sets a simulation up. Nobody has arrived yet.
    pub fn new(plan: SimulationConfig) -> Result<Self, SettingsError> {
        let mut engine = Engine::new(plan.settings.clone(), 0)?;
        engine.rebalances = plan.split_by_position;
        let world = Walkers::new(plan.workload, plan.peers, plan.seed);
        let witness = plan.check_invariants.then(InvariantChecker::default);
        let arrived = vec![false; world.count()];
        let now = Duration::from_secs(1_000);
        Ok(Self { config: plan, walkers: world, engine, checker: witness, now, outputs: Vec::new(), arrived })
    }

    /// Lets everybody arrive, then measures. `clock` is read before and after each flush.
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
        let people = self.config.peers.max(1) as f64;
        flush_times.sort_unstable();
        Ok(Measurements {
            recall: recall.share(),
            changes_per_minute: changes as f64 / people / minutes,
            largest_change: largest as f64 / people,
            flush_p50: percentile(&flush_times, 0.5),
            flush_p99: percentile(&flush_times, 0.99),
            flush_max: percentile(&flush_times, 1.0),
            islands: self.engine.islands_count(),
            peers: self.engine.peers_count(),
            bytes_per_peer: self.engine.bytes() as f64 / self.engine.peers_count().max(1) as f64,
            silent_after: self.flushes_until_silent(&mut clock)?,
        })
    }

    /// The engine as it is.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A quarter of a second: everybody walks, every fourth says where it is, the engine flushes.
    fn advance(
        &mut self,
        flush: u32,
        clock: &mut impl FnMut() -> Duration,
    ) -> Result<Duration, SimulationError> {
        self.walkers.step(FLUSH_INTERVAL.as_secs_f64());
        let elapsed = (self.now - Duration::from_secs(1_000)).as_secs_f64();
        for person in 0..self.walkers.count() {
            let due = arrival_s(person, self.walkers.count(), self.config.workload) <= elapsed;
            if due && person as u32 % FLUSHES_PER_SECOND == flush % FLUSHES_PER_SECOND {
                self.send_heartbeat(person);
            }
        }
        self.flush(clock)
    }

    fn send_heartbeat(&mut self, peer_index: usize) {
        let peer = address(peer_index as u32);
        match self.walkers.position(peer_index) {
            Some(position) => {
                self.arrived[peer_index] = true;
                self.handle(Input::Heartbeat { peer, session: None, position, desired_room: None });
            }
            None if std::mem::take(&mut self.arrived[peer_index]) => {
                self.handle(Input::Disconnected { peer, session: None });
            }
            None => {}
        }
    }

    fn handle(&mut self, input: Input) {
        if let Some(witness) = &mut self.checker {
            witness.observe_input(&input);
        }
        self.engine.handle(input, self.now);
    }

    fn flush(&mut self, clock: &mut impl FnMut() -> Duration) -> Result<Duration, SimulationError> {
        self.now += FLUSH_INTERVAL;
        if let Ok(node) = "node".parse() {
            self.handle(Input::Transport(super::node(node, u32::MAX)));
        }
        self.outputs.clear();
        let before = clock();
        self.engine.flush(self.now, &mut self.outputs);
        let taken = clock().saturating_sub(before);
        if let Some(witness) = &mut self.checker {
            let seconds = (self.now - Duration::from_secs(1_000)).as_secs_f64();
            witness
                .check_flush(&self.engine, &self.outputs)
                .map_err(|violation| SimulationError::Violation { seconds, violation })?;
        }
        Ok(taken)
    }

    /// How many were told of another island than before.
    fn count_island_changes(&self) -> usize {
        let told = self.outputs.iter().filter(|output| match output {
            Output::Assigned { island, from, .. } => from.as_ref().is_some_and(|from| from != island),
            _ => false,
        });
        told.count()
    }

    /// Everybody stands still: how many flushes until silence?
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

/// When somebody arrives, in seconds. Whoever crosses is there from the beginning.
fn arrival_s(person: usize, people: usize, workload: Workload) -> f64 {
    match workload {
        Workload::Crossing => 0.0,
        _ => f64::from(ARRIVAL_S - 1) * person as f64 / people as f64,
    }
}

/// Who is in which island and where, for drawings and measurements.
pub(super) fn all_members(engine: &Engine) -> Vec<(Address, Position, usize)> {
    let mut numbers: FxHashMap<IslandId, usize> = FxHashMap::default();
    let mut everybody = Vec::new();
    for island in engine.islands() {
        let next = numbers.len();
        let number = *numbers.entry(island.id()).or_insert(next);
        everybody.extend(island.members().map(|(peer, position)| (peer, position, number)));
    }
    everybody
}
