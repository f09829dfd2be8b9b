//! Random crowds under random rules: after every flush all invariants hold, and when nothing changes
//! any more nothing is announced.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod sized;
mod story;

use story::Story;

fn play(mut story: Story) {
    story.nodes(false);
    (0..60).for_each(|step| story.stir_up(step));
    story.settle();
    for _ in 0..80 {
        story.stand_still();
        assert_eq!(story.outputs, [], "{:#?}", story.engine.rules());
    }
}

#[test]
fn random_rules_keep_invariants_and_end_in_silence() {
    for seed in 0..sized::worlds(40) {
        let played = std::panic::catch_unwind(|| play(Story::new(seed)));
        assert!(played.is_ok(), "seed {seed}");
    }
}
