//! The invariants of a mesh, checked on the plans that its peers have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh::{Alias, Plan};
use protocol::Address;

use crate::world::{World, own_fallback};

/// The plans that peers have, by alias.
fn plans(world: &World) -> BTreeMap<Alias, (&Plan, Address)> {
    let plans = world.peers.iter().filter_map(|(&peer, state)| Some((state.plan.as_ref()?, peer)));
    plans.map(|(plan, peer)| (plan.alias, (plan, peer))).collect()
}

/// The hops at which each member receives a packet of `source`, which only the tables of the peers route. Panics if a
/// member receives it twice, from a neighbour that its table does not name, or by another version.
pub(crate) fn forwarded(world: &World, source: Alias) -> BTreeMap<Alias, usize> {
    let plans = plans(world);
    let version = plans[&source].0.version;
    let mut received = BTreeMap::from([(source, 0)]);
    let mut queue = VecDeque::from([(source, None, 0)]);
    while let Some((member, from, hops)) = queue.pop_front() {
        let (plan, address) = plans[&member];
        assert_eq!(plan.version, version, "all members on a path have the version of the source");
        let route = plan.routes.iter().find(|route| route.source == source).expect("a route for the source");
        assert_eq!(route.from, from);
        for &next in &route.to {
            assert!(world.is_up(address, plans[&next].1), "a tree uses a link that is not up");
            assert_eq!(received.insert(next, hops + 1), None, "{next} receives a packet of {source} twice");
            queue.push_back((next, Some(member), hops + 1));
        }
    }
    received
}

/// Checks everything that holds once the reports of all changes have become plans.
pub(crate) fn check(world: &World, max_links: usize, relay: bool) {
    let plans = plans(world);
    let all: BTreeSet<Alias> = plans.keys().copied().collect();
    assert_eq!(plans.len(), world.peers.len(), "every member has a plan");
    for (&alias, &(plan, peer)) in &plans {
        assert_eq!(world.mesh.plan(peer).as_ref(), Some(plan), "the last plan sent is the current one");
        assert!(plan.members.iter().map(|member| member.alias).eq(all.iter().copied()));
        assert!(plan.links.len() <= max_links);
        for link in &plan.links {
            let (other, address) = plans[&link.alias];
            let back = other.links.iter().find(|back| back.alias == alias).expect("links are mutual");
            assert_ne!(back.initiate, link.initiate, "exactly one side initiates, {peer} or {address}");
        }
        let received = forwarded(world, alias);
        let fallback = own_fallback(plan);
        assert_eq!(fallback.len() + received.len(), all.len());
        assert!(fallback.iter().all(|alias| all.contains(alias) && !received.contains_key(alias)));
        let foreign = plan.routes.iter().filter(|route| route.source != alias);
        assert!(foreign.clone().all(|route| route.fallback.is_empty()));
        assert!(foreign.map(|route| route.source).collect::<BTreeSet<_>>().len() + 1 == plan.routes.len());
    }
    if relay {
        check_components(world);
    }
}

/// Members that links join reach each other, unless the path is very long.
fn check_components(world: &World) {
    for (alias, (_, peer)) in plans(world) {
        let mut component = BTreeSet::from([peer]);
        let mut queue = vec![peer];
        while let Some(member) = queue.pop() {
            let up = world.targets(member).into_iter().filter(|&other| world.is_up(member, other));
            queue.extend(up.filter(|&other| component.insert(other)));
        }
        let received = forwarded(world, alias);
        assert!(received.len() <= component.len());
        assert!(received.len() == component.len() || component.len() > 2 * max_depth(component.len()));
    }
}

/// ⌈log₂ members⌉ + 2.
pub(crate) fn max_depth(members: usize) -> usize {
    members.next_power_of_two().ilog2() as usize + 2
}

/// Whether the members are connected by the links of their plans, without `departed`.
fn is_connected(world: &World, departed: Option<Address>) -> bool {
    let mut members: BTreeSet<Address> =
        world.peers.keys().copied().filter(|&peer| Some(peer) != departed).collect();
    let mut queue: Vec<Address> = members.pop_first().into_iter().collect();
    while let Some(member) = queue.pop() {
        queue.extend(world.targets(member).into_iter().filter(|other| members.remove(other)));
    }
    members.is_empty()
}

/// Checks that the departure of any one member leaves the others connected.
pub(crate) fn check_survives_departures(world: &World) {
    assert!(is_connected(world, None));
    if world.peers.len() > 2 {
        for &peer in world.peers.keys() {
            assert!(is_connected(world, Some(peer)), "{peer} is a cut vertex of {} peers", world.peers.len());
        }
    }
}

/// Checks that all members reach each other within the depth of a complete mesh.
pub(crate) fn check_depth(world: &World) {
    for alias in plans(world).into_keys() {
        let received = forwarded(world, alias);
        assert_eq!(received.len(), world.peers.len());
        let depth = received.values().max().copied().unwrap_or(0);
        assert!(depth <= max_depth(world.peers.len()), "{depth} hops among {}", world.peers.len());
    }
}
