//! The pseudo-random number generator of simulations.

/// SplitMix64, a small pseudo-random number generator. It is not taken from a library, so that a seed
/// gives the same numbers in every version.
#[derive(Debug, Clone)]
pub struct Rng(u64);

/// The finalizer of SplitMix64. Inputs that differ in one bit give outputs that differ in about half of
/// their bits.
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x9e37_79b9_7f4a_7c15))
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from `low` to below `high`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number from 0 to below `count`; 0 for a count of 0.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next_u64()) * count as u128) >> 64) as usize
    }

    /// `true` with this probability, 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A whole number from `low` to `high`, both included, with a logarithmic distribution: each doubling is
    /// equally likely.
    pub fn log_range(&mut self, low: u32, high: u32) -> u32 {
        let exponent = self.range(f64::from(low).ln(), f64::from(high + 1).ln());
        (exponent.exp() as u32).clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_gives_a_fixed_sequence() {
        let mut rng = Rng::new(1);
        assert_eq!([rng.next_u64(), rng.next_u64()], [6_755_974_106_381_971_767, 13_665_441_387_248_026_780]);
    }

    #[test]
    fn random_numbers_stay_in_range() {
        let mut rng = Rng::new(7);
        for _ in 0..10_000 {
            assert!((2.0..3.0).contains(&rng.range(2.0, 3.0)));
            assert!(rng.below(3) < 3);
            assert!((2..=100).contains(&rng.log_range(2, 100)));
        }
        assert_eq!(rng.below(0), 0);
    }
}
