//! The expectations of a scenario: each compares the state or the outputs of the engine with what a line states.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Address, IslandId, MediaGrants};

use super::{
    error::{StepResult, ensure},
    names::{address, node_name, peer_name},
    run::Runner,
};
use crate::event::Output;

impl Runner {
    pub(super) fn expect(&mut self, groups: Vec<Vec<String>>) -> StepResult {
        let names: BTreeMap<Address, String> =
            groups.iter().flatten().map(|name| (address(name), name.clone())).collect();
        let name = |peer: Address| names.get(&peer).cloned().unwrap_or_else(|| peer_name(peer));
        let islands = self.engine()?.islands();
        let actual: BTreeSet<BTreeSet<String>> =
            islands.map(|island| island.members().map(|(peer, _)| name(peer)).collect()).collect();
        let expected: BTreeSet<BTreeSet<String>> =
            groups.into_iter().map(|group| group.into_iter().collect()).collect();
        ensure(actual == expected, || format!("the islands are {}", format_islands(&actual)))
    }

    pub(super) fn expect_in(&mut self, island: &str, peers: &[String]) -> StepResult {
        let expected = self.island_named(island)?;
        for peer in peers {
            let actual = self.island_of(peer)?;
            ensure(actual == expected, || format!("{peer} is in {actual}, and {island} is {expected}"))?;
        }
        Ok(())
    }

    pub(super) fn expect_on(&mut self, node: &str, peers: &[String]) -> StepResult {
        for peer in peers {
            let id = self.island_of(peer)?;
            let transport = self.engine()?.island(&id).and_then(|island| island.transport().cloned());
            let actual = transport.as_ref().map_or("nothing", |node| node.as_str());
            ensure(actual == node, || format!("{peer} is on {actual}"))?;
        }
        Ok(())
    }

    pub(super) fn expect_media(&mut self, expected: MediaGrants, peers: &[String]) -> StepResult {
        for peer in peers {
            let id = self.island_of(peer)?;
            let media = self.engine()?.island(&id).map(|island| island.media());
            ensure(media == Some(expected), || format!("{peer} has {media:?}"))?;
        }
        Ok(())
    }

    /// Checks that the grants of exactly these islands changed, and once each.
    pub(super) fn expect_media_changed(&self, islands: &[String]) -> StepResult {
        let mut expected = Vec::new();
        for island in islands {
            expected.push(self.island_named(island)?);
        }
        expected.sort_unstable();
        let mut actual: Vec<IslandId> = Vec::new();
        for output in &self.outputs {
            if let Output::MediaChanged { island, .. } = output {
                actual.push(island.clone());
            }
        }
        actual.sort_unstable();
        ensure(actual == expected, || format!("the media of {actual:?} changed"))
    }

    fn assignments_of(&self, peer: Address) -> impl Iterator<Item = (&IslandId, Option<&IslandId>)> {
        self.outputs.iter().filter_map(move |output| match output {
            Output::Assigned { peer: assigned, island, from, .. } if *assigned == peer => {
                Some((&island.id, from.as_ref()))
            }
            _ => None,
        })
    }

    pub(super) fn expect_assigned(&mut self, peer: &str, from: Option<&str>) -> StepResult {
        let island = self.island_of(peer)?;
        let assignments: Vec<_> = self.assignments_of(address(peer)).collect();
        let &[(actual, former)] = assignments.as_slice() else {
            return Err(format!("{peer} got {} assignments", assignments.len()));
        };
        ensure(*actual == island, || format!("{peer} was assigned to {actual} and is in {island}"))?;
        let expected = match from {
            None => return Ok(()),
            Some("nothing") => None,
            Some(name) => Some(self.island_named(name)?),
        };
        ensure(former == expected.as_ref(), || {
            format!("the assignment of {peer} names the former island {former:?}")
        })
    }

    pub(super) fn expect_assigned_only(&self, peers: &[String]) -> StepResult {
        let assigned = |output: &Output| match output {
            Output::Assigned { peer, .. } => Some(*peer),
            _ => None,
        };
        self.expect_peers(peers, assigned, "assigned")
    }

    pub(super) fn expect_taken_over(&self, peers: &[String]) -> StepResult {
        let taken_over = |output: &Output| match output {
            Output::TakenOver { peer, .. } => Some(*peer),
            _ => None,
        };
        self.expect_peers(peers, taken_over, "taken over")
    }

    /// Checks that `pick` selects exactly these peers from the outputs.
    fn expect_peers(
        &self,
        peers: &[String],
        pick: impl Fn(&Output) -> Option<Address>,
        label: &str,
    ) -> StepResult {
        let expected: BTreeSet<Address> = peers.iter().map(|peer| address(peer)).collect();
        let actual: BTreeSet<Address> = self.outputs.iter().filter_map(pick).collect();
        let names = || actual.iter().map(|&peer| peer_name(peer)).collect::<Vec<_>>();
        ensure(actual == expected, || format!("{label} were {:?}", names()))
    }

    pub(super) fn expect_opened(&self, expected: usize) -> StepResult {
        let actual = self.outputs.iter().filter(|output| matches!(output, Output::Opened { .. })).count();
        ensure(actual == expected, || format!("{actual} islands were opened"))
    }

    pub(super) fn expect_closed(&self, island: &str) -> StepResult {
        let output = Output::Closed { island: self.island_named(island)? };
        ensure(self.outputs.contains(&output), || format!("{island} was not closed"))
    }

    pub(super) fn expect_moved(&self, island: &str, from: &str, to: &str) -> StepResult {
        let (from, to) = (node_name(from)?, node_name(to)?);
        let expected = (&self.island_named(island)?, &from, &to);
        let mut moves = self.outputs.iter().filter_map(|output| match output {
            Output::Moved { island, from, to, .. } => Some((island, from, to)),
            _ => None,
        });
        ensure(moves.any(|moved| moved == expected), || format!("{:?}", self.outputs))
    }
}

fn format_islands(islands: &BTreeSet<BTreeSet<String>>) -> String {
    let format =
        |island: &BTreeSet<String>| format!("[{}]", island.iter().cloned().collect::<Vec<_>>().join(" "));
    islands.iter().map(format).collect::<Vec<_>>().join(" ")
}
