//! Splitting crowds by position keeps neighbours together, and the number of island changes bounded.

use std::time::Duration;

use archipelago::{
    Engine, Heartbeat, Input, Output, Settings, Transport,
    sim::{self, Measurements, Rng, Simulation, SimulationConfig, Workload, address},
};
use protocol::Position;

fn plan(workload: Workload, peers: usize) -> SimulationConfig {
    SimulationConfig {
        workload,
        peers,
        settings: Settings::default(),
        seconds: 120,
        seed: 1,
        split_by_position: true,
        check_invariants: false,
    }
}

fn run(plan: SimulationConfig) -> Measurements {
    let outcome =
        Simulation::new(plan).expect("valid settings").run(|| Duration::ZERO).expect("no violation");
    println!("{outcome:?}");
    outcome
}

#[test]
fn dense_crowd_keeps_neighbours_together() {
    let outcome = run(plan(Workload::Crowd100, 1_000));
    assert!(outcome.recall >= 0.80 && outcome.changes_per_minute <= 3.0);
    assert!(outcome.silent_after.is_some_and(|flushes| flushes <= 2));
}

#[test]
fn festival_keeps_neighbours_together() {
    let outcome = run(plan(Workload::Festival, 2_000));
    assert!(outcome.recall >= 0.83 && outcome.changes_per_minute <= 1.8);
    assert!(outcome.silent_after.is_some_and(|flushes| flushes <= 2));
}

#[test]
fn splitting_by_position_beats_first_come() {
    let by_place = run(plan(Workload::Plaza, 300));
    let first_come = run(SimulationConfig { split_by_position: false, ..plan(Workload::Plaza, 300) });
    assert!(by_place.recall > first_come.recall + 0.3);
}

#[test]
fn crowd_workloads_violate_no_invariant() {
    for workload in [Workload::Teleports, Workload::Exodus, Workload::Spawn, Workload::Crossing] {
        let settings = Settings { max_island_size: 30, ..Settings::default() };
        run(SimulationConfig { settings, seconds: 30, check_invariants: true, ..plan(workload, 200) });
    }
}

#[test]
fn drawing_shows_every_peer_and_island() {
    let mut trial = Simulation::new(SimulationConfig { seconds: 5, ..plan(Workload::Plaza, 150) }).unwrap();
    trial.run(|| Duration::ZERO).unwrap();
    let svg = sim::draw(trial.engine());
    assert_eq!(svg.matches("<circle").count(), 150);
    assert_eq!(svg.matches("<polygon").count(), trial.engine().islands_count());
}

#[test]
fn workload_names_round_trip() {
    for workload in Workload::all() {
        assert_eq!(workload.to_string().parse(), Ok(workload));
    }
    assert!("square".parse::<Workload>().is_err());
}

/// Number of peers assigned to another island than before.
fn changes(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Assigned { from: Some(_), .. })).count()
}

#[test]
fn peer_above_the_limit_barely_disturbs_the_others() {
    let mut engine = Engine::new(Settings::default(), 0).unwrap();
    let mut rng = Rng::new(1);
    let mut now = Duration::from_secs(1_000);
    let mut add_peer = |engine: &mut Engine, number: u32, now: Duration| {
        let mut metres = || rng.range(0.0, 100.0) as f32;
        let position = Position::new(metres(), 0.0, metres());
        engine.handle(Input::Heartbeat(Heartbeat::new(address(number), position)), now);
    };
    engine.handle(Input::Transport(node()), now);
    (0..100).for_each(|number| add_peer(&mut engine, number, now));
    engine.flush(now, &mut Vec::new());
    assert_eq!(engine.islands_count(), 1);
    for islands in [2, 1, 2, 1, 2, 1] {
        now += Duration::from_millis(250);
        match islands {
            2 => add_peer(&mut engine, 100, now),
            _ => engine.handle(Input::Disconnected { peer: address(100), session: None }, now),
        }
        let mut outputs = Vec::new();
        engine.flush(now, &mut outputs);
        assert_eq!(engine.islands_count(), islands);
        assert!(changes(&outputs) <= 12, "{} changes", changes(&outputs));
    }
}

fn node() -> Transport {
    sim::node("node".parse().expect("a name"), 1_000)
}
