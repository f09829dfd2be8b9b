//! A reference engine: the rules of islands in their simplest form. It computes every distance, keeps no
//! state but positions and members, and shares no code with the engine. Islands fill in the order of
//! arrival: it does not split crowds by position.
//!
//! Faults can be planted in it, to test whether the invariant checker detects them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use archipelago::{
    AssignedIsland, Heartbeat, Input, Output,
    invariants::{Bounds, IslandMembers, Partition},
};
use protocol::{Address, IslandId, MediaGrants, NodeName, Position};

/// A mistake that the reference engine makes on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Fault {
    /// Two islands that are both near a third one merge.
    MergesThroughThird,
    /// The id of a closed island is used again.
    ReusesId,
    /// An island is not split when its members are no longer connected.
    SkipsSplit,
    /// Islands hold one member more than their limit.
    LimitOffByOne,
    /// Every assignment is output twice.
    AssignsTwice,
    /// A peer that disconnects is not removed.
    KeepsDisconnected,
    /// The smaller of two merged islands survives.
    KeepsSmallerIsland,
    /// Islands merge at the leave distance.
    JoinsFar,
    /// Islands split at the join distance.
    LeavesNear,
    /// The assignment of a peer that changes islands names the new island as the former one.
    NamesWrongFormer,
    /// Only the first assignment of a peer is output: later changes of its island are not.
    OmitsAssignment,
    /// Islands within the join distance that fit together do not merge.
    SkipsMerge,
    /// A peer is listed in two islands.
    InTwoIslands,
}

/// The reference engine.
pub(crate) struct ReferenceEngine {
    bounds: Bounds,
    fault: Option<Fault>,
    at: BTreeMap<Address, Position>,
    disconnected: Vec<Address>,
    /// Id and members, the oldest island first.
    islands: Vec<(IslandId, Vec<Address>)>,
    assigned: HashMap<Address, IslandId>,
    opened: usize,
    closed_ids: Vec<IslandId>,
}

fn distance_squared(a: Position, b: Position) -> f32 {
    a.ground_distance_squared(b)
}

impl ReferenceEngine {
    pub(crate) fn new(bounds: Bounds, fault: Option<Fault>) -> Self {
        let (at, assigned, disconnected, closed_ids) = Default::default();
        Self { bounds, fault, at, disconnected, islands: Vec::new(), assigned, opened: 0, closed_ids }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn handle(&mut self, input: &Input) {
        match input {
            Input::Heartbeat(Heartbeat { peer, position, .. }) => {
                self.at.insert(*peer, *position);
                self.disconnected.retain(|disconnected| disconnected != peer);
            }
            Input::Disconnected { peer, .. } => {
                self.assigned.remove(peer);
                if !self.has(Fault::KeepsDisconnected) && self.at.remove(peer).is_some() {
                    self.disconnected.push(*peer);
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
        if !self.has(Fault::SkipsSplit) {
            self.split();
        }
        let newcomers: Vec<Address> =
            self.at.keys().copied().filter(|peer| !before.contains_key(peer)).collect();
        for peer in newcomers {
            self.open(vec![peer]);
        }
        if !self.has(Fault::SkipsMerge) {
            self.merge();
        }
        self.islands.retain(|(_, members)| !members.is_empty());
        self.emit(&ids, &before, outputs);
    }

    pub(crate) fn partition(&self) -> Partition {
        let node = node();
        let member = |peer: &Address| (*peer, self.at[peer]);
        let island = |(id, members): &(IslandId, Vec<Address>)| IslandMembers {
            id: id.clone(),
            transport: Some(node.clone()),
            members: members.iter().map(member).collect(),
        };
        let mut partition = Partition { islands: self.islands.iter().map(island).collect() };
        if self.has(Fault::InTwoIslands)
            && let [first, .., last] = partition.islands.as_mut_slice()
        {
            last.members.push(first.members[0]);
        }
        partition
    }

    fn members(&self) -> HashMap<Address, IslandId> {
        let islands = self.islands.iter();
        islands.flat_map(|(id, members)| members.iter().map(|peer| (*peer, id.clone()))).collect()
    }

    fn open(&mut self, members: Vec<Address>) {
        let reused = if self.has(Fault::ReusesId) { self.closed_ids.pop() } else { None };
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
                    let near = |peer: &Address| distance_squared(from, self.at[peer]) <= leave_m * leave_m;
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
        let peers: Vec<(Address, Position)> = self.at.iter().map(|(peer, at)| (*peer, *at)).collect();
        let mut island_of: HashMap<Address, usize> = HashMap::new();
        for (index, (_, members)) in self.islands.iter().enumerate() {
            island_of.extend(members.iter().map(|peer| (*peer, index)));
        }
        let mut near = Vec::new();
        for (index, &(one, at)) in peers.iter().enumerate() {
            let others =
                peers[index + 1..].iter().filter(|other| distance_squared(at, other.1) <= join_m * join_m);
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
            let before = island_of.clone();
            for &(one, other) in &near {
                let (one, other) = (island_of[&one], island_of[&other]);
                let size = |island: usize| self.islands[island].1.len();
                if one != other && size(one) + size(other) <= limit {
                    let larger =
                        (size(one), std::cmp::Reverse(one)) > (size(other), std::cmp::Reverse(other));
                    let one_survives = larger != self.has(Fault::KeepsSmallerIsland);
                    let (survivor, ended) = if one_survives { (one, other) } else { (other, one) };
                    let moved = std::mem::take(&mut self.islands[ended].1);
                    island_of.extend(moved.iter().map(|peer| (*peer, survivor)));
                    self.islands[survivor].1.extend(moved);
                }
            }
            if island_of == before {
                return;
            }
        }
    }

    fn emit(&mut self, ids: &[IslandId], before: &HashMap<Address, IslandId>, outputs: &mut Vec<Output>) {
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
            self.emit_assignment(*peer, island, outputs);
        }
        outputs.extend(ended.iter().map(|island| Output::Closed { island: island.clone() }));
        self.closed_ids.extend(ended);
    }

    fn emit_assignment(&mut self, peer: Address, island: &IslandId, outputs: &mut Vec<Output>) {
        let former = self.assigned.insert(peer, island.clone());
        if former.as_ref() == Some(island) || (former.is_some() && self.has(Fault::OmitsAssignment)) {
            return;
        }
        let from = if self.has(Fault::NamesWrongFormer) { former.map(|_| island.clone()) } else { former };
        // The checker does not look at the members of an assignment.
        let (id, node_url, members) = (island.clone(), Arc::default(), Vec::new());
        let media = MediaGrants::default();
        let island = Arc::new(AssignedIsland { id, node: node(), node_url, rule: None, media, members });
        let assigned = Output::Assigned { peer, session: None, island, from };
        if self.has(Fault::AssignsTwice) {
            outputs.push(assigned.clone());
        }
        outputs.push(assigned);
    }
}

fn node() -> NodeName {
    "node".parse().expect("a name")
}
