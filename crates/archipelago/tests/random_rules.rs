//! Random crowds under random rules: all invariants hold after every flush, and once no input changes the
//! engine produces no more output.

// Test helpers fail by panicking.
#![allow(clippy::unwrap_used)]

mod random_world;
mod world_count;

use random_world::RandomWorld;

fn run(mut world: RandomWorld) {
    world.announce_nodes(false);
    (0..60).for_each(|step| world.random_step(step));
    world.wait_for_timers();
    for _ in 0..80 {
        world.still_step();
        assert_eq!(world.outputs, [], "{:#?}", world.engine.rules());
    }
}

#[test]
fn random_rules_keep_invariants_and_end_in_silence() {
    for seed in 0..world_count::scaled(40) {
        let result = std::panic::catch_unwind(|| run(RandomWorld::new(seed)));
        assert!(result.is_ok(), "seed {seed}");
    }
}
