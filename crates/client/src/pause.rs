use std::time::Duration;

use rand::RngExt;

/// Pauses between tries: each twice as long as the one before, up to a bound, and of each a random
/// half to whole, so that a crowd that lost its server does not come back all at once.
#[derive(Debug, Clone)]
pub(crate) struct Pause {
    next: Duration,
    longest: Duration,
}

const FIRST: Duration = Duration::from_millis(250);

impl Pause {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { next: FIRST.min(longest), longest }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// The last try went well.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew() {
        let mut pause = Pause::new(Duration::from_secs(1));
        for full in [250, 500, 1_000, 1_000].map(Duration::from_millis) {
            assert!((full / 2..=full).contains(&pause.next()));
        }
        pause.reset();
        assert!(pause.next() <= FIRST);
    }
}
