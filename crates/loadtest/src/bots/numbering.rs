//! The numbers of the position packets of a bot.
//!
//! Packets are numbered from 1 on. One of so many is reliable, and the others are lossy. Both kinds have numbers of
//! their own, without gaps, which receivers compute from the number in the packet: LiveKit keeps the order of reliable
//! messages, and of no others.

use std::{
    num::NonZeroU32,
    ops::{Index, IndexMut},
};

use serde::Serialize;

/// How a packet is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Delivery {
    Reliable,
    Lossy,
}

/// A value for each kind of packet. The field names are JSON keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PerDelivery<T> {
    pub(crate) reliable: T,
    pub(crate) lossy: T,
}

/// One of so many packets is reliable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbering {
    pub(crate) reliable_every: NonZeroU32,
}

impl Delivery {
    pub(crate) const ALL: [Self; 2] = [Self::Reliable, Self::Lossy];
}

impl Numbering {
    /// The kind of the packet with this number, and its number among those of its kind, from 1 on.
    pub(crate) fn of(self, index: u32) -> (Delivery, u32) {
        let reliable = index / self.reliable_every;
        match index.is_multiple_of(self.reliable_every.get()) {
            true => (Delivery::Reliable, reliable),
            false => (Delivery::Lossy, index - reliable),
        }
    }
}

impl<T> Index<Delivery> for PerDelivery<T> {
    type Output = T;

    fn index(&self, delivery: Delivery) -> &T {
        match delivery {
            Delivery::Reliable => &self.reliable,
            Delivery::Lossy => &self.lossy,
        }
    }
}

impl<T> IndexMut<Delivery> for PerDelivery<T> {
    fn index_mut(&mut self, delivery: Delivery) -> &mut T {
        match delivery {
            Delivery::Reliable => &mut self.reliable,
            Delivery::Lossy => &mut self.lossy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_numbered_without_gaps() {
        for every in [1, 2, 7, 10] {
            let numbering = Numbering { reliable_every: NonZeroU32::new(every).unwrap() };
            let mut last = PerDelivery::default();
            for index in 1..=1_000 {
                let (delivery, number) = numbering.of(index);
                assert_eq!(number, last[delivery] + 1, "{index} of {every}");
                last[delivery] = number;
            }
            assert_eq!(last.reliable, 1_000 / every);
        }
    }
}
