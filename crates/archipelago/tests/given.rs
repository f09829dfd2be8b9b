//! Somebody else says who is together: random clusters of people who are anywhere.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

#[path = "story/chronicle.rs"]
#[allow(dead_code)]
mod chronicle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use archipelago::{
    Clustering, Engine, Input, Output, Settings, Transport, TransportKind,
    explain::{Cause, Question},
    invariants::InvariantChecker,
    rules::Rules,
    sim::{self, Rng, address},
};
use chronicle::Chronicle;
use protocol::{IslandId, Position};

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

struct Story {
    engine: Engine,
    witness: InvariantChecker,
    chronicle: Chronicle,
    now: Duration,
    engines: u64,
}

impl Story {
    fn new(max_island_size: u32) -> Self {
        let settings = Settings { clustering: Clustering::External, max_island_size, ..Settings::default() };
        let mut story = Self {
            engine: Engine::new(settings, 0).unwrap(),
            witness: InvariantChecker::default(),
            chronicle: Chronicle::default(),
            now: Duration::from_secs(1_000),
            engines: 1,
        };
        story.announce();
        story
    }

    fn handle(&mut self, input: Input) {
        self.witness.observe_input(&input);
        self.chronicle.hear(&input, self.now);
        self.engine.handle(input, self.now);
    }

    fn announce(&mut self) {
        self.handle(Input::Transport(sim::node("node".parse().unwrap(), 1_000)));
        let livekit = Transport {
            kind: TransportKind::LiveKit,
            capability: "livekit".into(),
            ..sim::node("livekit".parse().unwrap(), 1_000)
        };
        self.handle(Input::Transport(livekit));
    }

    fn flush(&mut self) -> Vec<Output> {
        self.now += FLUSH_INTERVAL;
        self.announce();
        let mut outputs = Vec::new();
        self.engine.flush(self.now, &mut outputs);
        self.witness.check_flush(&self.engine, &outputs).unwrap();
        self.chronicle.see(&outputs);
        self.clusters_hold();
        outputs
    }

    /// Members of an island are of one cluster, and whoever is of one is in an island.
    fn clusters_hold(&self) {
        let mut clusters: BTreeMap<IslandId, BTreeSet<Option<&String>>> = BTreeMap::new();
        for peer in self.engine.peers() {
            let cluster = self.chronicle.clusters.get(&peer.address());
            assert_eq!(peer.island().is_some(), cluster.is_some());
            clusters
                .entry(peer.island().map_or("none".parse().unwrap(), |island| island.id()))
                .or_default()
                .insert(cluster);
        }
        assert!(clusters.values().all(|clusters| clusters.len() == 1), "{clusters:?}");
    }

    fn stand(&mut self, person: u32, x: f32, z: f32) {
        let (peer, position) = (address(person), Position::new(x, 0.0, z));
        let comes = self.engine.peer(peer).is_none();
        self.handle(Input::Heartbeat { peer, session: None, position, desired_room: None });
        // It is said again of whoever comes: the engine does not know it for ever.
        if let Some(cluster) = self.chronicle.clusters.get(&peer).cloned().filter(|_| comes) {
            self.cluster(person, &cluster);
        }
    }

    fn cluster(&mut self, person: u32, cluster: &str) {
        let cluster = (!cluster.is_empty()).then(|| cluster.to_owned());
        self.handle(Input::Cluster { peer: address(person), session: None, cluster });
    }

    fn leave(&mut self, person: u32) {
        self.handle(Input::Disconnected { peer: address(person), session: None });
    }

    fn island_of(&self, person: u32) -> Option<IslandId> {
        Some(self.engine.peer(address(person))?.island()?.id())
    }

    fn take_over(&mut self) {
        let settings = self.engine.settings().clone();
        let takeover = self.chronicle.takeover();
        self.engine = Engine::resume(settings, self.engines, takeover, self.now).unwrap();
        self.engines += 1;
        self.witness.observe_takeover();
    }
}

/// Who is told of an island, of `count` people.
fn told(outputs: &[Output], count: u32) -> Vec<u32> {
    let told = |person: &u32| {
        let them = address(*person);
        outputs.iter().any(|output| matches!(output, Output::Assigned { peer, .. } if *peer == them))
    };
    (0..count).filter(told).collect()
}

#[test]
fn cluster_members_share_islands_at_any_distance() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut story = Story::new(2 + rng.below(10) as u32);
        let people = 3 + rng.below(40);
        let clusters = 1 + rng.below(6);
        let place = |rng: &mut Rng| (rng.range(-9e4, 9e4) as f32, rng.range(-9e4, 9e4) as f32);
        for _ in 0..60 {
            for person in 0..people as u32 {
                match rng.below(20) {
                    0 => story.leave(person),
                    1..=3 => story.cluster(person, &format!("c{}", rng.below(clusters))),
                    4 => story.cluster(person, ""),
                    5..=14 => {
                        let (x, z) = place(&mut rng);
                        story.stand(person, x, z);
                    }
                    _ => {}
                }
            }
            story.flush();
            if rng.below(8) == 0 {
                story.take_over();
            }
        }
        // From here on people go anywhere, and nothing is said of it.
        let present: Vec<u32> =
            (0..people as u32).filter(|&person| story.engine.peer(address(person)).is_some()).collect();
        let ended = story.now + story.engine.settings().return_window;
        for _ in 0..60 {
            for &person in &present {
                let (x, z) = place(&mut rng);
                story.stand(person, x, z);
            }
            let outputs = story.flush();
            let ends = |output: &Output| matches!(output, Output::Closed { .. }) && story.now <= ended;
            assert!(outputs.iter().all(ends), "seed {seed}: {outputs:?}");
            if rng.below(8) == 0 {
                story.take_over();
            }
        }
    }
}

#[test]
fn cluster_changes_move_only_affected_peers() {
    let mut story = Story::new(3);
    for person in 0..3 {
        story.stand(person, 1_000.0 * person as f32, 0.0);
        assert_eq!(story.flush(), [], "of no cluster, in no island");
        story.cluster(person, "a");
        assert_eq!(told(&story.flush(), 5), [person]);
    }
    let first = story.island_of(0);
    // A fourth does not fit, and the others stay.
    story.cluster(3, "a");
    assert_eq!(story.flush(), [], "it has not said where it is");
    story.stand(3, 0.0, 0.0);
    assert_eq!(told(&story.flush(), 5), [3]);
    // When one goes elsewhere there is room.
    story.cluster(1, "b");
    assert_eq!(told(&story.flush(), 5), [1, 3]);
    assert_eq!(story.island_of(3), first);
    // One who left comes back to where it was, and one who is of no cluster is in no island.
    story.leave(0);
    assert_eq!(told(&story.flush(), 5), []);
    story.stand(0, 50_000.0, 0.0);
    assert_eq!((told(&story.flush(), 5), story.island_of(0)), (vec![0], first.clone()));
    story.cluster(0, "");
    let outputs = story.flush();
    assert!(matches!(&outputs[..], [Output::Left { peer, .. }] if *peer == address(0)), "{outputs:?}");
    story.cluster(0, "a");
    let outputs = story.flush();
    let again = outputs.iter().find_map(|output| match output {
        Output::Assigned { island, from, .. } => Some((Some(island.clone()), from.clone())),
        _ => None,
    });
    assert_eq!(again, Some((first.clone(), first)), "its place in the room had ended");
}

#[test]
fn rules_follow_the_majority_position_of_a_cluster() {
    let mut story = Story::new(100);
    let rules = "[[rule]]\nname = \"casino\"\narea = { parcels = [\"0,0..3,3\"] }\ntransports = [\"livekit\"]\nexclusive = true\n";
    story.handle(Input::Rules(Arc::new(Rules::parse(rules).unwrap())));
    let node = |story: &Story| {
        let island = story.engine.peer(address(0)).unwrap().island().unwrap();
        (island.size(), island.transport().unwrap().to_string())
    };
    for (person, x) in [(0, 5.0), (1, 7_000.0), (2, 8_000.0)] {
        story.cluster(person, "a");
        story.stand(person, x, 0.0);
    }
    story.flush();
    let (before, centre) = (node(&story), story.engine.islands().next().unwrap().center());
    assert_eq!((before.0, centre.x.round()), (3, 5_002.0));
    story.stand(1, 6.0, 0.0);
    for _ in 0..60 {
        for (person, x) in [(0, 5.0), (1, 6.0), (2, 8_000.0)] {
            story.stand(person, x, 0.0);
        }
        story.flush();
    }
    assert_eq!(node(&story), (3, "livekit".to_owned()), "two of three are in the casino");
}

#[test]
fn separate_clusters_are_explained() {
    let mut story = Story::new(100);
    (0..3).for_each(|person| story.stand(person, 0.0, 0.0));
    story.cluster(0, "a");
    story.cluster(1, "b");
    story.flush();
    let why = |one, other| {
        let explained = story.engine.explain(&Question::Pair(address(one), address(other)), story.now);
        assert_eq!(explained.cause, Cause::OtherCluster, "{}", explained.summary);
        explained.summary
    };
    assert!(why(0, 1).contains("cluster \"a\""), "{}", why(0, 1));
    assert!(why(0, 2).contains("in no cluster"), "{}", why(0, 2));
}

#[test]
fn clusters_are_ignored_without_given_clustering() {
    let mut engine = Engine::new(Settings::default(), 0).unwrap();
    let now = Duration::from_secs(1_000);
    for person in 0..2 {
        let (peer, position) = (address(person), Position::new(500.0 * person as f32, 0.0, 0.0));
        engine.handle(Input::Cluster { peer, session: None, cluster: Some("a".into()) }, now);
        engine.handle(Input::Heartbeat { peer, session: None, position, desired_room: None }, now);
    }
    engine.flush(now, &mut Vec::new());
    assert_eq!(engine.islands_count(), 2);
}

#[test]
fn takeover_without_clusters_keeps_islands() {
    let mut story = Story::new(100);
    for (person, cluster) in [(0, "a"), (1, "a"), (2, "b"), (3, "b")] {
        story.stand(person, 0.0, 0.0);
        story.cluster(person, cluster);
    }
    story.flush();
    let islands = [0, 2].map(|person| story.island_of(person));
    for known in [address(0), address(1)] {
        // Of the one cluster one member is known, of the other none.
        story.chronicle.clusters.retain(|peer, _| *peer == known);
        let (settings, takeover) = (story.engine.settings().clone(), story.chronicle.takeover());
        let mut heir = Engine::resume(settings, 9, takeover, story.now).unwrap();
        let mut outputs = Vec::new();
        heir.flush(story.now, &mut outputs);
        assert_eq!(outputs, []);
        let cluster = Some("a".to_owned());
        heir.handle(Input::Cluster { peer: known, session: None, cluster }, story.now);
        heir.flush(story.now, &mut outputs);
        if known == address(0) {
            assert_eq!(outputs, []);
        }
        let island = |person| Some(heir.peer(address(person))?.island()?.id());
        assert_eq!([island(0), island(2)], islands);
    }
}
