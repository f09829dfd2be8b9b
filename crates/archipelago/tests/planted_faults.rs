//! The witness sees what it is there to see: each of many faults, planted in a plain engine, is
//! caught, and the same engine without a fault is not. And the plain engine and the real one agree.

mod plain;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use archipelago::{
    Engine, Input, Settings, Transport, TransportKind,
    invariants::{Bounds, Picture, Violation, Witness},
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
    Bounds::plain(limit, 64.0, 80.0)
}

/// What the witness says of the plain engine in one world.
fn observe(seed: u64, fault: Option<Fault>) -> Result<(), Violation> {
    let mut story = Story::new(seed);
    let limit = 3 + story.rng.below(20) as u32;
    let mut plain = Plain::new(bounds(limit), fault);
    let mut witness = Witness::default();
    witness.hear(&announcement());
    for _ in 0..FLUSHES {
        for input in story.next() {
            witness.hear(&input);
            plain.handle(&input);
        }
        let mut outputs = Vec::new();
        plain.flush(&mut outputs);
        witness.see_picture(&plain.picture(), &bounds(limit), &outputs)?;
    }
    Ok(())
}

#[test]
fn nothing_is_seen_where_nothing_is_wrong() {
    for seed in 0..WORLDS {
        observe(seed, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

/// Plants a fault in many worlds; in at least one it must be seen, and for what it is.
fn caught(fault: Fault, expected: impl Fn(&Violation) -> bool) {
    let seen: Vec<Violation> = (0..WORLDS).filter_map(|seed| observe(seed, Some(fault)).err()).collect();
    assert!(seen.iter().any(expected), "{fault:?}: {:?}", seen.first());
    println!("{fault:?}: seen in {} of {WORLDS} worlds", seen.len());
}

#[test]
fn a_merge_through_a_third_is_seen() {
    caught(Fault::MergesThroughThird, |seen| matches!(seen, Violation::Apart(_)));
}

#[test]
fn a_reused_id_is_seen() {
    caught(Fault::ReusesId, |seen| matches!(seen, Violation::Reused(_)));
}

#[test]
fn a_forgotten_split_is_seen() {
    caught(Fault::ForgetsSplit, |seen| matches!(seen, Violation::Apart(_)));
}

#[test]
fn a_limit_off_by_one_is_seen() {
    caught(Fault::LimitOffByOne, |seen| matches!(seen, Violation::TooLarge(..)));
}

#[test]
fn who_is_told_twice_is_seen() {
    caught(Fault::TellsTwice, |seen| matches!(seen, Violation::ToldForNothing(_)));
}

#[test]
fn a_stale_member_is_seen() {
    caught(Fault::KeepsStale, |seen| matches!(seen, Violation::Stale(_)));
}

#[test]
fn a_wrong_survivor_is_seen() {
    caught(Fault::WrongSurvivor, |seen| matches!(seen, Violation::WrongSurvivor { .. }));
}

#[test]
fn joining_at_the_leave_distance_is_seen() {
    caught(Fault::JoinsFar, |seen| matches!(seen, Violation::JoinedFar(_)));
}

#[test]
fn leaving_at_the_join_distance_is_seen() {
    caught(Fault::LeavesNear, |seen| matches!(seen, Violation::Parted(_)));
}

#[test]
fn a_wrong_former_island_is_seen() {
    caught(Fault::WrongFormer, |seen| matches!(seen, Violation::WrongFormer(_)));
}

#[test]
fn who_is_not_told_is_seen() {
    caught(Fault::ForgetsToTell, |seen| matches!(seen, Violation::NotTold(_)));
}

#[test]
fn a_forgotten_merge_is_seen() {
    caught(Fault::ForgetsMerge, |seen| matches!(seen, Violation::Unmerged(..)));
}

#[test]
fn a_peer_in_two_islands_is_seen() {
    caught(Fault::InTwoIslands, |seen| matches!(seen, Violation::TwoIslands(_)));
}

fn partition(picture: &Picture) -> BTreeSet<BTreeSet<Address>> {
    let members = |island: &archipelago::invariants::PicturedIsland| {
        island.members.iter().map(|&(peer, _)| peer).collect()
    };
    picture.islands.iter().map(members).collect()
}

#[test]
fn the_engine_makes_the_islands_that_the_plain_one_makes() {
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
            let (expected, actual) = (partition(&plain.picture()), partition(&Picture::of(&engine)));
            assert_eq!(actual, expected, "seed {seed}, flush {flush}");
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
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
