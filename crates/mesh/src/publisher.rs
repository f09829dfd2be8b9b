//! Turns the state of a mesh into the plans of its members, and finds the members that need a new one.
//!
//! A packet carries the version of its source's plan, and relays forward it by the table of that version. So all members
//! that a path joins must have the same version: when the plan of one changes, all members of its component of the graph
//! of links that are up are sent the new version. Members of other components keep theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use protocol::Address;

use crate::{
    links::Pair,
    plan::{Alias, Link, Plan, PlanMember, Route},
    state::State,
    topology::{Graph, Node, repaired},
    trees::Trees,
};

/// The plans that members have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Publisher {
    /// The members, in order: the member at an index is the node of that number.
    addresses: Vec<Address>,
    /// The alias of each node.
    aliases: Vec<Alias>,
    /// The nodes in the order of their aliases.
    by_alias: Vec<Node>,
    members: Option<Arc<[PlanMember]>>,
    links: BTreeMap<Pair, u32>,
    trees: Trees,
}

impl Publisher {
    /// Chooses the targets again if they are outdated. With `keeps_up` no link that is up is dropped, unless a member has
    /// too many.
    pub(crate) fn update_targets(state: &mut State, keeps_up: bool) {
        if !std::mem::take(&mut state.targets_outdated) {
            return;
        }
        let addresses = state.addresses();
        if addresses.is_empty() {
            return;
        }
        let mut ground = state.ground(&addresses);
        ground.keeps_up = keeps_up;
        let graph = repaired(&state.target_graph(&addresses), &ground);
        state.set_targets(&addresses, &graph);
    }

    /// Compares the state with the published plans. Returns the plans that changed, in the order of the addresses.
    pub(crate) fn publish(&mut self, state: &mut State, now: Duration) -> Vec<(Address, Plan)> {
        let addresses = state.addresses();
        let aliases: Vec<Alias> = state.members.values().map(|member| member.alias).collect();
        let up = state.up_graph(&addresses);
        let trees = Trees::new(&up, &aliases, state.settings.relay);
        let recipients = if std::mem::take(&mut state.members_changed) {
            vec![true; addresses.len()]
        } else {
            self.recipients(state, &trees, &up)
        };
        self.trees = trees;
        if !recipients.contains(&true) {
            return Vec::new();
        }
        self.set_members(addresses, aliases);
        self.links.clone_from(&state.targets);
        // Wrapping would take four billion changes.
        state.version = state.version.saturating_add(1);
        for (member, _) in
            state.members.values_mut().zip(&recipients).filter(|&(_, &is_recipient)| is_recipient)
        {
            member.plan = Some((state.version, now));
        }
        self.plans(state, &recipients)
    }

    /// The current plan of one member; `None` if it has none yet.
    pub(crate) fn plan(&self, state: &State, address: Address) -> Option<Plan> {
        let recipients: Vec<bool> = self.addresses.iter().map(|&other| other == address).collect();
        if !state.members.contains_key(&address) {
            return None;
        }
        self.plans(state, &recipients).pop().map(|(_, plan)| plan)
    }

    /// The hops of the longest path.
    pub(crate) fn depth(&self) -> usize {
        self.trees.depth()
    }

    /// Pairs of members of which the first has no path to the second, in order.
    pub(crate) fn unreached(&self) -> impl Iterator<Item = (Address, Address)> + '_ {
        self.trees.unreached().map(|(source, node)| (self.addresses[source], self.addresses[node]))
    }

    /// The members that a member has no path to.
    pub(crate) fn unreached_by(&self, source: Address) -> impl Iterator<Item = Address> + '_ {
        let source = self.addresses.binary_search(&source).ok();
        let others = self.addresses.iter().enumerate();
        others.filter_map(move |(node, &address)| {
            source
                .is_some_and(|source| source != node && !self.trees.reaches(source, node))
                .then_some(address)
        })
    }

    /// For each node, whether its plan changed or a path joins it to one of which the plan changed.
    fn recipients(&self, state: &State, trees: &Trees, up: &Graph) -> Vec<bool> {
        let mut changed: BTreeSet<Node> = trees.difference(&self.trees).into_iter().collect();
        let differ = |pair: &&Pair| state.targets.contains_key(pair) != self.links.contains_key(pair);
        for Pair(a, b) in state.targets.keys().chain(self.links.keys()).filter(differ) {
            changed.extend([a, b].into_iter().filter_map(|end| self.addresses.binary_search(end).ok()));
        }
        let components = up.components();
        let changed: BTreeSet<Node> = changed.into_iter().map(|node| components[node]).collect();
        components.iter().map(|component| changed.contains(component)).collect()
    }

    fn set_members(&mut self, addresses: Vec<Address>, aliases: Vec<Alias>) {
        self.by_alias = (0..addresses.len()).collect();
        self.by_alias.sort_by_key(|&node| aliases[node]);
        let members = self.by_alias.iter();
        let members = members.map(|&node| PlanMember { alias: aliases[node], address: addresses[node] });
        self.members = Some(members.collect());
        (self.addresses, self.aliases) = (addresses, aliases);
    }

    fn plans(&self, state: &State, recipients: &[bool]) -> Vec<(Address, Plan)> {
        let Some(members) = &self.members else { return Vec::new() };
        let mut routes = self.routes(recipients);
        let mut links = self.links(state);
        let mut plans = Vec::new();
        for node in (0..self.addresses.len()).filter(|&node| recipients[node]) {
            let address = self.addresses[node];
            let plan = Plan {
                version: state
                    .members
                    .get(&address)
                    .and_then(|member| member.plan)
                    .map_or(0, |(version, _)| version),
                alias: self.aliases[node],
                members: Arc::clone(members),
                links: std::mem::take(&mut links[node]),
                routes: std::mem::take(&mut routes[node]),
            };
            plans.push((address, plan));
        }
        plans
    }

    /// The links of each node, by alias.
    fn links(&self, state: &State) -> Vec<Vec<Link>> {
        let prefers =
            |address: Address| state.members.get(&address).is_some_and(|member| member.prefers_to_initiate);
        let mut links: Vec<Vec<Link>> = vec![Vec::new(); self.addresses.len()];
        for &Pair(a, b) in self.links.keys() {
            let node = |address: Address| self.addresses.binary_search(&address).ok();
            let (Some(node_a), Some(node_b)) = (node(a), node(b)) else { continue };
            // `a` is the lower address.
            let a_initiates = prefers(a) && !prefers(b);
            links[node_a].push(Link { alias: self.aliases[node_b], initiate: a_initiates });
            links[node_b].push(Link { alias: self.aliases[node_a], initiate: !a_initiates });
        }
        links.iter_mut().for_each(|links| links.sort_by_key(|link| link.alias));
        links
    }

    /// The routes of each recipient, by source.
    fn routes(&self, recipients: &[bool]) -> Vec<Vec<Route>> {
        let capacity = |&is_recipient: &bool| if is_recipient { recipients.len() } else { 0 };
        let mut routes: Vec<Vec<Route>> =
            recipients.iter().map(|is_recipient| Vec::with_capacity(capacity(is_recipient))).collect();
        let mut children: Vec<Vec<Alias>> = vec![Vec::new(); recipients.len()];
        for &source in &self.by_alias {
            let mut fallback = Vec::new();
            for &node in self.by_alias.iter().filter(|&&node| node != source) {
                match self.trees.parent(source, node) {
                    Some(parent) if recipients[parent] => children[parent].push(self.aliases[node]),
                    Some(_) => {}
                    None => fallback.push(self.aliases[node]),
                }
            }
            for node in (0..recipients.len()).filter(|&node| recipients[node]) {
                let from = self.trees.parent(source, node).map(|parent| self.aliases[parent]);
                if from.is_none() && node != source {
                    continue;
                }
                let fallback = if node == source { std::mem::take(&mut fallback) } else { Vec::new() };
                let to = std::mem::take(&mut children[node]);
                routes[node].push(Route { source: self.aliases[source], from, to, fallback });
            }
        }
        routes
    }
}
