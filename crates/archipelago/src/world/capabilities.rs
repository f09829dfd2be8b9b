//! Capabilities: the transports that a client can join, as a bit set and by name.

use std::sync::Arc;

/// A bit set of the transports that a client can join, or that several clients can all join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Capabilities(pub(crate) u8);

/// The greatest number of distinct capabilities.
pub(crate) const MAX_CAPABILITIES: usize = 8;

impl Capabilities {
    pub(crate) const ALL: Self = Self(u8::MAX);

    pub(crate) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it has all capabilities of `others`.
    pub(crate) fn contains_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The indexes of the bits that are not set.
    pub(crate) fn missing_bits(self) -> impl Iterator<Item = usize> {
        let mut missing = !self.0;
        std::iter::from_fn(move || {
            let bit = missing.trailing_zeros() as usize;
            // Clears the lowest set bit; zero stays zero.
            missing &= missing.wrapping_sub(1);
            (bit < MAX_CAPABILITIES).then_some(bit)
        })
    }
}

/// The names of the capabilities that nodes require; the position of each is its bit in [`Capabilities`].
#[derive(Debug, Clone, Default)]
pub(crate) struct CapabilityNames(Vec<Arc<str>>);

impl CapabilityNames {
    /// The bit of a capability; a new name gets the next free bit, if there is one.
    pub(crate) fn find_or_add(&mut self, name: &Arc<str>) -> Option<Capabilities> {
        if self.find(name).is_none() && self.0.len() < MAX_CAPABILITIES {
            self.0.push(name.clone());
        }
        self.find(name)
    }

    fn find(&self, name: &str) -> Option<Capabilities> {
        let bit = self.0.iter().position(|known| **known == *name)?;
        Some(Capabilities(1 << bit))
    }

    /// The names of the known capabilities in a set.
    pub(crate) fn names(&self, capabilities: Capabilities) -> impl Iterator<Item = &str> {
        let names = self.0.iter().enumerate();
        names.filter(move |(bit, _)| capabilities.0 >> bit & 1 == 1).map(|(_, name)| &**name)
    }

    /// The number of distinct capabilities.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The capability set of a client that can join these transports. Names that no node requires are
    /// ignored, and unassigned bits are set for all clients.
    pub(crate) fn set_of(&self, names: &[String]) -> Capabilities {
        let unknown = Capabilities::ALL.0.checked_shl(self.0.len() as u32).unwrap_or(0);
        let bits = names.iter().filter_map(|name| self.find(name)).map(|capability| capability.0);
        Capabilities(bits.fold(unknown, |bits, bit| bits | bit))
    }
}
