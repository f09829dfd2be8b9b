//! The plans of a mesh and their forwarding tables.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use protocol::{
    Address,
    mesh::{Plan, Route},
};
use thiserror::Error;
use tokio::time::Instant;

/// The time for which a plan is kept after a newer one has replaced it: packets with its version are still routed
/// by it.
pub(crate) const KEPT: Duration = Duration::from_secs(10);
/// Plans that are kept, at most. When more come within [`KEPT`], the oldest is dropped.
const MAX_PLANS: usize = 64;
/// Members of a plan, at most.
const MAX_MEMBERS: usize = 1_000;

/// The newest plans of the mesh of one island, for one member.
#[derive(Debug)]
pub(crate) struct Plans {
    own: Address,
    island_id: String,
    /// Oldest first.
    tables: VecDeque<Table>,
}

/// A plan.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) version: u32,
    /// The member itself.
    pub(crate) alias: u32,
    pub(crate) members: BTreeMap<u32, Address>,
    aliases: HashMap<Address, u32>,
    /// The neighbours, in the order of the plan, and whether the member offers to them.
    pub(crate) links: Vec<(Address, bool)>,
    routes: HashMap<u32, Route>,
    replaced_at: Option<Instant>,
}

/// The reason for which a plan is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum PlanError {
    #[error("the plan is of another island")]
    Island,
    #[error("a newer plan is known, or this one")]
    Stale,
    #[error("the plan is malformed: {0}")]
    Malformed(&'static str),
}

/// The reason for which a packet is not routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// The plan is newer than all known ones.
    NotYetKnown,
    /// The plan is not kept any more, the source is no member of it, or another neighbour sends its packets.
    Refused,
}

/// The receivers of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Neighbours.
    pub(crate) to: Vec<Address>,
    /// Members that no path reaches.
    pub(crate) fallback: Vec<Address>,
}

impl Plans {
    pub(crate) fn new(own: Address, island_id: String) -> Self {
        Self { own, island_id, tables: VecDeque::new() }
    }

    /// Accepts a plan as the newest.
    pub(crate) fn accept(&mut self, plan: Plan, now: Instant) -> Result<(), PlanError> {
        if plan.island_id != self.island_id {
            return Err(PlanError::Island);
        }
        if plan.version <= self.newest().map_or(0, |newest| newest.version) {
            return Err(PlanError::Stale);
        }
        let table = Table::new(plan, self.own).map_err(PlanError::Malformed)?;
        if let Some(replaced) = self.tables.back_mut() {
            replaced.replaced_at = Some(now);
        }
        self.tables.push_back(table);
        let is_over = |table: &Table| table.replaced_at.is_some_and(|at| now - at >= KEPT);
        while self.tables.len() > MAX_PLANS || self.tables.front().is_some_and(is_over) {
            self.tables.pop_front();
        }
        Ok(())
    }

    pub(crate) fn newest(&self) -> Option<&Table> {
        self.tables.back()
    }

    pub(crate) fn island_id(&self) -> &str {
        &self.island_id
    }

    /// Whether a kept plan has this member.
    pub(crate) fn is_member(&self, alias: u32) -> bool {
        self.tables.iter().any(|table| table.members.contains_key(&alias))
    }

    /// The source and the next receivers of a packet that arrived from a neighbour, by the plan of its version.
    pub(crate) fn route(
        &self,
        from: Address,
        source: u32,
        version: u32,
        now: Instant,
    ) -> Result<(Address, Vec<Address>), NoRoute> {
        if self.newest().is_none_or(|newest| newest.version < version) {
            return Err(NoRoute::NotYetKnown);
        }
        let is_kept = |table: &&Table| table.replaced_at.is_none_or(|at| now - at < KEPT);
        let table = self.tables.iter().find(|table| table.version == version).filter(is_kept);
        table.and_then(|table| table.route(from, source)).ok_or(NoRoute::Refused)
    }
}

impl Table {
    fn new(plan: Plan, own: Address) -> Result<Self, &'static str> {
        if plan.members.len() > MAX_MEMBERS {
            return Err("too many members");
        }
        let (mut members, mut aliases) = (BTreeMap::new(), HashMap::new());
        for member in &plan.members {
            let address: Address = member.address.parse().map_err(|_| "a member has no address")?;
            let is_new = members.insert(member.alias, address).is_none();
            if member.alias == 0 || !is_new || aliases.insert(address, member.alias).is_some() {
                return Err("an alias or an address is not unique");
            }
        }
        if members.get(&plan.alias) != Some(&own) {
            return Err("the alias is not that of the recipient");
        }
        let mut neighbours = HashSet::new();
        let link = |link: &protocol::mesh::Link| {
            let address = *members.get(&link.alias).filter(|address| **address != own)?;
            neighbours.insert(address).then_some((address, link.initiate))
        };
        let links: Option<Vec<_>> = plan.links.iter().map(link).collect();
        let links = links.ok_or("a link is to no other member, or repeated")?;
        let count = plan.routes.len();
        let routes: HashMap<_, _> = plan.routes.into_iter().map(|route| (route.source, route)).collect();
        if routes.len() != count {
            return Err("a source has two routes");
        }
        let (version, alias) = (plan.version, plan.alias);
        Ok(Self { version, alias, members, aliases, links, routes, replaced_at: None })
    }

    /// The greatest alias of a member.
    pub(crate) fn highest_alias(&self) -> u32 {
        self.members.keys().next_back().copied().unwrap_or_default()
    }

    pub(crate) fn alias_of(&self, address: Address) -> Option<u32> {
        self.aliases.get(&address).copied()
    }

    /// The source and the next receivers of a packet from a neighbour; `None` if its tree names another neighbour.
    pub(crate) fn route(&self, from: Address, source: u32) -> Option<(Address, Vec<Address>)> {
        let address = *self.members.get(&source)?;
        let route = self.routes.get(&source).filter(|route| source != self.alias && route.from != 0)?;
        if self.alias_of(from) != Some(route.from) {
            return None;
        }
        // Not back to where the packet was: a plan that has this is a loop.
        let to = self.addresses(&route.to).filter(|to| *to != from && *to != address);
        Some((address, to.collect()))
    }

    /// The receivers of an own message.
    pub(crate) fn own_targets(&self) -> Targets {
        let Some(route) = self.routes.get(&self.alias) else { return Targets::default() };
        Targets {
            to: self.addresses(&route.to).collect(),
            fallback: self.addresses(&route.fallback).collect(),
        }
    }

    /// The addresses of other members.
    fn addresses(&self, aliases: &[u32]) -> impl Iterator<Item = Address> {
        let others = aliases.iter().filter(|alias| **alias != self.alias);
        others.filter_map(|alias| self.members.get(alias).copied())
    }
}

#[cfg(test)]
mod tests {
    use protocol::mesh::{Link, Member};

    use super::*;

    fn address(number: u8) -> Address {
        Address::new([number; 20])
    }

    fn member(alias: u32) -> Member {
        Member { alias, address: address(alias as u8).to_string() }
    }

    /// Member 2 between 1 and 3.
    fn plan(version: u32) -> Plan {
        let route = |source, from, to: &[u32]| Route { source, from, to: to.into(), fallback: vec![] };
        Plan {
            island_id: "I1".to_owned(),
            version,
            alias: 2,
            members: (1..=4).map(member).collect(),
            links: vec![Link { alias: 1, initiate: true }, Link { alias: 3, initiate: false }],
            routes: vec![
                route(1, 1, &[3]),
                route(3, 3, &[1]),
                Route { fallback: vec![4], ..route(2, 0, &[1, 3]) },
            ],
        }
    }

    fn plans() -> Plans {
        Plans::new(address(2), "I1".to_owned())
    }

    #[test]
    fn packet_is_accepted_only_from_the_neighbour_of_its_tree() {
        let (mut plans, now) = (plans(), Instant::now());
        plans.accept(plan(7), now).unwrap();
        let route = |from, source, version| plans.route(address(from), source, version, now);
        assert_eq!(route(1, 1, 7), Ok((address(1), vec![address(3)])));
        assert_eq!(route(3, 1, 7), Err(NoRoute::Refused), "from another neighbour");
        assert_eq!(route(1, 2, 7), Err(NoRoute::Refused), "its own message");
        assert_eq!(route(1, 4, 7), Err(NoRoute::Refused), "a source without a route");
        assert_eq!(route(9, 1, 7), Err(NoRoute::Refused), "from no member");
        assert_eq!(route(1, 1, 8), Err(NoRoute::NotYetKnown));
        assert_eq!(route(1, 1, 6), Err(NoRoute::Refused));
        let own = plans.newest().unwrap().own_targets();
        assert_eq!(own, Targets { to: vec![address(1), address(3)], fallback: vec![address(4)] });
    }

    #[test]
    fn replaced_plan_routes_for_ten_seconds() {
        let (mut plans, start) = (plans(), Instant::now());
        plans.accept(plan(7), start).unwrap();
        let other = Plan { routes: vec![], ..plan(9) };
        let replaced = start + Duration::from_secs(60);
        plans.accept(other, replaced).unwrap();
        let route = |version, now| plans.route(address(1), 1, version, now);
        assert!(route(7, replaced + KEPT - Duration::from_millis(1)).is_ok());
        assert_eq!(route(7, replaced + KEPT), Err(NoRoute::Refused));
        assert_eq!(route(8, replaced), Err(NoRoute::Refused), "skipped");
        assert_eq!(route(9, replaced), Err(NoRoute::Refused), "no route");
        plans.accept(plan(10), replaced + KEPT).unwrap();
        assert_eq!(plans.tables.len(), 2);
    }

    #[test]
    fn stale_foreign_and_malformed_plans_are_refused() {
        let (mut plans, now) = (plans(), Instant::now());
        let error = |plans: &mut Plans, plan| plans.accept(plan, now).unwrap_err();
        let plan7 = || plan(7);
        let foreign = Plan { island_id: "I2".to_owned(), ..plan7() };
        assert_eq!(error(&mut plans, foreign), PlanError::Island);
        assert_eq!(error(&mut plans, plan(0)), PlanError::Stale);
        let malformed = [
            Plan { alias: 3, ..plan7() },
            Plan { members: vec![member(2), member(2)], ..plan7() },
            Plan { members: vec![member(2), Member { alias: 1, address: "x".to_owned() }], ..plan7() },
            Plan { links: vec![Link { alias: 2, initiate: true }], ..plan7() },
            Plan { links: vec![Link { alias: 9, initiate: true }], ..plan7() },
            Plan { links: vec![Link { alias: 1, initiate: true }; 2], ..plan7() },
            Plan { routes: vec![Route { source: 1, ..Route::default() }; 2], ..plan7() },
        ];
        for plan in malformed {
            assert!(matches!(error(&mut plans, plan.clone()), PlanError::Malformed(_)), "{plan:?}");
        }
        plans.accept(plan7(), now).unwrap();
        assert_eq!(error(&mut plans, plan7()), PlanError::Stale);
        assert_eq!(error(&mut plans, plan(6)), PlanError::Stale);
    }

    #[test]
    fn packet_is_never_sent_back() {
        let mut plans = plans();
        let looped = Route { source: 1, from: 1, to: vec![1, 2, 3], fallback: vec![] };
        plans.accept(Plan { routes: vec![looped], ..plan(1) }, Instant::now()).unwrap();
        let (_, to) = plans.newest().unwrap().route(address(1), 1).unwrap();
        assert_eq!(to, [address(3)]);
    }
}
