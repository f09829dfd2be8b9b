//! The invariant checker detects each of many faults planted in a reference engine, and the same engine without
//! a fault passes. The reference engine and the real one agree.

mod reference_engine;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use archipelago::{
    Engine, Heartbeat, Input, Settings, Transport, TransportKind,
    invariants::{Bounds, InvariantChecker, Partition, Violation},
    sim::{Rng, address},
};
use protocol::{Address, Position};
use reference_engine::{Fault, ReferenceEngine};

const WORLDS: u64 = 200;
const FLUSHES: u32 = 12;

/// Random peers that arrive, walk and leave: the inputs of one flush after the other.
struct RandomInputs {
    rng: Rng,
    side_m: f64,
    positions: BTreeMap<u32, Position>,
    next_peer: u32,
}

impl RandomInputs {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let side_m = rng.range(100.0, 1_200.0);
        Self { rng, side_m, positions: BTreeMap::new(), next_peer: 0 }
    }

    fn next_flush(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        let arriving = if self.next_peer == 0 { 40 } else { self.rng.below(4) };
        for _ in 0..arriving {
            let at = Position::new(
                self.rng.range(0.0, self.side_m) as f32,
                0.0,
                self.rng.range(0.0, self.side_m) as f32,
            );
            self.positions.insert(self.next_peer, at);
            self.next_peer += 1;
        }
        let leaving: Vec<u32> = self.positions.keys().copied().filter(|_| self.rng.chance(0.03)).collect();
        for number in leaving {
            self.positions.remove(&number);
            inputs.push(Input::Disconnected { peer: address(number), session: None });
        }
        for (&number, at) in &mut self.positions {
            if self.rng.chance(0.7) {
                at.x += self.rng.range(-12.0, 12.0) as f32;
                at.z += self.rng.range(-12.0, 12.0) as f32;
            }
            inputs.push(heartbeat(address(number), *at));
        }
        inputs
    }
}

fn heartbeat(peer: Address, position: Position) -> Input {
    Input::Heartbeat(Heartbeat::new(peer, position))
}

fn announcement() -> Input {
    Input::Transport(Transport {
        node: "node".parse().expect("a name"),
        kind: TransportKind::WsRoom,
        capability: TransportKind::WsRoom.as_str().into(),
        max_island_size: 10_000,
        seats: None,
        users: 0,
        draining: false,
        public_url: "ws://node".into(),
        started_ms: 0,
        note: None,
    })
}

fn bounds(limit: u32) -> Bounds {
    Bounds::uniform(limit, 64.0, 80.0)
}

/// Checks the reference engine with a fault in one random world.
fn observe(seed: u64, fault: Option<Fault>) -> Result<(), Violation> {
    let mut inputs = RandomInputs::new(seed);
    let limit = 3 + inputs.rng.below(20) as u32;
    let mut reference = ReferenceEngine::new(bounds(limit), fault);
    let mut checker = InvariantChecker::default();
    checker.observe_input(&announcement());
    for _ in 0..FLUSHES {
        for input in inputs.next_flush() {
            checker.observe_input(&input);
            reference.handle(&input);
        }
        let mut outputs = Vec::new();
        reference.flush(&mut outputs);
        checker.check_partition(&reference.partition(), &bounds(limit), &outputs)?;
    }
    Ok(())
}

#[test]
fn reference_engine_without_fault_passes() {
    for seed in 0..WORLDS {
        observe(seed, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

/// Asserts that a fault is reported in at least one of many worlds, as the expected violation.
fn assert_detected(fault: Fault, expected: impl Fn(&Violation) -> bool) {
    let violations: Vec<Violation> =
        (0..WORLDS).filter_map(|seed| observe(seed, Some(fault)).err()).collect();
    assert!(violations.iter().any(expected), "{fault:?}: {:?}", violations.first());
    println!("{fault:?}: detected in {} of {WORLDS} worlds", violations.len());
}

#[test]
fn merge_through_a_third_island_is_detected() {
    assert_detected(Fault::MergesThroughThird, |violation| matches!(violation, Violation::NotConnected(_)));
}

#[test]
fn reused_id_is_detected() {
    assert_detected(Fault::ReusesId, |violation| matches!(violation, Violation::ReusedId(_)));
}

#[test]
fn missing_split_is_detected() {
    assert_detected(Fault::SkipsSplit, |violation| matches!(violation, Violation::NotConnected(_)));
}

#[test]
fn island_above_limit_is_detected() {
    assert_detected(Fault::LimitOffByOne, |violation| matches!(violation, Violation::TooLarge(..)));
}

#[test]
fn duplicate_assignment_is_detected() {
    assert_detected(Fault::AssignsTwice, |violation| matches!(violation, Violation::RedundantAssignment(_)));
}

#[test]
fn disconnected_member_is_detected() {
    assert_detected(Fault::KeepsDisconnected, |violation| matches!(violation, Violation::StaleMember(_)));
}

#[test]
fn wrong_survivor_is_detected() {
    assert_detected(Fault::KeepsSmallerIsland, |violation| {
        matches!(violation, Violation::WrongSurvivor { .. })
    });
}

#[test]
fn merge_at_leave_distance_is_detected() {
    assert_detected(Fault::JoinsFar, |violation| matches!(violation, Violation::JoinedTooFar(_)));
}

#[test]
fn split_at_join_distance_is_detected() {
    assert_detected(Fault::LeavesNear, |violation| matches!(violation, Violation::NeedlessSplit(_)));
}

#[test]
fn wrong_former_island_is_detected() {
    assert_detected(Fault::NamesWrongFormer, |violation| {
        matches!(violation, Violation::WrongFormerIsland(_))
    });
}

#[test]
fn missing_assignment_is_detected() {
    assert_detected(Fault::OmitsAssignment, |violation| matches!(violation, Violation::MissingAssignment(_)));
}

#[test]
fn missing_merge_is_detected() {
    assert_detected(Fault::SkipsMerge, |violation| matches!(violation, Violation::Unmerged(..)));
}

#[test]
fn peer_in_two_islands_is_detected() {
    assert_detected(Fault::InTwoIslands, |violation| matches!(violation, Violation::TwoIslands(_)));
}

fn member_sets(partition: &Partition) -> BTreeSet<BTreeSet<Address>> {
    let members = |island: &archipelago::invariants::IslandMembers| {
        island.members.iter().map(|&(peer, _)| peer).collect()
    };
    partition.islands.iter().map(members).collect()
}

#[test]
fn engine_matches_reference_engine() {
    for seed in 0..WORLDS {
        let mut inputs = RandomInputs::new(seed);
        // Without a size limit in effect there is exactly one correct partition.
        let mut reference = ReferenceEngine::new(bounds(10_000), None);
        let settings =
            Settings { max_island_size: 10_000, return_window: Duration::ZERO, ..Settings::default() };
        let mut engine = Engine::new(settings, 0).unwrap();
        for flush in 0..FLUSHES {
            let now = Duration::from_secs(100 + u64::from(flush));
            for input in inputs.next_flush() {
                reference.handle(&input);
                engine.handle(input, now);
            }
            reference.flush(&mut Vec::new());
            engine.flush(now, &mut Vec::new());
            let (expected, actual) =
                (member_sets(&reference.partition()), member_sets(&Partition::of(&engine)));
            assert_eq!(actual, expected, "seed {seed}, flush {flush}");
        }
    }
}

#[test]
fn same_inputs_give_same_outputs() {
    let play = |seed: u64| {
        let mut inputs = RandomInputs::new(seed);
        let mut engine = Engine::new(Settings { max_island_size: 7, ..Settings::default() }, 5).unwrap();
        let mut outputs = Vec::new();
        for flush in 0..FLUSHES {
            let now = Duration::from_secs(100 + u64::from(flush));
            engine.handle(announcement(), now);
            inputs.next_flush().into_iter().for_each(|input| engine.handle(input, now));
            engine.flush(now, &mut outputs);
        }
        outputs
    };
    for seed in 0..20 {
        let outputs = play(seed);
        assert!(!outputs.is_empty());
        assert!(outputs == play(seed), "seed {seed}");
    }
}
