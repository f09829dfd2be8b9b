//! How long a flush takes. Single-threaded.
//!
//! Between two flushes everybody walks on for two seconds, the time between the heartbeats of
//! clients: 3 m. What `handle` takes for that is measured by itself.

use std::{cell::RefCell, time::Duration};

use archipelago::{
    Engine, Input, Output, Settings,
    sim::{Workload, World, address},
};
use divan::{Bencher, counter::ItemsCount};

fn main() {
    divan::main();
}

const STEP_S: f64 = 2.0;
const PLACES: [Workload; 3] = [Workload::City, Workload::Sparse, Workload::Hotspots];
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// An engine with people who walk.
struct Scene {
    world: World,
    engine: Engine,
    now: Duration,
    outputs: Vec<Output>,
    turn: usize,
}

impl Scene {
    fn new(place: Workload, people: usize) -> Self {
        // A day of silence: that people keep still is no reason to take them out.
        let settings = Settings { silence: Duration::from_secs(86_400), ..Settings::default() };
        let engine = Engine::new(settings, 0).expect("settings that hold");
        let world = World::new(place, people, 1);
        Self { world, engine, now: Duration::from_secs(1_000), outputs: Vec::new(), turn: 0 }
    }

    /// The same, after a while.
    fn settled(place: Workload, people: usize) -> Self {
        let mut scene = Self::new(place, people);
        for _ in 0..5 {
            scene.speak(1);
            scene.flush();
        }
        scene
    }

    fn inputs(&mut self, every: usize) -> Vec<Input> {
        self.turn += 1;
        let speaks = |person: &usize| (person + self.turn).is_multiple_of(every);
        let people = (0..self.world.people()).filter(speaks);
        let input = |person: usize| {
            let position = self.world.position(person)?;
            Some(Input::Heartbeat {
                peer: address(person as u32),
                session: None,
                position,
                desired_room: None,
            })
        };
        people.filter_map(input).collect()
    }

    /// Everybody walks, and one in so many says where it is, who has walked for two seconds then.
    fn speak(&mut self, every: usize) {
        self.world.step(STEP_S / every as f64);
        for input in self.inputs(every) {
            self.engine.handle(input, self.now);
        }
    }

    fn flush(&mut self) -> usize {
        self.now += Duration::from_millis(250);
        self.outputs.clear();
        self.engine.flush(self.now, &mut self.outputs);
        self.outputs.len()
    }
}

fn flushes(bencher: Bencher<'_, '_>, place: Workload, people: usize, every: usize) {
    let scene = RefCell::new(Scene::settled(place, people));
    bencher
        .counter(ItemsCount::new(people / every))
        .with_inputs(|| scene.borrow_mut().speak(every))
        .bench_local_values(|()| scene.borrow_mut().flush());
}

/// Everybody has moved.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_city(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::City, people, 1);
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_sparse(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::Sparse, people, 1);
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_hotspots(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::Hotspots, people, 1);
}

/// One in a hundred has moved.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn one_percent_moving_city(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::City, people, 100);
}

/// What `handle` takes when everybody moves.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn heartbeats_city(bencher: Bencher<'_, '_>, people: usize) {
    let scene = RefCell::new(Scene::settled(Workload::City, people));
    bencher
        .counter(ItemsCount::new(people))
        .with_inputs(|| {
            let mut scene = scene.borrow_mut();
            scene.flush();
            scene.world.step(STEP_S);
            scene.inputs(1)
        })
        .bench_local_values(|inputs| {
            let scene = &mut *scene.borrow_mut();
            inputs.into_iter().for_each(|input| scene.engine.handle(input, scene.now));
        });
}

/// Everybody comes at once: the first flush of an engine, and the heartbeats before it.
#[divan::bench(args = [10_000, 100_000], sample_count = 10, sample_size = 1)]
fn cold_start_city(bencher: Bencher<'_, '_>, people: usize) {
    bencher
        .counter(ItemsCount::new(people))
        .with_inputs(|| {
            let mut scene = Scene::new(Workload::City, people);
            let inputs = scene.inputs(1);
            (scene, inputs)
        })
        .bench_local_values(|(mut scene, inputs)| {
            inputs.into_iter().for_each(|input| scene.engine.handle(input, scene.now));
            scene.flush();
            scene
        });
}

/// Bytes for each peer, printed: no time is taken.
#[divan::bench(args = PLACES, sample_count = 1, sample_size = 1)]
fn bytes_of_a_million(bencher: Bencher<'_, '_>, place: Workload) {
    let scene = Scene::settled(place, 1_000_000);
    let bytes = scene.engine.bytes() as f64 / scene.engine.peers_count() as f64;
    println!("{place}: {bytes:.0} bytes a peer, {} islands", scene.engine.islands_count());
    bencher.bench_local(|| ());
}
