//! A plain engine: the rules of islands written down as they read, every distance computed, nothing
//! remembered but who is where. It shares no code with the engine. First come, first served: it does
//! not cut crowds by place.
//!
//! Faults can be planted in it, to see whether the witness sees them.

use std::collections::{BTreeMap, HashMap};

use archipelago::{
    Input, Output,
    invariants::{Bounds, IslandMembers, Partition},
};
use protocol::{Address, IslandId, NodeName, Position};

/// What can be done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Fault {
    /// Two islands that touch a common third merge.
    MergesThroughThird,
    /// A closed island's id is used again.
    ReusesId,
    /// An island that falls apart is left as it is.
    ForgetsSplit,
    /// Islands take one more than their limit.
    LimitOffByOne,
    /// Everybody who was told something is told it again.
    TellsTwice,
    /// Who leaves is not taken out.
    KeepsStale,
    /// Of two that merge, the smaller survives.
    WrongSurvivor,
    /// Islands merge at the leave distance.
    JoinsFar,
    /// Islands split at the join distance.
    LeavesNear,
    /// Who changes islands is told that it comes from the one it is in.
    WrongFormer,
    /// Who changes islands when it is not the one that moved is not told.
    ForgetsToTell,
    /// Islands near each other that fit together are left as two.
    ForgetsMerge,
    /// A peer is counted in two islands.
    InTwoIslands,
}

/// The plain engine.
pub(crate) struct Plain {
    bounds: Bounds,
    fault: Option<Fault>,
    at: BTreeMap<Address, Position>,
    gone: Vec<Address>,
    /// By age.
    islands: Vec<(IslandId, Vec<Address>)>,
    told: HashMap<Address, IslandId>,
    opened: usize,
    free: Vec<IslandId>,
}

fn apart(a: Position, b: Position) -> f32 {
    a.ground_distance_squared(b)
}

impl Plain {
    pub(crate) fn new(bounds: Bounds, fault: Option<Fault>) -> Self {
        let (at, told, gone, free) = Default::default();
        Self { bounds, fault, at, gone, islands: Vec::new(), told, opened: 0, free }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn handle(&mut self, input: &Input) {
        match input {
            Input::Heartbeat { peer, position, .. } => {
                self.at.insert(*peer, *position);
                self.gone.retain(|gone| gone != peer);
            }
            Input::Disconnected { peer, .. } => {
                self.told.remove(peer);
                if !self.has(Fault::KeepsStale) && self.at.remove(peer).is_some() {
                    self.gone.push(*peer);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn flush(&mut self, outputs: &mut Vec<Output>) {
        let before = self.members();
        let ids: Vec<IslandId> = self.islands.iter().map(|(id, _)| id.clone()).collect();
        for (_, members) in &mut self.islands {
            members.retain(|peer| self.at.contains_key(peer));
        }
        if !self.has(Fault::ForgetsSplit) {
            self.split();
        }
        let newcomers: Vec<Address> =
            self.at.keys().copied().filter(|peer| !before.contains_key(peer)).collect();
        for peer in newcomers {
            self.open(vec![peer]);
        }
        if !self.has(Fault::ForgetsMerge) {
            self.merge();
        }
        self.islands.retain(|(_, members)| !members.is_empty());
        self.announce(&ids, &before, outputs);
    }

    pub(crate) fn picture(&self) -> Partition {
        let node = node();
        let member = |peer: &Address| (*peer, self.at[peer]);
        let island = |(id, members): &(IslandId, Vec<Address>)| IslandMembers {
            id: id.clone(),
            transport: Some(node.clone()),
            members: members.iter().map(member).collect(),
        };
        let mut picture = Partition { islands: self.islands.iter().map(island).collect() };
        if self.has(Fault::InTwoIslands)
            && let [first, .., last] = picture.islands.as_mut_slice()
        {
            last.members.push(first.members[0]);
        }
        picture
    }

    fn members(&self) -> HashMap<Address, IslandId> {
        let islands = self.islands.iter();
        islands.flat_map(|(id, members)| members.iter().map(|peer| (*peer, id.clone()))).collect()
    }

    fn open(&mut self, members: Vec<Address>) {
        let reused = if self.has(Fault::ReusesId) { self.free.pop() } else { None };
        let id = reused.unwrap_or_else(|| {
            self.opened += 1;
            format!("P{}", self.opened).parse().expect("an id")
        });
        self.islands.push((id, members));
    }

    fn split(&mut self) {
        let leave_m = if self.has(Fault::LeavesNear) {
            self.bounds.join_distance_m
        } else {
            self.bounds.leave_distance_m
        };
        let mut cut_off = Vec::new();
        for (_, members) in &mut self.islands {
            let mut unseen = std::mem::take(members);
            unseen.sort();
            let mut groups: Vec<Vec<Address>> = Vec::new();
            while !unseen.is_empty() {
                let mut group = vec![unseen.remove(0)];
                let mut next = 0;
                while next < group.len() {
                    let from = self.at[&group[next]];
                    let near = |peer: &Address| apart(from, self.at[peer]) <= leave_m * leave_m;
                    let (found, rest) = unseen.into_iter().partition(near);
                    group.extend::<Vec<Address>>(found);
                    unseen = rest;
                    next += 1;
                }
                groups.push(group);
            }
            groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
            let mut groups = groups.into_iter();
            *members = groups.next().unwrap_or_default();
            cut_off.extend(groups);
        }
        for group in cut_off {
            self.open(group);
        }
    }

    fn merge(&mut self) {
        let join_m = if self.has(Fault::JoinsFar) {
            self.bounds.leave_distance_m
        } else {
            self.bounds.join_distance_m
        };
        let people: Vec<(Address, Position)> = self.at.iter().map(|(peer, at)| (*peer, *at)).collect();
        let mut home: HashMap<Address, usize> = HashMap::new();
        for (index, (_, members)) in self.islands.iter().enumerate() {
            home.extend(members.iter().map(|peer| (*peer, index)));
        }
        let mut near = Vec::new();
        for (index, &(one, at)) in people.iter().enumerate() {
            let others = people[index + 1..].iter().filter(|other| apart(at, other.1) <= join_m * join_m);
            near.extend(others.map(|&(other, _)| (one, other)));
        }
        if self.has(Fault::MergesThroughThird) {
            let direct = near.clone();
            for &(one, third) in &direct {
                let others = direct.iter().filter(|pair| pair.0 == third);
                near.extend(others.map(|&(_, other)| (one, other)));
            }
        }
        let limit = self.bounds.limit as usize + usize::from(self.has(Fault::LimitOffByOne));
        loop {
            let before = home.clone();
            for &(one, other) in &near {
                let (one, other) = (home[&one], home[&other]);
                let size = |island: usize| self.islands[island].1.len();
                if one != other && size(one) + size(other) <= limit {
                    let larger =
                        (size(one), std::cmp::Reverse(one)) > (size(other), std::cmp::Reverse(other));
                    let one_survives = larger != self.has(Fault::WrongSurvivor);
                    let (survivor, ended) = if one_survives { (one, other) } else { (other, one) };
                    let moved = std::mem::take(&mut self.islands[ended].1);
                    home.extend(moved.iter().map(|peer| (*peer, survivor)));
                    self.islands[survivor].1.extend(moved);
                }
            }
            if home == before {
                return;
            }
        }
    }

    fn announce(&mut self, ids: &[IslandId], before: &HashMap<Address, IslandId>, outputs: &mut Vec<Output>) {
        let now = self.members();
        let ended = ids.iter().filter(|id| self.islands.iter().all(|(other, _)| other != *id));
        let ended: Vec<IslandId> = ended.cloned().collect();
        let opened = self.islands.iter().map(|(id, _)| id).filter(|id| !ids.contains(id));
        outputs.extend(opened.map(|island| Output::Opened { island: island.clone() }));
        for (peer, island) in before {
            if now.get(peer) != Some(island) {
                outputs.push(Output::Left { island: island.clone(), peer: *peer, session: None });
            }
        }
        for (peer, island) in &now {
            if before.get(peer) != Some(island) {
                outputs.push(Output::Joined { island: island.clone(), peer: *peer, session: None });
            }
            self.tell(*peer, island, outputs);
        }
        outputs.extend(ended.iter().map(|island| Output::Closed { island: island.clone() }));
        self.free.extend(ended);
    }

    fn tell(&mut self, peer: Address, island: &IslandId, outputs: &mut Vec<Output>) {
        let former = self.told.insert(peer, island.clone());
        if former.as_ref() == Some(island) || (former.is_some() && self.has(Fault::ForgetsToTell)) {
            return;
        }
        let from = if self.has(Fault::WrongFormer) { former.map(|_| island.clone()) } else { former };
        let told = Output::Assigned { peer, session: None, island: island.clone(), transport: node(), from };
        if self.has(Fault::TellsTwice) {
            outputs.push(told.clone());
        }
        outputs.push(told);
    }
}

fn node() -> NodeName {
    "node".parse().expect("a name")
}
