//! Random layouts: people come, walk and leave, then everybody stands still, and the engine must
//! fall silent, and so must one that takes over from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use protocol::{Address, IslandId, NodeName, Position};

use super::{Rng, address};
use crate::{
    Engine, EngineSnapshot, Input, LastAssignment, Output, PeerSnapshot, Settings,
    invariants::{InvariantChecker, Partition, Violation},
};

/// What became of many layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// How many were tried.
    pub layouts: u64,
    /// How many had a connected group of people above the size limit.
    pub crowded: u64,
    /// How many people stood in all of them together.
    pub peers: u64,
    /// How many islands they were in.
    pub islands: u64,
}

/// Why a layout failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("layout of seed {seed}, flush {flush}: {reason}")]
pub struct LayoutError {
    /// The seed that makes this layout again.
    pub seed: u64,
    /// The flush after which it failed, from 1.
    pub flush: u32,
    /// What was wrong.
    pub reason: LayoutFault,
}

/// What can be wrong with a layout.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LayoutFault {
    /// Something that must never be.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// Everybody stood still for two flushes, and the engine still announced something.
    #[error("not silent: {0:?}")]
    NotSilent(Vec<Output>),
    /// An engine that took over has other islands.
    #[error("other islands after a takeover")]
    IslandsChangedByTakeover,
    /// The settings of the layout were refused.
    #[error("refused settings")]
    InvalidSettings,
}

/// Tries the layouts of `count` seeds from `first_seed` on, on all cores. Stops at one that fails.
pub fn run(first_seed: u64, count: u64) -> Result<Summary, LayoutError> {
    let next_seed = AtomicU64::new(0);
    let work = || {
        let mut summary = Summary::default();
        loop {
            let begin = next_seed.fetch_add(SEEDS_PER_BATCH, Ordering::Relaxed);
            if begin >= count {
                return Ok(summary);
            }
            for seed in begin..count.min(begin + SEEDS_PER_BATCH) {
                let played =
                    Layout::new(first_seed.wrapping_add(seed)).and_then(|layout| layout.run(&mut summary));
                // The others need not go on.
                played.inspect_err(|_| next_seed.store(count, Ordering::Relaxed))?;
            }
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    results.into_iter().try_fold(Summary::default(), |total, result| {
        // A panic in a layout is a panic here.
        let summary = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(total.plus(summary))
    })
}

/// Seeds that a core takes at a time.
const SEEDS_PER_BATCH: u64 = 256;

impl Summary {
    fn plus(self, other: Self) -> Self {
        Self {
            layouts: self.layouts + other.layouts,
            crowded: self.crowded + other.crowded,
            peers: self.peers + other.peers,
            islands: self.islands + other.islands,
        }
    }
}

struct Layout {
    seed: u64,
    rng: Rng,
    engine: Engine,
    checker: InvariantChecker,
    now: Duration,
    flushes: u32,
    /// Side of the square that people stand in, in metres.
    side_m: f64,
    /// Where everybody stands who is there.
    peers: Vec<(u32, Position)>,
    next_peer: u32,
    /// Where those stood who left, what they were told, and when they left.
    departed: Vec<(u32, Position, LastAssignment, Duration)>,
}

/// Metres that people stand apart at the fewest in a layout: the density decides how crowded it is.
const SPACING_M: (f64, f64) = (4.0, 110.0);
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

impl Layout {
    fn new(seed: u64) -> Result<Self, LayoutError> {
        let mut rng = Rng::new(seed);
        let settings = Settings { max_island_size: rng.log_range(2, 100), ..Settings::default() };
        let engine = Engine::new(settings, seed);
        let engine =
            engine.map_err(|_| LayoutError { seed, flush: 0, reason: LayoutFault::InvalidSettings })?;
        let people = f64::from(rng.log_range(3, 300));
        let spacing_m = rng.range(SPACING_M.0.ln(), SPACING_M.1.ln()).exp();
        let mut layout = Self {
            seed,
            rng,
            engine,
            checker: InvariantChecker::default(),
            now: Duration::from_secs(100),
            flushes: 0,
            side_m: people.sqrt() * spacing_m,
            peers: Vec::new(),
            next_peer: 0,
            departed: Vec::new(),
        };
        layout.announce_node();
        (0..people as u32).for_each(|_| layout.add_peer());
        Ok(layout)
    }

    fn run(mut self, summary: &mut Summary) -> Result<(), LayoutError> {
        self.flush()?;
        for _ in 0..1 + self.rng.below(4) {
            self.change_randomly();
            self.flush()?;
        }
        // From here on everybody stands still.
        self.flush()?;
        self.silent_flush()?;
        self.take_over()?;
        self.silent_flush()?;
        self.silent_flush()?;
        // Going away and coming back between two flushes is standing still, too; but it has the
        // engine look at every island again, so what one look finds to do the next finds done.
        self.move_and_return();
        self.flush()?;
        for _ in 0..2 {
            self.move_and_return();
            self.silent_flush()?;
        }
        self.now += self.engine.settings().return_window;
        self.move_and_return();
        self.silent_flush()?;
        summary.layouts += 1;
        summary.peers += self.peers.len() as u64;
        summary.islands += self.engine.islands_count() as u64;
        summary.crowded += u64::from(self.is_crowded());
        Ok(())
    }

    fn random_position(&mut self) -> Position {
        let mut metres = || self.rng.range(0.0, self.side_m) as f32;
        Position::new(metres(), 0.0, metres())
    }

    fn handle(&mut self, input: Input) {
        self.checker.observe_input(&input);
        self.engine.handle(input, self.now);
    }

    fn announce_node(&mut self) {
        let Ok(node) = "node".parse::<NodeName>() else { return };
        self.handle(Input::Transport(super::node(node, 1_000)));
    }

    fn send_heartbeat(&mut self, peer: u32, position: Position) {
        let peer = address(peer);
        self.handle(Input::Heartbeat { peer, session: None, position, desired_room: None });
    }

    fn add_peer(&mut self) {
        let (peer, position) = (self.next_peer, self.random_position());
        self.next_peer += 1;
        self.peers.push((peer, position));
        self.send_heartbeat(peer, position);
    }

    /// Some leave, some come, some walk, some are elsewhere all at once.
    fn change_randomly(&mut self) {
        let leaving = self.rng.below(self.peers.len() / 4 + 1);
        for _ in 0..leaving {
            let index = self.rng.below(self.peers.len());
            let (peer, position) = self.peers.swap_remove(index);
            if let Some(told) = self.current_assignment(address(peer)) {
                self.departed.push((peer, position, told, self.now));
            }
            self.handle(Input::Disconnected { peer: address(peer), session: None });
        }
        let coming = self.rng.below(self.peers.len() / 4 + 2);
        (0..coming).for_each(|_| self.add_peer());
        let share = self.rng.unit();
        let reach_m = self.rng.range(0.5, 30.0);
        for index in 0..self.peers.len() {
            if !self.rng.chance(share) {
                continue;
            }
            let (peer, Position { x, z, .. }) = self.peers[index];
            let to = if self.rng.chance(0.05) {
                self.random_position()
            } else {
                let mut step = || self.rng.range(-reach_m, reach_m) as f32;
                Position::new(x + step(), 0.0, z + step())
            };
            self.peers[index].1 = to;
            self.send_heartbeat(peer, to);
        }
    }

    /// What a peer was told last: all are told where they are at every flush.
    fn current_assignment(&self, peer: Address) -> Option<LastAssignment> {
        let island = self.engine.peer(peer)?.island()?;
        Some(LastAssignment { island: island.id(), node: island.transport()?.clone() })
    }

    /// Another engine takes over, which knows what clients were told.
    fn take_over(&mut self) -> Result<(), LayoutError> {
        let resident =
            |(peer, position, told, departed): (u32, Position, Option<LastAssignment>, Option<Duration>)| {
                let (peer, heard) = (address(peer), self.now);
                PeerSnapshot {
                    peer,
                    session: None,
                    transports: None,
                    position,
                    desired_room: None,
                    cluster: None,
                    last_assigned: told,
                    last_seen: heard,
                    departed_at: departed,
                    taken_over: false,
                }
            };
        let there =
            self.peers.iter().map(|&(peer, at)| (peer, at, self.current_assignment(address(peer)), None));
        let left =
            self.departed.iter().map(|(peer, at, told, when)| (*peer, *at, Some(told.clone()), Some(*when)));
        let takeover = EngineSnapshot {
            transports: self.engine.transports().map(|view| view.transport.clone()).collect(),
            peers: there.chain(left).map(resident).collect(),
            ..EngineSnapshot::default()
        };
        let before = members_by_island(&self.engine);
        let engine =
            Engine::resume(self.engine.settings().clone(), self.seed.wrapping_add(1), takeover, self.now);
        self.engine = engine.map_err(|_| self.error(LayoutFault::InvalidSettings))?;
        if members_by_island(&self.engine) == before {
            Ok(())
        } else {
            Err(self.error(LayoutFault::IslandsChangedByTakeover))
        }
    }

    fn move_and_return(&mut self) {
        for (peer, position) in self.peers.clone() {
            self.send_heartbeat(peer, Position { x: position.x + 1.0, ..position });
            self.send_heartbeat(peer, position);
        }
    }

    fn flush(&mut self) -> Result<Vec<Output>, LayoutError> {
        self.now += FLUSH_INTERVAL;
        self.flushes += 1;
        self.announce_node();
        let mut outputs = Vec::new();
        self.engine.flush(self.now, &mut outputs);
        let ended = |told: &LastAssignment| outputs.contains(&Output::Closed { island: told.island.clone() });
        self.departed.retain(|(_, _, told, _)| !ended(told));
        match self.checker.check_flush(&self.engine, &outputs) {
            Ok(()) => Ok(outputs),
            Err(violation) => Err(self.error(violation.into())),
        }
    }

    fn silent_flush(&mut self) -> Result<(), LayoutError> {
        let mut outputs = self.flush()?;
        // The end of an island that was kept for somebody's return concerns nobody who is there.
        outputs.retain(|output| !matches!(output, Output::Closed { .. }));
        if outputs.is_empty() { Ok(()) } else { Err(self.error(LayoutFault::NotSilent(outputs))) }
    }

    fn error(&self, reason: LayoutFault) -> LayoutError {
        LayoutError { seed: self.seed, flush: self.flushes, reason }
    }

    /// Whether people connected through hops of the join distance are more than fit an island.
    fn is_crowded(&self) -> bool {
        let limit = self.engine.open_zone_limit() as usize;
        let distance_m = self.engine.settings().join_distance_m;
        let mut unseen: Vec<Position> = self.peers.iter().map(|&(_, position)| position).collect();
        while let Some(first) = unseen.pop() {
            let (mut frontier, mut size) = (vec![first], 0);
            while let Some(from) = frontier.pop() {
                size += 1;
                unseen.retain(|&position| {
                    let near = from.ground_distance_squared(position) <= distance_m * distance_m;
                    if near {
                        frontier.push(position);
                    }
                    !near
                });
            }
            if size > limit {
                return true;
            }
        }
        false
    }
}

/// Who is where, and on which node.
fn members_by_island(engine: &Engine) -> BTreeMap<IslandId, (Option<NodeName>, BTreeSet<Address>)> {
    let islands = Partition::of(engine).islands.into_iter();
    let peers = |members: Vec<(Address, Position)>| members.into_iter().map(|(peer, _)| peer).collect();
    islands.map(|island| (island.id, (island.transport, peers(island.members)))).collect()
}
