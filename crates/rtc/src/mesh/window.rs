//! The numbers of received packets, by which duplicates are recognised.

/// The packets behind the newest that a window distinguishes. An older one counts as a duplicate.
pub(crate) const WINDOW: u64 = 1024;

const SLOTS: usize = (WINDOW / 64) as usize;

/// A sliding window over the sequence numbers of one source on one channel, as in RFC 4303, section 3.4.3.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// The highest number so far. 0: none.
    highest: u64,
    /// One bit for each number of the window, at its remainder by [`WINDOW`].
    seen: [u64; SLOTS],
}

impl Window {
    /// Whether this number arrives for the first time. It is recorded then.
    pub(crate) fn is_first(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            self.advance(sequence);
        } else if self.highest - sequence >= WINDOW {
            return false;
        }
        let (slot, bit) = position(sequence);
        let is_first = self.seen[slot] & bit == 0;
        self.seen[slot] |= bit;
        is_first
    }

    /// Moves the window forward, and clears the bits of the numbers that enter it.
    fn advance(&mut self, sequence: u64) {
        if sequence - self.highest >= WINDOW {
            self.seen = [0; SLOTS];
        } else {
            for entering in self.highest + 1..=sequence {
                let (slot, bit) = position(entering);
                self.seen[slot] &= !bit;
            }
        }
        self.highest = sequence;
    }
}

fn position(sequence: u64) -> (usize, u64) {
    let index = sequence % WINDOW;
    ((index / 64) as usize, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_first_once_in_any_order() {
        let mut window = Window::default();
        for sequence in [5, 3, 4, 9, 1_000, 7] {
            assert!(window.is_first(sequence), "{sequence}");
            assert!(!window.is_first(sequence), "{sequence} again");
        }
        assert!(window.is_first(6), "between others");
    }

    #[test]
    fn number_behind_the_window_is_a_duplicate() {
        let mut window = Window::default();
        assert!(window.is_first(5_000));
        assert!(!window.is_first(5_000 - WINDOW));
        assert!(window.is_first(5_001 - WINDOW));
    }

    #[test]
    fn advance_clears_only_the_entering_numbers() {
        let mut window = Window::default();
        assert!((1..=WINDOW).all(|sequence| window.is_first(sequence)));
        // Shares the bit of number 10, which leaves the window.
        assert!(window.is_first(WINDOW + 10));
        assert!(!window.is_first(11));
        assert!(window.is_first(WINDOW + 9), "skipped, and not received before");
        assert!(window.is_first(u64::MAX) && !window.is_first(u64::MAX));
    }
}
