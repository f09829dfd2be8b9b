//! When everybody stands still the engine falls silent, whatever came before.

mod sized;

use archipelago::sim::layouts;

#[test]
fn still_layouts_produce_no_output() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    match layouts::run(seed, sized::worlds(10_000)) {
        Ok(summary) => {
            println!("seeds from {seed}: {summary:?}");
            assert!(summary.crowded * 10 >= summary.layouts * 3, "too few crowds: {summary:?}");
        }
        Err(error) => panic!("{error}"),
    }
}
