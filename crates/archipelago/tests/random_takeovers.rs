//! The engine of random crowds under random rules is replaced again and again: the new one continues where the
//! former one stopped, so that peers that do not move get no assignment.

// Test helpers fail by panicking.
#![allow(clippy::unwrap_used)]

mod random_world;
mod world_count;

use std::collections::{BTreeMap, BTreeSet};

use archipelago::Output;
use protocol::{Address, IslandId, NodeName};
use random_world::RandomWorld;

/// The island and node of each peer.
type Placements = BTreeMap<Address, (IslandId, Option<NodeName>)>;

fn placements(world: &RandomWorld) -> Placements {
    let placement = |peer: archipelago::PeerView<'_>| {
        let island = peer.island().unwrap();
        (peer.address(), (island.id(), island.transport().cloned()))
    };
    world.engine.peers().map(placement).collect()
}

/// Whether every peer has its assignment. Peers may wait for one, because a full or draining node accepts no
/// new members.
fn all_assigned(world: &RandomWorld, placements: &Placements) -> bool {
    placements.iter().all(|(peer, placement)| is_assigned(world, *peer, placement))
}

fn is_assigned(world: &RandomWorld, peer: Address, (island, node): &(IslandId, Option<NodeName>)) -> bool {
    let assignment = world.standby.last_assignment(peer);
    assignment
        .is_some_and(|assignment| assignment.island == *island && Some(&assignment.node) == node.as_ref())
}

/// Replaces the engine once, while no peer moves. Returns whether every peer had its assignment then.
fn run_with_one_takeover(mut world: RandomWorld) -> bool {
    world.clients_without_transports = false;
    world.announce_nodes(false);
    (0..40).for_each(|step| world.random_step(step));
    world.wait_for_timers();
    let before = placements(&world);
    let all_assigned = all_assigned(&world, &before);
    world.replace_engine();
    for _ in 0..80 {
        world.still_step();
        assert!(
            !all_assigned || world.outputs.is_empty(),
            "{:?}\n{:#?}",
            world.outputs,
            world.engine.rules()
        );
    }
    assert!(!all_assigned || placements(&world) == before);
    (40..60).for_each(|step| world.random_step(step));
    world.wait_for_timers();
    for _ in 0..80 {
        world.still_step();
        assert_eq!(world.outputs, [], "{:#?}", world.engine.rules());
    }
    all_assigned
}

#[test]
fn takeover_sends_nothing_to_still_peers() {
    let (mut all_assigned_count, worlds) = (0, world_count::scaled(40));
    for seed in 0..worlds {
        let result = std::panic::catch_unwind(|| run_with_one_takeover(RandomWorld::new(seed)));
        all_assigned_count += u64::from(result.unwrap_or_else(|_| panic!("seed {seed}")));
    }
    assert!(
        all_assigned_count * 4 > worlds * 3,
        "all peers had an assignment in only {all_assigned_count} of {worlds} worlds"
    );
}

/// The peers that get an assignment.
fn assigned_peers(outputs: &[Output]) -> BTreeSet<Address> {
    let peers = outputs.iter().filter_map(|output| match output {
        Output::Assigned { peer, .. } => Some(*peer),
        _ => None,
    });
    peers.collect()
}

/// Peers that had their assignment when the engine was replaced, and those of them that got another one in
/// the first flush after.
#[derive(Debug, Default)]
struct Tally {
    assigned_before: usize,
    reassigned_anyway: usize,
    reassigned_by_takeover: usize,
}

/// Replaces the engine at random flushes, while peers move and rules change.
fn run_with_random_takeovers(mut world: RandomWorld, tally: &mut Tally) {
    world.announce_nodes(false);
    for step in 0..60 {
        world.random_step(step);
        if world.rng.below(4) > 0 {
            continue;
        }
        let mut former = world.engine.clone();
        let placements = placements(&world);
        let assigned: BTreeSet<Address> =
            placements.keys().copied().filter(|peer| is_assigned(&world, *peer, &placements[peer])).collect();
        world.replace_engine();
        world.flush();
        let mut outputs = Vec::new();
        former.flush(world.now, &mut outputs);
        let without_takeover = assigned_peers(&outputs);
        tally.assigned_before += assigned.len();
        tally.reassigned_anyway += without_takeover.intersection(&assigned).count();
        tally.reassigned_by_takeover += assigned_peers(&world.outputs)
            .intersection(&assigned)
            .filter(|peer| !without_takeover.contains(peer))
            .count();
    }
    world.wait_for_timers();
    for _ in 0..80 {
        world.still_step();
        assert_eq!(world.outputs, [], "{:#?}", world.engine.rules());
    }
}

#[test]
fn takeover_at_any_flush_violates_no_invariant() {
    let (mut tally, worlds) = (Tally::default(), world_count::scaled(40));
    for seed in 0..worlds {
        let result = std::panic::catch_unwind(|| {
            let mut tally = Tally::default();
            run_with_random_takeovers(RandomWorld::new(seed), &mut tally);
            tally
        });
        let Tally { assigned_before, reassigned_anyway, reassigned_by_takeover } =
            result.unwrap_or_else(|_| panic!("seed {seed}"));
        tally.assigned_before += assigned_before;
        tally.reassigned_anyway += reassigned_anyway;
        tally.reassigned_by_takeover += reassigned_by_takeover;
    }
    println!("{tally:?}");
    // Reassigned peers are at borders, or under rules with a pending settling time: the clients' assignments do
    // not contain pending changes.
    assert!(
        tally.assigned_before as u64 > 125 * worlds
            && tally.reassigned_by_takeover * 50 < tally.assigned_before,
        "{tally:?}"
    );
}
