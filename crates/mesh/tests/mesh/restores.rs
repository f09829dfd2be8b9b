//! Meshes restored from the reports of their members, as after a failover.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh::{JoinError, Mesh, Plan, RestoreError, RestoredMember, RestoredState, Settings};
use proptest::prelude::*;
use protocol::{Address, Position};

use crate::{
    invariants::{check, check_survives_departures},
    random::address,
    world::{World, address_in},
};

/// A mesh of members at these places, too new for exchanges, of which the links between some pairs do not come up.
fn world(places: &[(f32, f32)], cuts: &[(usize, usize)]) -> World {
    let mut world = World::new(Settings::default());
    for (number, &(x, z)) in (0..).zip(places) {
        world.join(address(number), x, z, false).unwrap();
        world.wait(Duration::from_millis(120));
    }
    let peers: Vec<Address> = world.peers.keys().copied().collect();
    for &(a, b) in cuts {
        world.set_cut(peers[a % peers.len()], peers[b % peers.len()], true);
    }
    world.wait(Duration::from_secs(2));
    world
}

fn plans(mesh: &mut Mesh, now: Duration) -> BTreeMap<Address, Plan> {
    mesh.tick(now).plans.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn restored_mesh_keeps_links_and_aliases(
        places in prop::collection::vec((0.0_f32..100.0, 0.0_f32..100.0), 2..60),
        cuts in prop::collection::vec((any::<usize>(), any::<usize>()), 0..20),
        late in prop::collection::btree_set(any::<u16>(), 0..3),
    ) {
        let world = world(&places, &cuts);
        // Late members report after the restore. Their links count by the reports of the other ends.
        let late: BTreeSet<Address> = late.into_iter().map(|number| address(number % 60)).collect();
        let mut members = world.restored_members(&late);
        let mut restored = Mesh::restore(Settings::default(), members.clone(), world.now).unwrap();
        let plans = plans(&mut restored, world.now);
        prop_assert_eq!(plans.len(), places.len());

        for (&peer, plan) in &plans {
            let former = world.peers[&peer].plan.as_ref().unwrap();
            prop_assert!(plan.version > former.version || late.contains(&peer));
            let has_link = world.targets(peer).iter().any(|&other| world.is_up(peer, other) && !late.contains(&other));
            prop_assert!(plan.alias == former.alias || late.contains(&peer) && !has_link);
            let targets: BTreeSet<Address> =
                plan.links.iter().filter_map(|link| address_in(plan, link.alias)).collect();
            prop_assert!(targets.len() <= 6);
            for other in world.targets(peer) {
                let is_reported = !late.contains(&peer) || !late.contains(&other);
                prop_assert!(!world.is_up(peer, other) || !is_reported || targets.contains(&other));
            }
        }

        members.reverse();
        let mut reversed = Mesh::restore(Settings::default(), members, world.now).unwrap();
        prop_assert_eq!(reversed.tick(world.now).plans.into_iter().collect::<BTreeMap<_, _>>(), plans);
    }

    /// Without failed links the plans stay the same, except for the version.
    #[test]
    fn restore_of_a_whole_mesh_changes_no_plan(
        places in prop::collection::vec((0.0_f32..100.0, 0.0_f32..100.0), 2..60),
    ) {
        let mut world = world(&places, &[]);
        let former: Vec<Plan> = world.peers.values().filter_map(|peer| peer.plan.clone()).collect();
        world.restore();
        world.wait(Duration::from_millis(500));
        for (before, peer) in former.into_iter().zip(world.peers.values()) {
            let after = peer.plan.clone().unwrap();
            prop_assert!(after.version > before.version);
            prop_assert_eq!(Plan { version: 0, ..after }, Plan { version: 0, ..before });
        }
        check(&world, 6, true);
        check_survives_departures(&world);
    }
}

fn restored_member(number: u16, reported: Option<RestoredState>) -> RestoredMember {
    let position = Position::new(f32::from(number), 0.0, 0.0);
    RestoredMember { address: address(number), position, prefers_to_initiate: false, reported }
}

fn state(alias: u32, version: u32, highest_alias: u32, links: &[(u32, u16)]) -> RestoredState {
    let links = links.iter().map(|&(alias, number)| (alias, address(number))).collect();
    RestoredState { alias, version, highest_alias, links }
}

#[test]
fn alias_of_a_departed_member_is_not_assigned_again() {
    let members = [restored_member(1, Some(state(3, 7, 9, &[])))];
    let mut mesh = Mesh::restore(Settings::default(), members, Duration::ZERO).unwrap();
    assert_eq!(mesh.alias(address(1)), Some(3));
    assert_eq!(mesh.join(address(2), Position::default(), false, Duration::ZERO), Ok(10));
    assert_eq!(mesh.tick(Duration::ZERO).plans[0].1.version, 8);
}

#[test]
fn alias_of_a_late_member_is_taken_from_its_neighbours() {
    let members = [restored_member(1, Some(state(3, 7, 9, &[(5, 2)]))), restored_member(2, None)];
    let mesh = Mesh::restore(Settings::default(), members, Duration::ZERO).unwrap();
    assert_eq!(mesh.alias(address(2)), Some(5));
}

#[test]
fn implausible_numbers_of_a_report_are_ignored() {
    let members = [
        restored_member(1, Some(state(u32::MAX, u32::MAX, u32::MAX, &[(u32::MAX, 2)]))),
        restored_member(2, Some(state(4, 2, 4, &[(0, 1), (4, 2), (9, 7)]))),
        restored_member(3, Some(state(4, 2, 4, &[]))),
    ];
    let mut mesh = Mesh::restore(Settings::default(), members, Duration::ZERO).unwrap();
    let mut aliases: Vec<_> = (1..=3).filter_map(|number| mesh.alias(address(number))).collect();
    aliases.sort_unstable();
    // One of the two that report the alias 4 keeps it; the greatest plausible alias is 9.
    assert_eq!(aliases, [4, 10, 11]);
    mesh.tick(Duration::ZERO);
    assert_eq!(mesh.version(), 3);
}

#[test]
fn too_many_members_without_relay_are_an_error() {
    let settings = Settings { relay: false, max_links: 2, target_links: 2, ..Settings::default() };
    let members = (0..4).map(|number| restored_member(number, None));
    let error = Mesh::restore(settings, members, Duration::ZERO).unwrap_err();
    assert_eq!(error, RestoreError::Join(JoinError::Full { limit: 3 }));
}
