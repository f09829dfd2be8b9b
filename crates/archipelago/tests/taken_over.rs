//! Random crowds under random rules, whose engine is lost time and again: another one goes on where it
//! ended, so that people do not notice.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

mod sized;
mod story;

use std::collections::{BTreeMap, BTreeSet};

use archipelago::Output;
use protocol::{Address, IslandId, NodeName};
use story::Story;

/// Where everybody is, and on which node.
type Places = BTreeMap<Address, (IslandId, Option<NodeName>)>;

fn places(story: &Story) -> Places {
    let place = |peer: archipelago::PeerView<'_>| {
        let island = peer.island().unwrap();
        (peer.address(), (island.id(), island.transport().cloned()))
    };
    story.engine.peers().map(place).collect()
}

/// Whether everybody was told where it is. A node that is full, or about to leave, takes nobody, so that
/// people may wait.
fn all_know(story: &Story, places: &Places) -> bool {
    places.iter().all(|(peer, place)| knows(story, *peer, place))
}

fn knows(story: &Story, peer: Address, (island, node): &(IslandId, Option<NodeName>)) -> bool {
    let told = story.chronicle.told(peer);
    told.is_some_and(|told| told.island == *island && Some(&told.node) == node.as_ref())
}

/// Returns whether everybody knew where they are when the engine was lost.
fn play(mut story: Story) -> bool {
    story.deaf_clients = false;
    story.nodes(false);
    (0..40).for_each(|step| story.stir_up(step));
    story.settle();
    let before = places(&story);
    let all_know = all_know(&story, &before);
    story.take_over();
    for _ in 0..80 {
        story.stand_still();
        assert!(!all_know || story.outputs.is_empty(), "{:?}\n{:#?}", story.outputs, story.engine.rules());
    }
    assert!(!all_know || places(&story) == before);
    (40..60).for_each(|step| story.stir_up(step));
    story.settle();
    for _ in 0..80 {
        story.stand_still();
        assert_eq!(story.outputs, [], "{:#?}", story.engine.rules());
    }
    all_know
}

#[test]
fn takeover_sends_nothing_to_still_peers() {
    let (mut silent, worlds) = (0, sized::worlds(40));
    for seed in 0..worlds {
        let played = std::panic::catch_unwind(|| play(Story::new(seed)));
        silent += u64::from(played.unwrap_or_else(|_| panic!("seed {seed}")));
    }
    assert!(silent * 4 > worlds * 3, "only {silent} of {worlds} were of people who all knew where they are");
}

/// Those who are told that they are elsewhere than they were.
fn told(outputs: &[Output]) -> BTreeSet<Address> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Assigned { peer, .. } => Some(*peer),
        _ => None,
    });
    told.collect()
}

/// What engines tell people at their first flush who were told where they are.
#[derive(Debug, Default)]
struct Tally {
    people: usize,
    told_anyway: usize,
    told_anew: usize,
}

/// The engine is lost in the midst of things.
fn play_on(mut story: Story, tally: &mut Tally) {
    story.nodes(false);
    for step in 0..60 {
        story.stir_up(step);
        if story.rng.below(4) > 0 {
            continue;
        }
        let mut former = story.engine.clone();
        let places = places(&story);
        let knew: BTreeSet<Address> =
            places.keys().copied().filter(|peer| knows(&story, *peer, &places[peer])).collect();
        story.take_over();
        story.flush();
        let mut outputs = Vec::new();
        former.flush(story.now, &mut outputs);
        let anyway = told(&outputs);
        tally.people += knew.len();
        tally.told_anyway += anyway.intersection(&knew).count();
        tally.told_anew +=
            told(&story.outputs).intersection(&knew).filter(|peer| !anyway.contains(peer)).count();
    }
    story.settle();
    for _ in 0..80 {
        story.stand_still();
        assert_eq!(story.outputs, [], "{:#?}", story.engine.rules());
    }
}

#[test]
fn takeover_at_any_flush_violates_no_invariant() {
    let (mut tally, worlds) = (Tally::default(), sized::worlds(40));
    for seed in 0..worlds {
        let played = std::panic::catch_unwind(|| {
            let mut tally = Tally::default();
            play_on(Story::new(seed), &mut tally);
            tally
        });
        let Tally { people, told_anyway, told_anew } = played.unwrap_or_else(|_| panic!("seed {seed}"));
        tally.people += people;
        tally.told_anyway += told_anyway;
        tally.told_anew += told_anew;
    }
    println!("{tally:?}");
    // Those at borders and of rules that were waiting for a time to pass: what waits cannot be known.
    assert!(tally.people as u64 > 125 * worlds && tally.told_anew * 50 < tally.people, "{tally:?}");
}
