//! Crowds are cut by place, at a price in changes that stays within bounds.

use std::time::Duration;

use archipelago::{
    Engine, Input, Output, Settings, Transport,
    sim::{self, Outcome, Plan, Rng, Trial, Workload, address},
};
use protocol::Position;

fn plan(workload: Workload, people: usize) -> Plan {
    Plan {
        workload,
        people,
        settings: Settings::default(),
        seconds: 120,
        seed: 1,
        by_place: true,
        witnessed: false,
    }
}

fn run(plan: Plan) -> Outcome {
    let outcome = Trial::new(plan).expect("settings that hold").run(|| Duration::ZERO).expect("no violation");
    println!("{outcome:?}");
    outcome
}

#[test]
fn in_a_dense_crowd_neighbours_are_together() {
    let outcome = run(plan(Workload::Crowd100, 1_000));
    assert!(outcome.recall >= 0.80 && outcome.changes_per_minute <= 3.0);
    assert!(outcome.settled_after.is_some_and(|flushes| flushes <= 2));
}

#[test]
fn at_a_festival_neighbours_are_together() {
    let outcome = run(plan(Workload::Festival, 2_000));
    assert!(outcome.recall >= 0.83 && outcome.changes_per_minute <= 1.8);
    assert!(outcome.settled_after.is_some_and(|flushes| flushes <= 2));
}

#[test]
fn first_come_first_served_is_worse() {
    let by_place = run(plan(Workload::Plaza, 300));
    let first_come = run(Plan { by_place: false, ..plan(Workload::Plaza, 300) });
    assert!(by_place.recall > first_come.recall + 0.3);
}

#[test]
fn whatever_crowds_do_nothing_is_seen_that_must_not_be() {
    for workload in [Workload::Teleports, Workload::Exodus, Workload::Spawn, Workload::Crossing] {
        let settings = Settings { max_island_size: 30, ..Settings::default() };
        run(Plan { settings, seconds: 30, witnessed: true, ..plan(workload, 200) });
    }
}

#[test]
fn everybody_is_in_the_drawing() {
    let mut trial = Trial::new(Plan { seconds: 5, ..plan(Workload::Plaza, 150) }).unwrap();
    trial.run(|| Duration::ZERO).unwrap();
    let svg = sim::draw(trial.engine());
    assert_eq!(svg.matches("<circle").count(), 150);
    assert_eq!(svg.matches("<polygon").count(), trial.engine().islands_count());
}

#[test]
fn a_workload_has_the_name_that_it_is_called_by() {
    for workload in Workload::all() {
        assert_eq!(workload.to_string().parse(), Ok(workload));
    }
    assert!("square".parse::<Workload>().is_err());
}

/// Everybody who was told of another island than before.
fn changes(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Assigned { from: Some(_), .. })).count()
}

#[test]
fn one_more_than_fits_who_comes_and_goes_does_not_part_the_others() {
    let mut engine = Engine::new(Settings::default(), 0).unwrap();
    let mut rng = Rng::new(1);
    let mut now = Duration::from_secs(1_000);
    let mut come = |engine: &mut Engine, person: u32, now: Duration| {
        let mut metres = || rng.range(0.0, 100.0) as f32;
        let position = Position::new(metres(), 0.0, metres());
        let peer = address(person);
        engine.handle(Input::Heartbeat { peer, session: None, position, desired_room: None }, now);
    };
    engine.handle(Input::Transport(node()), now);
    (0..100).for_each(|person| come(&mut engine, person, now));
    engine.flush(now, &mut Vec::new());
    assert_eq!(engine.islands_count(), 1);
    for islands in [2, 1, 2, 1, 2, 1] {
        now += Duration::from_millis(250);
        match islands {
            2 => come(&mut engine, 100, now),
            _ => engine.handle(Input::Disconnected { peer: address(100), session: None }, now),
        }
        let mut outputs = Vec::new();
        engine.flush(now, &mut outputs);
        assert_eq!(engine.islands_count(), islands);
        assert!(changes(&outputs) <= 12, "{} were told", changes(&outputs));
    }
}

fn node() -> Transport {
    sim::node("node".parse().expect("a name"), 1_000)
}
