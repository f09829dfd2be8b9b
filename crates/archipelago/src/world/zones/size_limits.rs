//! The size limits of islands, by zone and by the capabilities that all members have.

use crate::{
    ids::{CapabilitySetIndex, ZoneIndex},
    index_vec::IndexVec,
    world::capabilities::Capabilities,
};

/// The limits of all zones for all known sets of capabilities.
#[derive(Debug, Clone)]
pub(super) struct SizeLimits {
    /// The sets of capabilities with computed limits, and by capabilities the index of each set.
    sets: IndexVec<CapabilitySetIndex, Capabilities>,
    set_index: Box<[Option<CapabilitySetIndex>; 256]>,
    by_zone: IndexVec<ZoneIndex, IndexVec<CapabilitySetIndex, u32>>,
    /// The size limit of every zone and set of capabilities, if it is the same.
    uniform: Option<u32>,
}

impl SizeLimits {
    pub(super) fn new() -> Self {
        Self {
            sets: IndexVec::default(),
            set_index: Box::new([None; 256]),
            by_zone: IndexVec::default(),
            uniform: None,
        }
    }

    /// The size limit of every island, if it is the same everywhere.
    pub(super) fn uniform(&self) -> Option<u32> {
        self.uniform
    }

    /// The limit of an island with members in a zone that all have these capabilities.
    pub(super) fn limit(&self, zone: ZoneIndex, capabilities: Capabilities) -> u32 {
        let set = self.set_index[usize::from(capabilities.0)].expect("intersections of sets are added too");
        self.by_zone[zone][set]
    }

    /// All size limits, by zone and capabilities.
    #[cfg(feature = "sim")]
    pub(super) fn all(&self) -> impl Iterator<Item = (ZoneIndex, Capabilities, u32)> {
        let zones = self.by_zone.enumerate();
        zones.flat_map(|(zone, limits)| {
            self.sets.iter().zip(limits.iter()).map(move |(&set, &limit)| (zone, set, limit))
        })
    }

    /// Removes all zones.
    pub(super) fn clear_zones(&mut self) {
        self.by_zone.clear();
    }

    /// Adds the next zone, with the same limit for all sets.
    pub(super) fn add_zone(&mut self, limit: u32) {
        self.by_zone.push(vec![limit; self.sets.len()].into());
    }

    /// Adds a set of capabilities to those with computed limits, with a limit for each zone. Returns
    /// whether it was new.
    pub(super) fn add_capability_set(
        &mut self,
        capabilities: Capabilities,
        limit: impl Fn(ZoneIndex) -> u32,
    ) -> bool {
        if self.set_index[usize::from(capabilities.0)].is_some() {
            return false;
        }
        // The intersections with the existing sets are added too: an island has the intersection of the
        // capabilities of its members.
        let mut new = vec![capabilities];
        while let Some(capabilities) = new.pop() {
            if self.set_index[usize::from(capabilities.0)].is_some() {
                continue;
            }
            new.extend(self.sets.iter().map(|known| known.intersection(capabilities)));
            self.set_index[usize::from(capabilities.0)] = Some(self.sets.push(capabilities));
            for zone in self.by_zone.indexes() {
                self.by_zone[zone].push(limit(zone));
            }
        }
        true
    }

    /// Recomputes the limits of all zones. `largest` returns the largest island of a zone, or `None` if
    /// no node is on offer. Returns whether any limit changed.
    pub(super) fn recompute(&mut self, largest: impl Fn(ZoneIndex, Capabilities) -> Option<u32>) -> bool {
        let mut changed = false;
        for zone in self.by_zone.indexes() {
            changed |= self.compute_zone(zone, &largest);
        }
        let mut limits = self.by_zone.iter().flat_map(IndexVec::iter);
        let first = limits.next().copied();
        self.uniform = first.filter(|first| limits.all(|limit| limit == first));
        changed
    }

    /// Computes the limits of a new zone.
    pub(super) fn compute_new(
        &mut self,
        zone: ZoneIndex,
        largest: impl Fn(ZoneIndex, Capabilities) -> Option<u32>,
    ) {
        self.compute_zone(zone, &largest);
        let mut limits = self.by_zone[zone].iter();
        self.uniform = self.uniform.filter(|only| limits.all(|limit| limit == only));
    }

    fn compute_zone(
        &mut self,
        zone: ZoneIndex,
        largest: &impl Fn(ZoneIndex, Capabilities) -> Option<u32>,
    ) -> bool {
        let mut changed = false;
        for (&set, limit) in self.sets.iter().zip(self.by_zone[zone].iter_mut()) {
            // While no node is on offer the limit stays, so that a node that comes online again
            // finds its islands unsplit.
            let after = largest(zone, set).unwrap_or(*limit);
            changed |= std::mem::replace(limit, after) != after;
        }
        changed
    }

    /// Bytes held by the limits of zones.
    pub(super) fn bytes(&self) -> usize {
        self.by_zone.iter().map(IndexVec::bytes).sum::<usize>()
    }
}
