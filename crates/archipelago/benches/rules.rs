//! Cost of a placement decision with many rules. A thousand peers arrive, each far from all others; the flush
//! opens a thousand islands and decides the rule and the node of each. The case without rules is the baseline:
//! the same work except for the rules. Single-threaded.

use std::{fmt::Write, sync::Arc, time::Duration};

use archipelago::{Engine, Heartbeat, Input, Settings, rules::Rules, sim};
use divan::{Bencher, counter::ItemsCount};
use protocol::Position;

fn main() {
    divan::main();
}

const DECISIONS: u32 = 1_000;
const RULES: [usize; 4] = [0, 10, 1_000, 10_000];
const APART_M: f32 = 400.0;

/// The kind of rules in a benchmark.
#[derive(Clone, Copy)]
enum Kind {
    /// Each rule has its own area, and peers arrive in some of them.
    Areas,
    /// Each rule applies everywhere, but to a number of members that no island has, so that all rules are
    /// evaluated.
    Everywhere,
}

fn rules(kind: Kind, count: usize) -> Arc<Rules> {
    let mut text = String::new();
    for number in 0..count {
        let (x, z) = place(number as u32);
        let condition = match kind {
            Kind::Areas => format!("area = {{ circle = {{ center = [{x}, {z}], radius_m = 150 }} }}"),
            Kind::Everywhere => format!("people = {{ min = {} }}", 2 + number),
        };
        let _ = writeln!(text, "[[rule]]\nname = \"rule {number}\"\n{condition}\ntransports = [\"ws-room\"]");
    }
    Arc::new(Rules::parse(&text).expect("valid rules"))
}

fn place(number: u32) -> (f32, f32) {
    ((number % 100) as f32 * APART_M, (number / 100) as f32 * APART_M)
}

/// An engine with these rules, after the first heartbeats of all peers and before their first flush.
fn arrived_engine(rules: &Arc<Rules>) -> Engine {
    let mut engine = Engine::new(Settings::default(), 0).expect("valid settings");
    let node = sim::node("node".parse().expect("a name"), u32::MAX);
    engine.handle(Input::Transport(node), Duration::ZERO);
    engine.handle(Input::Rules(rules.clone()), Duration::ZERO);
    engine.flush(Duration::ZERO, &mut Vec::new());
    for number in 0..DECISIONS {
        let (x, z) = place(number);
        let (peer, position) = (sim::address(number), Position::new(x, 0.0, z));
        engine.handle(Input::Heartbeat(Heartbeat::new(peer, position)), Duration::ZERO);
    }
    engine
}

fn decide(bencher: Bencher<'_, '_>, kind: Kind, count: usize) {
    let rules = rules(kind, count);
    bencher.counter(ItemsCount::new(DECISIONS)).with_inputs(|| arrived_engine(&rules)).bench_local_values(
        |mut engine| {
            let mut outputs = Vec::new();
            engine.flush(Duration::from_millis(250), &mut outputs);
            assert_eq!(engine.islands_count(), DECISIONS as usize);
            (engine, outputs)
        },
    );
}

/// Rules with areas of their own.
#[divan::bench(args = RULES, sample_count = 50, sample_size = 1)]
fn decisions_areas(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, Kind::Areas, count);
}

/// Rules that must all be evaluated.
#[divan::bench(args = RULES, sample_count = 50, sample_size = 1)]
fn decisions_everywhere(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, Kind::Everywhere, count);
}

/// Time of `handle` for peers that walk among areas.
#[divan::bench(args = RULES, sample_count = 50, sample_size = 1)]
fn heartbeats_areas(bencher: Bencher<'_, '_>, count: usize) {
    let rules = rules(Kind::Areas, count);
    let walk = |engine: &mut Engine, by: f32| {
        for number in 0..DECISIONS {
            let (x, z) = place(number);
            let (peer, position) = (sim::address(number), Position::new(x + by, 0.0, z));
            let input = Input::Heartbeat(Heartbeat::new(peer, position));
            engine.handle(input, Duration::from_millis(300));
        }
    };
    bencher
        .counter(ItemsCount::new(DECISIONS))
        .with_inputs(|| {
            let mut engine = arrived_engine(&rules);
            engine.flush(Duration::from_millis(250), &mut Vec::new());
            engine
        })
        .bench_local_values(|mut engine| {
            walk(&mut engine, 3.0);
            engine
        });
}

/// New rules for a thousand islands: `handle` and the next flush.
#[divan::bench(args = RULES, sample_count = 10, sample_size = 1)]
fn other_rules(bencher: Bencher<'_, '_>, count: usize) {
    let rules = rules(Kind::Areas, count);
    bencher
        .with_inputs(|| {
            let mut engine = arrived_engine(&rules);
            engine.flush(Duration::from_millis(250), &mut Vec::new());
            engine
        })
        .bench_local_values(|mut engine| {
            engine.handle(Input::Rules(rules.clone()), Duration::from_millis(500));
            engine.flush(Duration::from_millis(500), &mut Vec::new());
            engine
        });
}
