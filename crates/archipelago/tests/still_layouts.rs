//! Once no peer moves, the engine produces no more output, in random layouts.

mod world_count;

use archipelago::sim::layouts;

#[test]
fn still_layouts_produce_no_output() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    match layouts::run(seed, world_count::scaled(10_000)) {
        Ok(summary) => {
            println!("seeds from {seed}: {summary:?}");
            assert!(summary.crowded * 10 >= summary.layouts * 3, "too few crowds: {summary:?}");
        }
        Err(error) => panic!("{error}"),
    }
}
