//! How long a flush takes. Single-threaded.
//!
//! Between two flushes everybody walks on for as long as there is between two flushes, a quarter of a
//! second: 0.4 m; or, in `far`, for two seconds, the time between the heartbeats of some clients: 3 m.
//! What `handle` takes for that is measured by itself.

#[path = "../tests/plain/mod.rs"]
mod plain;

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use archipelago::{
    Engine, EngineSnapshot, Input, LastAssignment, Output, PeerSnapshot, PeerView, Settings,
    invariants::{Bounds, Partition},
    sim::{Walkers, Workload, address, node},
};
use divan::{Bencher, counter::ItemsCount};
use plain::Plain;
use protocol::Address;

fn main() {
    divan::main();
}

/// What everybody walks between two flushes, in seconds.
const STEP_S: f64 = 0.25;
const FAR_S: f64 = 2.0;
const PLACES: [Workload; 3] = [Workload::City, Workload::Sparse, Workload::Hotspots];
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// An engine with people who walk.
struct Scene {
    world: Walkers,
    engine: Engine,
    now: Duration,
    outputs: Vec<Output>,
    turn: usize,
}

impl Scene {
    fn new(place: Workload, people: usize) -> Self {
        // A day of silence: that people keep still is no reason to take them out.
        let settings = Settings {
            silence: Duration::from_secs(86_400),
            transport_timeout: Duration::from_secs(3_600),
            ..Settings::default()
        };
        Self::with(settings, place, people)
    }

    /// With a node that takes everybody.
    fn with(settings: Settings, place: Workload, people: usize) -> Self {
        let mut engine = Engine::new(settings, 0).expect("settings that hold");
        let now = Duration::from_secs(1_000);
        let node = node("node".parse().expect("a name"), u32::MAX);
        engine.handle(Input::Transport(node), now);
        Self { world: Walkers::new(place, people, 1), engine, now, outputs: Vec::new(), turn: 0 }
    }

    /// The same, after a while.
    fn settled(place: Workload, people: usize) -> Self {
        let mut scene = Self::new(place, people);
        for _ in 0..5 {
            scene.speak(FAR_S, 1);
            scene.flush();
        }
        scene
    }

    fn inputs(&mut self, every: usize) -> Vec<Input> {
        self.turn += 1;
        let speaks = |person: &usize| (person + self.turn).is_multiple_of(every);
        let people = (0..self.world.count()).filter(speaks);
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

    /// Everybody walks, and one in so many says where it is, having walked for `step_s`.
    fn speak(&mut self, step_s: f64, every: usize) {
        self.world.step(step_s / every as f64);
        for input in self.inputs(every) {
            self.engine.handle(input, self.now);
        }
    }

    /// What clients were told, after everybody was.
    fn takeover(&self) -> EngineSnapshot {
        let resident = |peer: PeerView<'_>| {
            let island = peer.island()?;
            Some(PeerSnapshot {
                peer: peer.address(),
                session: peer.session(),
                transports: None,
                position: peer.position(),
                desired_room: None,
                cluster: None,
                last_assigned: Some(LastAssignment {
                    island: island.id(),
                    node: island.transport()?.clone(),
                }),
                last_seen: self.now,
                departed_at: None,
                taken_over: false,
            })
        };
        EngineSnapshot {
            transports: self.engine.transports().map(|view| view.transport.clone()).collect(),
            peers: self.engine.peers().filter_map(resident).collect(),
            ..EngineSnapshot::default()
        }
    }

    fn flush(&mut self) -> usize {
        self.now += Duration::from_millis(250);
        self.outputs.clear();
        self.engine.flush(self.now, &mut self.outputs);
        self.outputs.len()
    }
}

fn flushes(bencher: Bencher<'_, '_>, place: Workload, people: usize, step_s: f64, every: usize) {
    let scene = RefCell::new(Scene::settled(place, people));
    bencher
        .counter(ItemsCount::new(people / every))
        .with_inputs(|| scene.borrow_mut().speak(step_s, every))
        .bench_local_values(|()| scene.borrow_mut().flush());
}

/// Everybody has moved.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_city(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::City, people, STEP_S, 1);
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_sparse(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::Sparse, people, STEP_S, 1);
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_hotspots(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::Hotspots, people, STEP_S, 1);
}

/// Everybody has moved by 3 m.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn all_moving_far_city(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::City, people, FAR_S, 1);
}

/// One in a hundred has moved, by 3 m.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn one_percent_moving_city(bencher: Bencher<'_, '_>, people: usize) {
    flushes(bencher, Workload::City, people, FAR_S, 100);
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
            scene.world.step(FAR_S);
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

/// Another engine takes over: making it, and its first flush.
#[divan::bench(args = [10_000, 100_000], sample_count = 10, sample_size = 1)]
fn take_over_city(bencher: Bencher<'_, '_>, people: usize) {
    let scene = Scene::settled(Workload::City, people);
    let settings = scene.engine.settings();
    bencher.counter(ItemsCount::new(people)).with_inputs(|| scene.takeover()).bench_local_values(
        |takeover| {
            let mut engine =
                Engine::resume(settings.clone(), 1, takeover, scene.now).expect("settings that hold");
            let mut outputs = Vec::new();
            engine.flush(scene.now, &mut outputs);
            assert_eq!(outputs, []);
            engine
        },
    );
}

/// What it takes to see that every client knows where it is.
#[divan::bench(args = [10_000, 100_000], sample_count = 10, sample_size = 1)]
fn agrees_city(bencher: Bencher<'_, '_>, people: usize) {
    let scene = Scene::settled(Workload::City, people);
    let residents = scene.takeover().peers;
    bencher.counter(ItemsCount::new(people)).bench_local(|| {
        let agrees = |resident: &PeerSnapshot| {
            let told = resident.last_assigned.as_ref().map(|told| (told.island.as_str(), told.node.as_str()));
            scene.engine.matches_last_assignment(resident.peer, resident.session, told)
        };
        assert!(residents.iter().all(agrees));
    });
}

/// The yardstick: the same rules written down plainly, with every distance computed, in a world where
/// everybody fits and there is but one way to be right. Both make the same islands, which is checked.
#[divan::bench(args = [1_000, 10_000], sample_count = 5, sample_size = 1)]
fn yardstick_plain(bencher: Bencher<'_, '_>, people: usize) {
    let duel = RefCell::new(Duel::new(people));
    bencher
        .with_inputs(|| {
            let mut duel = duel.borrow_mut();
            duel.speak();
            duel.scene.flush();
        })
        .bench_local_values(|()| duel.borrow_mut().plain.flush(&mut Vec::new()));
    duel.borrow().compare();
}

/// The engine in the yardstick's world.
#[divan::bench(args = [1_000, 10_000], sample_count = 20, sample_size = 1)]
fn yardstick_engine(bencher: Bencher<'_, '_>, people: usize) {
    let duel = RefCell::new(Duel::new(people));
    bencher
        .with_inputs(|| duel.borrow_mut().speak())
        .bench_local_values(|()| duel.borrow_mut().scene.flush());
}

/// The engine and a plain one, with the same people.
struct Duel {
    scene: Scene,
    plain: Plain,
}

impl Duel {
    fn new(people: usize) -> Self {
        let limit = 10_000;
        let settings = Scene::new(Workload::Town, 0).engine.settings().clone();
        let settings = Settings { max_island_size: limit, ..settings };
        let scene = Scene::with(settings, Workload::Town, people);
        let bounds = Bounds::uniform(limit, 64.0, 80.0);
        let mut duel = Self { scene, plain: Plain::new(bounds, None) };
        duel.speak();
        duel.scene.flush();
        duel.plain.flush(&mut Vec::new());
        duel
    }

    fn speak(&mut self) {
        self.scene.world.step(FAR_S);
        for input in self.scene.inputs(1) {
            self.plain.handle(&input);
            self.scene.engine.handle(input, self.scene.now);
        }
    }

    fn compare(&self) {
        let partition = |picture: Partition| -> BTreeSet<BTreeSet<Address>> {
            let islands = picture.islands.into_iter();
            islands.map(|island| island.members.into_iter().map(|(peer, _)| peer).collect()).collect()
        };
        assert!(partition(self.plain.picture()) == partition(Partition::of(&self.scene.engine)));
    }
}

/// Bytes for each peer, printed: no time is taken.
#[divan::bench(args = PLACES, sample_count = 1, sample_size = 1)]
fn bytes_of_a_million(bencher: Bencher<'_, '_>, place: Workload) {
    let scene = Scene::settled(place, 1_000_000);
    let bytes = scene.engine.bytes() as f64 / scene.engine.peers_count() as f64;
    println!("{place}: {bytes:.0} bytes a peer, {} islands", scene.engine.islands_count());
    bencher.bench_local(|| ());
}
