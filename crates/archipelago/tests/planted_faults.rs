//! The witness sees what it is there to see: each of many faults, planted in a plain engine, is
//! caught, and the same engine without a fault is not. And the plain engine and the real one agree.

mod plain;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use archipelago::{
    Engine, Input, Settings, Transport, TransportKind,
    invariants::{Bounds, InvariantChecker, Partition, Violation},
    sim::{Rng, address},
};
use plain::{Fault, Plain};
use protocol::{Address, Position};

const WORLDS: u64 = 200;
const FLUSHES: u32 = 12;

/// Random people who come, walk and leave: the inputs of one flush after the other.
struct Story {
    rng: Rng,
    side_m: f64,
    people: BTreeMap<u32, Position>,
    come: u32,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let side_m = rng.range(100.0, 1_200.0);
        Self { rng, side_m, people: BTreeMap::new(), come: 0 }
    }

    fn next(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        let coming = if self.come == 0 { 40 } else { self.rng.below(4) };
        for _ in 0..coming {
            let at = Position::new(
                self.rng.range(0.0, self.side_m) as f32,
                0.0,
                self.rng.range(0.0, self.side_m) as f32,
            );
            self.people.insert(self.come, at);
            self.come += 1;
        }
        let leaving: Vec<u32> = self.people.keys().copied().filter(|_| self.rng.chance(0.03)).collect();
        for person in leaving {
            self.people.remove(&person);
            inputs.push(Input::Disconnected { peer: address(person), session: None });
        }
        for (&person, at) in &mut self.people {
            if self.rng.chance(0.7) {
                at.x += self.rng.range(-12.0, 12.0) as f32;
                at.z += self.rng.range(-12.0, 12.0) as f32;
            }
            inputs.push(heartbeat(address(person), *at));
        }
        inputs
    }
}

fn heartbeat(peer: Address, position: Position) -> Input {
    Input::Heartbeat { peer, session: None, position, desired_room: None }
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
    })
}

fn bounds(limit: u32) -> Bounds {
    Bounds::uniform(limit, 64.0, 80.0)
}

/// What the witness says of the plain engine in one world.
fn observe(seed: u64, fault: Option<Fault>) -> Result<(), Violation> {
    let mut story = Story::new(seed);
    let limit = 3 + story.rng.below(20) as u32;
    let mut plain = Plain::new(bounds(limit), fault);
    let mut witness = InvariantChecker::default();
    witness.observe_input(&announcement());
    for _ in 0..FLUSHES {
        for input in story.next() {
            witness.observe_input(&input);
            plain.handle(&input);
        }
        let mut outputs = Vec::new();
        plain.flush(&mut outputs);
        witness.check_partition(&plain.picture(), &bounds(limit), &outputs)?;
    }
    Ok(())
}

#[test]
fn reference_engine_without_fault_passes() {
    for seed in 0..WORLDS {
        observe(seed, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

/// Plants a fault in many worlds; in at least one it must be seen, and for what it is.
fn assert_detected(fault: Fault, expected: impl Fn(&Violation) -> bool) {
    let seen: Vec<Violation> = (0..WORLDS).filter_map(|seed| observe(seed, Some(fault)).err()).collect();
    assert!(seen.iter().any(expected), "{fault:?}: {:?}", seen.first());
    println!("{fault:?}: seen in {} of {WORLDS} worlds", seen.len());
}

#[test]
fn merge_through_a_third_island_is_detected() {
    assert_detected(Fault::MergesThroughThird, |seen| matches!(seen, Violation::NotConnected(_)));
}

#[test]
fn reused_id_is_detected() {
    assert_detected(Fault::ReusesId, |seen| matches!(seen, Violation::ReusedId(_)));
}

#[test]
fn missing_split_is_detected() {
    assert_detected(Fault::ForgetsSplit, |seen| matches!(seen, Violation::NotConnected(_)));
}

#[test]
fn island_above_limit_is_detected() {
    assert_detected(Fault::LimitOffByOne, |seen| matches!(seen, Violation::TooLarge(..)));
}

#[test]
fn duplicate_assignment_is_detected() {
    assert_detected(Fault::TellsTwice, |seen| matches!(seen, Violation::RedundantAssignment(_)));
}

#[test]
fn disconnected_member_is_detected() {
    assert_detected(Fault::KeepsStale, |seen| matches!(seen, Violation::StaleMember(_)));
}

#[test]
fn wrong_survivor_is_detected() {
    assert_detected(Fault::WrongSurvivor, |seen| matches!(seen, Violation::WrongSurvivor { .. }));
}

#[test]
fn merge_at_leave_distance_is_detected() {
    assert_detected(Fault::JoinsFar, |seen| matches!(seen, Violation::JoinedTooFar(_)));
}

#[test]
fn split_at_join_distance_is_detected() {
    assert_detected(Fault::LeavesNear, |seen| matches!(seen, Violation::NeedlessSplit(_)));
}

#[test]
fn wrong_former_island_is_detected() {
    assert_detected(Fault::WrongFormer, |seen| matches!(seen, Violation::WrongFormerIsland(_)));
}

#[test]
fn missing_assignment_is_detected() {
    assert_detected(Fault::ForgetsToTell, |seen| matches!(seen, Violation::MissingAssignment(_)));
}

#[test]
fn missing_merge_is_detected() {
    assert_detected(Fault::ForgetsMerge, |seen| matches!(seen, Violation::Unmerged(..)));
}

#[test]
fn peer_in_two_islands_is_detected() {
    assert_detected(Fault::InTwoIslands, |seen| matches!(seen, Violation::TwoIslands(_)));
}

fn member_sets(picture: &Partition) -> BTreeSet<BTreeSet<Address>> {
    let members = |island: &archipelago::invariants::IslandMembers| {
        island.members.iter().map(|&(peer, _)| peer).collect()
    };
    picture.islands.iter().map(members).collect()
}

#[test]
fn engine_matches_reference_engine() {
    for seed in 0..WORLDS {
        let mut story = Story::new(seed);
        // Where everybody fits there is but one way to be right.
        let mut plain = Plain::new(bounds(10_000), None);
        let settings =
            Settings { max_island_size: 10_000, return_window: Duration::ZERO, ..Settings::default() };
        let mut engine = Engine::new(settings, 0).unwrap();
        for flush in 0..FLUSHES {
            let now = Duration::from_secs(100 + u64::from(flush));
            for input in story.next() {
                plain.handle(&input);
                engine.handle(input, now);
            }
            plain.flush(&mut Vec::new());
            engine.flush(now, &mut Vec::new());
            let (expected, actual) = (member_sets(&plain.picture()), member_sets(&Partition::of(&engine)));
            assert_eq!(actual, expected, "seed {seed}, flush {flush}");
        }
    }
}

#[test]
fn same_inputs_give_same_outputs() {
    let play = |seed: u64| {
        let mut story = Story::new(seed);
        let mut engine = Engine::new(Settings { max_island_size: 7, ..Settings::default() }, 5).unwrap();
        let mut outputs = Vec::new();
        for flush in 0..FLUSHES {
            let now = Duration::from_secs(100 + u64::from(flush));
            engine.handle(announcement(), now);
            story.next().into_iter().for_each(|input| engine.handle(input, now));
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
