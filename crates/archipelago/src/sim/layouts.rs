//! Random layouts: peers arrive, walk and leave, then all keep their positions. From then on the engine
//! must produce no output, and neither must an engine that takes over from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use protocol::{Address, IslandId, NodeName, Position};

use super::{
    fixtures::{self, address},
    rng::Rng,
};
use crate::{
    engine::Engine,
    event::{Heartbeat, Input, Output},
    invariants::{InvariantChecker, Partition, Violation},
    settings::Settings,
    snapshot::{EngineSnapshot, LastAssignment, PeerSnapshot},
};

/// Totals over many layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Layouts that passed.
    pub layouts: u64,
    /// Layouts with a crowd: a connected group of peers above the size limit.
    pub crowded: u64,
    /// Peers in all of them together.
    pub peers: u64,
    /// Islands in all of them together.
    pub islands: u64,
}

/// The seed and flush at which a layout failed, and why.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("layout of seed {seed}, flush {flush}: {reason}")]
pub struct LayoutError {
    /// The seed that reproduces the layout.
    pub seed: u64,
    /// The flush after which it failed, from 1; 0: before the first.
    pub flush: u32,
    /// The reason.
    pub reason: LayoutFault,
}

/// Why a layout can fail.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LayoutFault {
    /// An invariant was violated.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// No peer had moved for two flushes, and the engine still produced outputs.
    #[error("not silent: {0:?}")]
    NotSilent(Vec<Output>),
    /// An engine that took over has different islands.
    #[error("the islands differ after a takeover")]
    IslandsChangedByTakeover,
    /// The engine rejected the layout's settings.
    #[error("invalid settings")]
    InvalidSettings,
}

/// Runs the layouts of `count` seeds from `first_seed` on, on all cores.
///
/// # Errors
///
/// A layout that failed; the others are then not run.
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
                let result =
                    Layout::new(first_seed.wrapping_add(seed)).and_then(|layout| layout.run(&mut summary));
                // After a failure the other threads stop at their next batch.
                result.inspect_err(|_| next_seed.store(count, Ordering::Relaxed))?;
            }
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    results.into_iter().try_fold(Summary::default(), |total, result| {
        // A panic in a layout is propagated to the caller.
        let summary = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(total.plus(summary))
    })
}

/// Number of seeds that a thread claims at once.
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
    /// Side of the square in which peers are placed, in metres.
    side_m: f64,
    /// Number and position of each peer in the world.
    peers: Vec<(u32, Position)>,
    next_peer: u32,
    /// Number, last position, last assignment and time of departure of peers that left.
    departed: Vec<(u32, Position, LastAssignment, Duration)>,
}

/// Bounds of the mean spacing of peers, in metres: the density decides how many layouts have crowds.
const SPACING_M: (f64, f64) = (4.0, 110.0);
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

impl Layout {
    fn new(seed: u64) -> Result<Self, LayoutError> {
        let mut rng = Rng::new(seed);
        let settings = Settings { max_island_size: rng.log_range(2, 100), ..Settings::default() };
        let engine = Engine::new(settings, seed);
        let engine =
            engine.map_err(|_| LayoutError { seed, flush: 0, reason: LayoutFault::InvalidSettings })?;
        let peers = f64::from(rng.log_range(3, 300));
        let spacing_m = rng.range(SPACING_M.0.ln(), SPACING_M.1.ln()).exp();
        let mut layout = Self {
            seed,
            rng,
            engine,
            checker: InvariantChecker::default(),
            now: Duration::from_secs(100),
            flushes: 0,
            side_m: peers.sqrt() * spacing_m,
            peers: Vec::new(),
            next_peer: 0,
            departed: Vec::new(),
        };
        layout.announce_node();
        (0..peers as u32).for_each(|_| layout.add_peer());
        Ok(layout)
    }

    fn run(mut self, summary: &mut Summary) -> Result<(), LayoutError> {
        self.flush()?;
        for _ in 0..1 + self.rng.below(4) {
            self.change_randomly();
            self.flush()?;
        }
        // From here on no peer moves.
        self.flush()?;
        self.silent_flush()?;
        self.take_over()?;
        self.silent_flush()?;
        self.silent_flush()?;
        // Moving away and back between two flushes changes no position, but makes the engine evaluate
        // every island again: the first such flush may still change islands, later ones must not.
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
        self.handle(Input::Transport(fixtures::node(node, 1_000)));
    }

    fn send_heartbeat(&mut self, peer: u32, position: Position) {
        let peer = address(peer);
        self.handle(Input::Heartbeat(Heartbeat::new(peer, position)));
    }

    fn add_peer(&mut self) {
        let (peer, position) = (self.next_peer, self.random_position());
        self.next_peer += 1;
        self.peers.push((peer, position));
        self.send_heartbeat(peer, position);
    }

    /// Random peers leave, arrive, walk or jump.
    fn change_randomly(&mut self) {
        let leaving = self.rng.below(self.peers.len() / 4 + 1);
        for _ in 0..leaving {
            let index = self.rng.below(self.peers.len());
            let (peer, position) = self.peers.swap_remove(index);
            if let Some(assignment) = self.current_assignment(address(peer)) {
                self.departed.push((peer, position, assignment, self.now));
            }
            self.handle(Input::Disconnected { peer: address(peer), session: None });
        }
        let arriving = self.rng.below(self.peers.len() / 4 + 2);
        (0..arriving).for_each(|_| self.add_peer());
        let share = self.rng.unit();
        let max_step_m = self.rng.range(0.5, 30.0);
        for index in 0..self.peers.len() {
            if !self.rng.chance(share) {
                continue;
            }
            let (peer, Position { x, z, .. }) = self.peers[index];
            let to = if self.rng.chance(0.05) {
                self.random_position()
            } else {
                let mut step = || self.rng.range(-max_step_m, max_step_m) as f32;
                Position::new(x + step(), 0.0, z + step())
            };
            self.peers[index].1 = to;
            self.send_heartbeat(peer, to);
        }
    }

    /// The last assignment of a peer: after each flush it is its island and node, as the node has seats for
    /// all.
    fn current_assignment(&self, peer: Address) -> Option<LastAssignment> {
        let island = self.engine.peer(peer)?.island()?;
        Some(LastAssignment { island: island.id(), node: island.transport()?.clone() })
    }

    /// Replaces the engine by one that knows only the clients' last assignments, as after a failover.
    fn take_over(&mut self) -> Result<(), LayoutError> {
        let peer_snapshot = |(peer, position, assignment, departed_at): (
            u32,
            Position,
            Option<LastAssignment>,
            Option<Duration>,
        )| {
            let (peer, last_seen) = (address(peer), self.now);
            PeerSnapshot {
                peer,
                session: None,
                transports: None,
                position,
                desired_room: None,
                needs_assignment: false,
                cluster: None,
                last_assigned: assignment,
                last_seen,
                departed_at,
                taken_over: false,
            }
        };
        let present =
            self.peers.iter().map(|&(peer, at)| (peer, at, self.current_assignment(address(peer)), None));
        let absent = self
            .departed
            .iter()
            .map(|(peer, at, assignment, when)| (*peer, *at, Some(assignment.clone()), Some(*when)));
        let snapshot = EngineSnapshot {
            transports: self.engine.transports().map(|view| view.transport.clone()).collect(),
            peers: present.chain(absent).map(peer_snapshot).collect(),
            ..EngineSnapshot::default()
        };
        let before = members_by_island(&self.engine);
        let engine =
            Engine::resume(self.engine.settings().clone(), self.seed.wrapping_add(1), snapshot, self.now);
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
        let is_closed = |assignment: &LastAssignment| {
            outputs.contains(&Output::Closed { island: assignment.island.clone() })
        };
        self.departed.retain(|(_, _, assignment, _)| !is_closed(assignment));
        match self.checker.check_flush(&self.engine, &outputs) {
            Ok(()) => Ok(outputs),
            Err(violation) => Err(self.error(violation.into())),
        }
    }

    fn silent_flush(&mut self) -> Result<(), LayoutError> {
        let mut outputs = self.flush()?;
        // An island kept for the return of its last member may close: that concerns no present peer.
        outputs.retain(|output| !matches!(output, Output::Closed { .. }));
        if outputs.is_empty() { Ok(()) } else { Err(self.error(LayoutFault::NotSilent(outputs))) }
    }

    fn error(&self, reason: LayoutFault) -> LayoutError {
        LayoutError { seed: self.seed, flush: self.flushes, reason }
    }

    /// Whether some group of peers connected by hops of the join distance exceeds the size limit.
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

/// The node and members of each island.
fn members_by_island(engine: &Engine) -> BTreeMap<IslandId, (Option<NodeName>, BTreeSet<Address>)> {
    let islands = Partition::of(engine).islands.into_iter();
    let peers = |members: Vec<(Address, Position)>| members.into_iter().map(|(peer, _)| peer).collect();
    islands.map(|island| (island.id, (island.transport, peers(island.members)))).collect()
}
