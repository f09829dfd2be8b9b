//! A set of numbers, stored as ranges.

/// A set of numbers that come mostly in order and without gaps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges(
    /// The first and the last number of each range, in ascending order. Ranges neither touch nor
    /// overlap.
    Vec<(u32, u32)>,
);

impl Ranges {
    /// Inserts a number. Returns whether it was absent.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let at = self.0.partition_point(|&(_, last)| last < number);
        let next = self.0.get(at).map(|&(first, _)| first);
        if next.is_some_and(|first| first <= number) {
            return false;
        }
        let after_one = at > 0 && self.0[at - 1].1 + 1 == number;
        let before_one = next.is_some_and(|first| first - 1 == number);
        match (after_one, before_one) {
            (true, true) => self.0[at - 1].1 = self.0.remove(at).1,
            (true, false) => self.0[at - 1].1 = number,
            (false, true) => self.0[at].0 = number,
            (false, false) => self.0.insert(at, (number, number)),
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers from `first` to `last`, both included, are in the set.
    pub(crate) fn count_within(&self, first: u32, last: u32) -> u64 {
        let from = self.0.partition_point(|&(_, end)| end < first);
        let runs = self.0[from..].iter().take_while(|&&(begin, _)| begin <= last);
        runs.map(|&(begin, end)| u64::from(end.min(last) - begin.max(first)) + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn ranges_agree_with_a_btree_set() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..60 {
                let number = rng.random_range(0..64);
                assert_eq!(ranges.insert(number), set.insert(number));
                let first = rng.random_range(0..64);
                let last = rng.random_range(first..64);
                assert_eq!(ranges.count_within(first, last) as usize, set.range(first..=last).count());
            }
            assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
        }
    }
}
