//! Forwards signals between members, and computes plans.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use protocol::{
    Address,
    mesh::{Link, Member, Plan, Route, Signal, signal::Content},
};
use rtc::mesh::MeshInputs;

pub(crate) const ISLAND: &str = "I1";

/// The address of the member with this alias: a higher alias has a higher address.
pub(crate) fn address(alias: u32) -> Address {
    Address::new([u8::try_from(alias).unwrap(); 20])
}

/// The signalling between members. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    members: HashMap<Address, MeshInputs>,
    /// All signals, with their senders, including those that are dropped.
    log: Vec<(Address, Signal)>,
    filter: Option<Filter>,
}

/// Whether a signal of this sender is forwarded.
type Filter = Box<dyn FnMut(Address, &Signal) -> bool + Send>;

impl Hub {
    pub(crate) fn register(&self, member: Address, inputs: MeshInputs) {
        self.0.lock().unwrap().members.insert(member, inputs);
    }

    pub(crate) fn set_filter(&self, filter: impl FnMut(Address, &Signal) -> bool + Send + 'static) {
        self.0.lock().unwrap().filter = Some(Box::new(filter));
    }

    /// Forwards a signal to its recipient: `peer` becomes the sender.
    pub(crate) fn forward(&self, from: Address, signal: Signal) {
        let mut state = self.0.lock().unwrap();
        state.log.push((from, signal.clone()));
        if state.filter.as_mut().is_some_and(|filter| !filter(from, &signal)) {
            return;
        }
        let to: Address = signal.peer.parse().unwrap();
        if let Some(inputs) = state.members.get(&to) {
            // Fails if the member was closed.
            let _ = inputs.signal(Signal { peer: from.to_string(), ..signal });
        }
    }

    /// All signals so far, with their senders.
    pub(crate) fn log(&self) -> Vec<(Address, Signal)> {
        self.0.lock().unwrap().log.clone()
    }

    /// The senders and numbers of all offers so far.
    pub(crate) fn offers(&self) -> Vec<(Address, u32)> {
        let is_offer = |(_, signal): &(Address, Signal)| is_offer(signal);
        self.log().into_iter().filter(is_offer).map(|(from, signal)| (from, signal.negotiation)).collect()
    }
}

pub(crate) fn is_offer(signal: &Signal) -> bool {
    matches!(signal.content, Some(Content::Offer(_)))
}

pub(crate) fn is_answer(signal: &Signal) -> bool {
    matches!(signal.content, Some(Content::Answer(_)))
}

/// The plan of one member of a mesh with these members and links. The first member of a link initiates it. Each source
/// has the tree of the shortest paths; members without a path are served through the gateway.
pub(crate) fn plan(version: u32, alias: u32, members: &[u32], links: &[(u32, u32)]) -> Plan {
    let neighbours = |of: u32| {
        let ends = links.iter().flat_map(|&(one, two)| [(one, two), (two, one)]);
        ends.filter(move |(one, _)| *one == of).map(|(_, two)| two).collect::<BTreeSet<u32>>()
    };
    let route = |source: u32| {
        // The member before each on its path.
        let (mut before, mut open) = (BTreeMap::from([(source, 0)]), vec![source]);
        while !open.is_empty() {
            for member in std::mem::take(&mut open) {
                for next in neighbours(member) {
                    before.entry(next).or_insert_with(|| {
                        open.push(next);
                        member
                    });
                }
            }
        }
        let to = before.iter().filter(|(_, before)| **before == alias).map(|(to, _)| *to).collect();
        let unreached = members.iter().filter(|member| source == alias && !before.contains_key(*member));
        let fallback = unreached.copied().collect();
        before.get(&alias).map(|&from| Route { source, from, to, fallback })
    };
    Plan {
        island_id: ISLAND.to_owned(),
        version,
        alias,
        members: members.iter().map(|&alias| Member { alias, address: address(alias).to_string() }).collect(),
        links: neighbours(alias)
            .into_iter()
            .map(|other| Link { alias: other, initiate: links.contains(&(alias, other)) })
            .collect(),
        routes: members.iter().filter_map(|&source| route(source)).collect(),
    }
}
