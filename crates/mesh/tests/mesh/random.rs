//! Random steps, with the invariants checked after each.

use std::time::Duration;

use mesh::Settings;
use proptest::prelude::*;
use protocol::Address;

use crate::{
    invariants::{check, check_depth, check_survives_departures},
    world::World,
};

/// An event of a random mesh. Numbers of members are taken modulo the number of members.
#[derive(Debug, Clone)]
enum Step {
    Join { address: u16, x: f32, z: f32, offers: bool },
    Leave(usize),
    Move { member: usize, x: f32, z: f32 },
    Cut(usize, usize),
    Mend(usize),
    Restore,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0.0_f32..100.0, 0.0_f32..100.0);
    prop_oneof![
        6 => (any::<u16>(), place(), any::<bool>())
            .prop_map(|(address, (x, z), offers)| Step::Join { address, x, z, offers }),
        2 => any::<usize>().prop_map(Step::Leave),
        2 => (any::<usize>(), place()).prop_map(|(member, (x, z))| Step::Move { member, x, z }),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => any::<usize>().prop_map(Step::Mend),
        1 => Just(Step::Restore),
        2 => (0_u64..15_000).prop_map(Step::Wait),
    ]
}

pub(crate) fn address(number: u16) -> Address {
    let mut bytes = [0; 20];
    // The order of addresses differs from the order of joining.
    bytes[..2].copy_from_slice(&number.wrapping_mul(40_503).to_be_bytes());
    Address::new(bytes)
}

fn member(world: &World, index: usize) -> Option<Address> {
    world.peers.keys().copied().nth(index % world.peers.len().max(1))
}

/// Long enough for plans, links and their reports after one change.
const REACTION: Duration = Duration::from_millis(500);

fn apply(world: &mut World, step: &Step) {
    match *step {
        Step::Join { address: number, x, z, offers } => {
            let _ = world.join(address(number), x, z, offers);
        }
        Step::Leave(index) => {
            if let Some(peer) = member(world, index) {
                world.leave(peer);
            }
        }
        Step::Move { member: index, x, z } => {
            if let Some(peer) = member(world, index) {
                world.move_to(peer, x, z);
            }
        }
        Step::Cut(a, b) => {
            if let (Some(a), Some(b)) = (member(world, a), member(world, b))
                && a != b
            {
                world.set_cut(a, b, true);
            }
        }
        Step::Mend(index) => {
            if let Some(&(a, b)) = world.cut.iter().nth(index % world.cut.len().max(1)) {
                world.set_cut(a, b, false);
            }
        }
        Step::Restore => world.restore(),
        Step::Wait(milliseconds) => world.wait(Duration::from_millis(milliseconds)),
    }
    world.wait(REACTION);
}

fn settings(max_links: usize, target_links: usize, relay: bool) -> Settings {
    Settings { max_links, target_links: target_links.min(max_links), relay, ..Settings::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_mesh_keeps_its_invariants(
        steps in prop::collection::vec(step(), 1..60),
        max_links in 2_usize..=6,
        target_links in 1_usize..=6,
        relay in prop::bool::weighted(0.8),
    ) {
        let mut world = World::new(settings(max_links, target_links, relay));
        let mut has_failed_links = false;
        for step in &steps {
            apply(&mut world, step);
            has_failed_links |= !world.cut.is_empty();
            check(&world, max_links, relay);
            // Failed links leave the planner less choice, for up to 5 minutes.
            if !has_failed_links && relay && max_links > 2 {
                check_survives_departures(&world);
                check_depth(&world);
            }
        }
    }

    /// The same inputs give the same outputs.
    #[test]
    fn mesh_is_deterministic(steps in prop::collection::vec(step(), 1..40)) {
        let mut worlds = [(); 2].map(|()| World::new(settings(6, 4, true)));
        for step in &steps {
            let outputs = worlds.each_mut().map(|world| {
                apply(world, step);
                world.take_outputs()
            });
            prop_assert_eq!(&outputs[0], &outputs[1]);
        }
    }

    /// Positions that no longer change, and links that work, lead to a plan that no longer changes.
    #[test]
    fn still_mesh_stops_exchanging_links(
        places in prop::collection::vec((0.0_f32..100.0, 0.0_f32..100.0), 2..50),
    ) {
        let mut world = World::new(Settings::default());
        for (number, (x, z)) in (0..).zip(places) {
            world.join(address(number), x, z, false).unwrap();
            world.wait(Duration::from_secs(1));
        }
        world.wait(Duration::from_secs(600));
        world.take_outputs();
        world.wait(Duration::from_secs(120));
        prop_assert_eq!(world.take_outputs(), (Vec::new(), Vec::new()));
        check(&world, 6, true);
        check_survives_departures(&world);
        check_depth(&world);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Large meshes, grown member by member, then shrunk.
    #[test]
    fn large_mesh_survives_any_departure(
        places in prop::collection::vec((0.0_f32..300.0, 0.0_f32..300.0), 100..=200),
        departures in prop::collection::vec(any::<usize>(), 20),
    ) {
        let mut world = World::new(Settings::default());
        for (number, &(x, z)) in (0..).zip(&places) {
            world.join(address(number), x, z, false).unwrap();
            if number % 16 == 0 {
                world.wait(REACTION);
            }
        }
        world.wait(REACTION);
        check_survives_departures(&world);
        check_depth(&world);
        for index in departures {
            let peer = member(&world, index).unwrap();
            world.leave(peer);
            world.wait(REACTION);
            check_survives_departures(&world);
        }
        check(&world, 6, true);
        check_depth(&world);
    }
}
