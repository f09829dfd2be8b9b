//! The state of a mesh: its members, their links, and the links that they should hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{Address, Position};

use crate::{
    links::{Links, Pair},
    plan::Alias,
    settings::Settings,
    topology::{Graph, Ground, LinkBounds, Node},
};

/// A member of the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) alias: Alias,
    pub(crate) position: Position,
    pub(crate) prefers_to_initiate: bool,
    pub(crate) joined_at: Duration,
    pub(crate) last_report: Option<Duration>,
    /// The version of its current plan and when that was sent; `None` before the first.
    pub(crate) plan: Option<(u32, Duration)>,
    /// Members that it could not reach at its last report, without those in formation.
    pub(crate) unreached: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) members: BTreeMap<Address, Member>,
    /// The members by alias.
    pub(crate) aliases: BTreeMap<Alias, Address>,
    /// The greatest alias ever assigned.
    pub(crate) last_alias: Alias,
    pub(crate) version: u32,
    pub(crate) links: Links,
    /// The links that members should hold, each with the first version that lists it.
    pub(crate) targets: BTreeMap<Pair, u32>,
    /// Whether members joined or left since the last plan.
    pub(crate) members_changed: bool,
    /// Whether the targets must be chosen again.
    pub(crate) targets_outdated: bool,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            links: Links::new(settings.retry_after),
            settings,
            members: BTreeMap::new(),
            aliases: BTreeMap::new(),
            last_alias: 0,
            version: 0,
            targets: BTreeMap::new(),
            members_changed: false,
            targets_outdated: false,
        }
    }

    /// The most members that the mesh may have; `None`: any number.
    pub(crate) fn size_limit(&self) -> Option<usize> {
        (!self.settings.relay).then_some(self.settings.max_links + 1)
    }

    /// Adds a member. Its address and its alias must be new.
    pub(crate) fn insert(&mut self, address: Address, member: Member) {
        self.last_alias = self.last_alias.max(member.alias);
        self.aliases.insert(member.alias, address);
        self.members.insert(address, member);
        self.members_changed = true;
        self.targets_outdated = true;
    }

    /// Removes a member and its links. Returns whether it was one.
    pub(crate) fn remove(&mut self, address: Address) -> bool {
        let Some(member) = self.members.remove(&address) else { return false };
        self.aliases.remove(&member.alias);
        self.links.remove(address);
        self.targets.retain(|pair, _| !pair.contains(address));
        self.members_changed = true;
        self.targets_outdated = true;
        true
    }

    /// Whether the member is so new that its links may not be up yet.
    pub(crate) fn is_in_formation(&self, address: Address, now: Duration) -> bool {
        let member = self.members.get(&address);
        member.is_some_and(|member| now.saturating_sub(member.joined_at) < self.settings.formation)
    }

    /// The addresses of the members, in order: the member at an index is the node of that number.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.members.keys().copied().collect()
    }

    /// The facts that targets are chosen by.
    pub(crate) fn ground(&self, addresses: &[Address]) -> Ground {
        let bounds = LinkBounds { target: self.settings.target_links, max: self.settings.max_links };
        let mut ground = Ground::new(self.members.values().map(|member| member.position), bounds);
        ground.blocked = nodes_of(addresses, self.links.blocked()).collect();
        ground.avoided = nodes_of(addresses, self.links.avoided()).collect();
        ground.up = graph(addresses, self.links.up());
        ground
    }

    /// The graph of the targets.
    pub(crate) fn target_graph(&self, addresses: &[Address]) -> Graph {
        graph(addresses, self.targets.keys().copied())
    }

    /// The graph of the targets that are up.
    pub(crate) fn up_graph(&self, addresses: &[Address]) -> Graph {
        graph(addresses, self.targets.keys().copied().filter(|&pair| self.links.is_up(pair)))
    }

    /// Replaces the targets. Returns whether they changed.
    pub(crate) fn set_targets(&mut self, addresses: &[Address], graph: &Graph) -> bool {
        let pairs: BTreeSet<Pair> = graph.edges().map(|(a, b)| Pair(addresses[a], addresses[b])).collect();
        let before = self.targets.len();
        let links = &mut self.links;
        self.targets.retain(|pair, _| {
            let stays = pairs.contains(pair);
            if !stays {
                links.forget_attempt(*pair);
            }
            stays
        });
        let kept = self.targets.len();
        let next_version = self.version.saturating_add(1);
        for pair in pairs {
            self.targets.entry(pair).or_insert(next_version);
        }
        kept < before || self.targets.len() > kept
    }
}

/// The nodes of pairs of members, smaller node first.
fn nodes_of(addresses: &[Address], pairs: impl Iterator<Item = Pair>) -> impl Iterator<Item = (Node, Node)> {
    let node = |address: Address| addresses.binary_search(&address).ok();
    pairs.filter_map(move |Pair(a, b)| Some((node(a)?, node(b)?)))
}

fn graph(addresses: &[Address], pairs: impl Iterator<Item = Pair>) -> Graph {
    let mut graph = Graph::new(addresses.len());
    nodes_of(addresses, pairs).for_each(|(a, b)| graph.add(a, b));
    graph
}
