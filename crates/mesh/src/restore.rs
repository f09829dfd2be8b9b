//! Rebuilds aliases, version and targets of a mesh from the reports of its members.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Address;

use crate::{
    links::Pair,
    plan::Alias,
    report::{RestoredMember, RestoredState},
};

/// The greatest alias or version that a report may claim.
const MAX_PLAUSIBLE: u32 = u32::MAX / 2;

/// The members of a restored mesh.
pub(crate) struct RestoredMembers {
    /// By address, each with its alias.
    pub(crate) list: Vec<(Alias, RestoredMember)>,
    /// The greatest alias ever assigned, as far as reports show.
    pub(crate) last_alias: Alias,
    /// The greatest reported version.
    pub(crate) version: u32,
}

/// Assigns the aliases of a restored mesh. If two entries have one address, the later one counts.
pub(crate) fn restored(members: impl IntoIterator<Item = RestoredMember>) -> RestoredMembers {
    let members: BTreeMap<Address, RestoredMember> =
        members.into_iter().map(|member| (member.address, member)).collect();
    let states: Vec<&RestoredState> =
        members.values().filter_map(|member| member.reported.as_ref()).collect();
    let is_plausible = |number: &u32| (1..=MAX_PLAUSIBLE).contains(number);

    let mut owners: BTreeMap<Alias, Address> = BTreeMap::new();
    let mut aliases: BTreeMap<Address, Alias> = BTreeMap::new();
    let own = members.values().filter_map(|member| Some((member.reported.as_ref()?.alias, member.address)));
    // The newest plan is the best source for the aliases of others.
    let mut by_version = states.clone();
    by_version.sort_by_key(|state| std::cmp::Reverse(state.version));
    let by_others = by_version.iter().flat_map(|state| state.links.iter().copied());
    for (alias, address) in own.chain(by_others).filter(|(alias, _)| is_plausible(alias)) {
        if members.contains_key(&address) && !aliases.contains_key(&address) && !owners.contains_key(&alias) {
            owners.insert(alias, address);
            aliases.insert(address, alias);
        }
    }
    let seen = states.iter().flat_map(|state| {
        let links = state.links.iter().map(|&(alias, _)| alias);
        links.chain([state.alias, state.highest_alias])
    });
    let mut last_alias = seen.filter(is_plausible).max().unwrap_or(0);
    let version = states.iter().map(|state| state.version).filter(is_plausible).max().unwrap_or(0);
    let list = members.into_values().map(|member| {
        let alias = aliases.get(&member.address).copied().unwrap_or_else(|| {
            last_alias += 1;
            last_alias
        });
        (alias, member)
    });
    RestoredMembers { list: list.collect(), last_alias, version }
}

/// The links that the former planner probably had: those that both ends report, and those that one end reports while the
/// other did not report at all. Both ends may lack membership.
pub(crate) fn earlier_targets(members: &[(Alias, RestoredMember)]) -> BTreeSet<Pair> {
    let reported: BTreeMap<Address, BTreeSet<Address>> = members
        .iter()
        .filter_map(|(_, member)| {
            let links = member.reported.as_ref()?.links.iter();
            Some((member.address, links.map(|&(_, other)| other).collect()))
        })
        .collect();
    let mut targets = BTreeSet::new();
    for (&member, others) in &reported {
        for &other in others {
            if reported.get(&other).is_none_or(|links| links.contains(&member)) {
                targets.insert(Pair::new(member, other));
            }
        }
    }
    targets
}
