//! Clusters given by another service decide which peers share islands, at any positions.

// Test helpers fail by panicking.
#![allow(clippy::unwrap_used)]

#[path = "random_world/standby_state.rs"]
#[allow(dead_code)]
mod standby_state;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use archipelago::{
    Clustering, Engine, Heartbeat, Input, Output, Settings, Transport, TransportKind,
    explain::{Cause, Question},
    invariants::InvariantChecker,
    rules::Rules,
    sim::{self, Rng, address},
};
use protocol::{IslandId, Position};
use standby_state::StandbyState;

const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

struct ClusterWorld {
    engine: Engine,
    checker: InvariantChecker,
    standby: StandbyState,
    now: Duration,
    engine_count: u64,
}

impl ClusterWorld {
    fn new(max_island_size: u32) -> Self {
        let settings = Settings { clustering: Clustering::External, max_island_size, ..Settings::default() };
        let mut world = Self {
            engine: Engine::new(settings, 0).unwrap(),
            checker: InvariantChecker::default(),
            standby: StandbyState::default(),
            now: Duration::from_secs(1_000),
            engine_count: 1,
        };
        world.announce_nodes();
        world
    }

    fn handle(&mut self, input: Input) {
        self.checker.observe_input(&input);
        self.standby.observe_input(&input, self.now);
        self.engine.handle(input, self.now);
    }

    fn announce_nodes(&mut self) {
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
        self.announce_nodes();
        let mut outputs = Vec::new();
        self.engine.flush(self.now, &mut outputs);
        self.checker.check_flush(&self.engine, &outputs).unwrap();
        self.standby.observe_outputs(&outputs);
        self.assert_islands_match_clusters();
        outputs
    }

    /// All members of an island are in the same cluster, and exactly the peers in a cluster are in an island.
    fn assert_islands_match_clusters(&self) {
        let mut clusters: BTreeMap<IslandId, BTreeSet<Option<&String>>> = BTreeMap::new();
        for peer in self.engine.peers() {
            let cluster = self.standby.clusters.get(&peer.address());
            assert_eq!(peer.island().is_some(), cluster.is_some());
            clusters
                .entry(peer.island().map_or("none".parse().unwrap(), |island| island.id()))
                .or_default()
                .insert(cluster);
        }
        assert!(clusters.values().all(|clusters| clusters.len() == 1), "{clusters:?}");
    }

    fn move_to(&mut self, number: u32, x: f32, z: f32) {
        let (peer, position) = (address(number), Position::new(x, 0.0, z));
        let is_new = self.engine.peer(peer).is_none();
        self.handle(Input::Heartbeat(Heartbeat::new(peer, position)));
        // The cluster is repeated for a peer that arrives: the engine forgets the cluster of a forgotten peer.
        if let Some(cluster) = self.standby.clusters.get(&peer).cloned().filter(|_| is_new) {
            self.set_cluster(number, &cluster);
        }
    }

    fn set_cluster(&mut self, number: u32, cluster: &str) {
        let cluster = (!cluster.is_empty()).then(|| cluster.to_owned());
        self.handle(Input::Cluster { peer: address(number), session: None, cluster });
    }

    fn disconnect(&mut self, number: u32) {
        self.handle(Input::Disconnected { peer: address(number), session: None });
    }

    fn island_of(&self, number: u32) -> Option<IslandId> {
        Some(self.engine.peer(address(number))?.island()?.id())
    }

    fn replace_engine(&mut self) {
        let settings = self.engine.settings().clone();
        let snapshot = self.standby.snapshot();
        self.engine = Engine::resume(settings, self.engine_count, snapshot, self.now).unwrap();
        self.engine_count += 1;
        self.checker.observe_takeover();
    }
}

/// The peers with an assignment in the outputs, among the first `count` peers.
fn assigned_peers(outputs: &[Output], count: u32) -> Vec<u32> {
    let assigned_peers = |number: &u32| {
        let address_of_peer = address(*number);
        outputs
            .iter()
            .any(|output| matches!(output, Output::Assigned { peer, .. } if *peer == address_of_peer))
    };
    (0..count).filter(assigned_peers).collect()
}

#[test]
fn cluster_members_share_islands_at_any_distance() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut world = ClusterWorld::new(2 + rng.below(10) as u32);
        let peers = 3 + rng.below(40);
        let clusters = 1 + rng.below(6);
        let random_position = |rng: &mut Rng| (rng.range(-9e4, 9e4) as f32, rng.range(-9e4, 9e4) as f32);
        for _ in 0..60 {
            for number in 0..peers as u32 {
                match rng.below(20) {
                    0 => world.disconnect(number),
                    1..=3 => world.set_cluster(number, &format!("c{}", rng.below(clusters))),
                    4 => world.set_cluster(number, ""),
                    5..=14 => {
                        let (x, z) = random_position(&mut rng);
                        world.move_to(number, x, z);
                    }
                    _ => {}
                }
            }
            world.flush();
            if rng.below(8) == 0 {
                world.replace_engine();
            }
        }
        // From here on peers jump anywhere, and no cluster changes: no peer must get an assignment.
        let present: Vec<u32> =
            (0..peers as u32).filter(|&number| world.engine.peer(address(number)).is_some()).collect();
        let ended = world.now + world.engine.settings().return_window;
        for _ in 0..60 {
            for &number in &present {
                let (x, z) = random_position(&mut rng);
                world.move_to(number, x, z);
            }
            let outputs = world.flush();
            let ends = |output: &Output| matches!(output, Output::Closed { .. }) && world.now <= ended;
            assert!(outputs.iter().all(ends), "seed {seed}: {outputs:?}");
            if rng.below(8) == 0 {
                world.replace_engine();
            }
        }
    }
}

#[test]
fn cluster_changes_move_only_affected_peers() {
    let mut world = ClusterWorld::new(3);
    for number in 0..3 {
        world.move_to(number, 1_000.0 * number as f32, 0.0);
        assert_eq!(world.flush(), [], "a peer without a cluster is in no island");
        world.set_cluster(number, "a");
        assert_eq!(assigned_peers(&world.flush(), 5), [number]);
    }
    let first = world.island_of(0);
    // A fourth peer does not fit, and the others stay in their island.
    world.set_cluster(3, "a");
    assert_eq!(world.flush(), [], "the peer has no position yet");
    world.move_to(3, 0.0, 0.0);
    assert_eq!(assigned_peers(&world.flush(), 5), [3]);
    // When one member changes its cluster, there is room for the fourth.
    world.set_cluster(1, "b");
    assert_eq!(assigned_peers(&world.flush(), 5), [1, 3]);
    assert_eq!(world.island_of(3), first);
    // A peer that left rejoins its island, and a peer that loses its cluster leaves it.
    world.disconnect(0);
    assert_eq!(assigned_peers(&world.flush(), 5), []);
    world.move_to(0, 50_000.0, 0.0);
    assert_eq!((assigned_peers(&world.flush(), 5), world.island_of(0)), (vec![0], first.clone()));
    world.set_cluster(0, "");
    let outputs = world.flush();
    assert!(matches!(&outputs[..], [Output::Left { peer, .. }] if *peer == address(0)), "{outputs:?}");
    world.set_cluster(0, "a");
    let outputs = world.flush();
    let again = outputs.iter().find_map(|output| match output {
        Output::Assigned { island, from, .. } => Some((Some(island.id.clone()), from.clone())),
        _ => None,
    });
    assert_eq!(again, Some((first.clone(), first)), "its membership of the room had ended");
}

#[test]
fn rules_follow_the_majority_position_of_a_cluster() {
    let mut world = ClusterWorld::new(100);
    let rules = "[[rule]]\nname = \"casino\"\narea = { parcels = [\"0,0..3,3\"] }\ntransports = [\"livekit\"]\nexclusive = true\n";
    world.handle(Input::Rules(Arc::new(Rules::parse(rules).unwrap())));
    let node = |world: &ClusterWorld| {
        let island = world.engine.peer(address(0)).unwrap().island().unwrap();
        (island.size(), island.transport().unwrap().to_string())
    };
    for (number, x) in [(0, 5.0), (1, 7_000.0), (2, 8_000.0)] {
        world.set_cluster(number, "a");
        world.move_to(number, x, 0.0);
    }
    world.flush();
    let (before, centre) = (node(&world), world.engine.islands().next().unwrap().center());
    assert_eq!((before.0, centre.x.round()), (3, 5_002.0));
    world.move_to(1, 6.0, 0.0);
    for _ in 0..60 {
        for (number, x) in [(0, 5.0), (1, 6.0), (2, 8_000.0)] {
            world.move_to(number, x, 0.0);
        }
        world.flush();
    }
    assert_eq!(node(&world), (3, "livekit".to_owned()), "two of three are in the casino");
}

#[test]
fn separate_clusters_are_explained() {
    let mut world = ClusterWorld::new(100);
    (0..3).for_each(|number| world.move_to(number, 0.0, 0.0));
    world.set_cluster(0, "a");
    world.set_cluster(1, "b");
    world.flush();
    let why = |one, other| {
        let explained = world.engine.explain(&Question::Pair(address(one), address(other)), world.now);
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
    for number in 0..2 {
        let (peer, position) = (address(number), Position::new(500.0 * number as f32, 0.0, 0.0));
        engine.handle(Input::Cluster { peer, session: None, cluster: Some("a".into()) }, now);
        engine.handle(Input::Heartbeat(Heartbeat::new(peer, position)), now);
    }
    engine.flush(now, &mut Vec::new());
    assert_eq!(engine.islands_count(), 2);
}

#[test]
fn takeover_without_clusters_keeps_islands() {
    let mut world = ClusterWorld::new(100);
    for (number, cluster) in [(0, "a"), (1, "a"), (2, "b"), (3, "b")] {
        world.move_to(number, 0.0, 0.0);
        world.set_cluster(number, cluster);
    }
    world.flush();
    let islands = [0, 2].map(|number| world.island_of(number));
    for known in [address(0), address(1)] {
        // The new engine knows one member of cluster a and none of cluster b.
        world.standby.clusters.retain(|peer, _| *peer == known);
        let (settings, snapshot) = (world.engine.settings().clone(), world.standby.snapshot());
        let mut successor = Engine::resume(settings, 9, snapshot, world.now).unwrap();
        let mut outputs = Vec::new();
        successor.flush(world.now, &mut outputs);
        assert_eq!(outputs, []);
        let cluster = Some("a".to_owned());
        successor.handle(Input::Cluster { peer: known, session: None, cluster }, world.now);
        successor.flush(world.now, &mut outputs);
        if known == address(0) {
            assert_eq!(outputs, []);
        }
        let island = |number| Some(successor.peer(address(number))?.island()?.id());
        assert_eq!([island(0), island(2)], islands);
    }
}
