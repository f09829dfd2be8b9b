use std::{collections::BTreeSet, time::SystemTime};

/// Signed requests that were taken, for as long as the same request would be fresh.
#[derive(Debug)]
pub(crate) struct Replays {
    max: usize,
    /// Until when, and what tells the request from others. The time follows from the request, so
    /// that one request is always one entry.
    seen: BTreeSet<(SystemTime, [u8; 32])>,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It was taken before.
    Again,
    /// So many are remembered that this one could not be.
    Full,
}

impl Replays {
    /// Remembers at most `max` requests.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, seen: BTreeSet::new() }
    }

    /// Takes a request that is fresh until then, once.
    pub(crate) fn take(
        &mut self,
        request: [u8; 32],
        fresh_until: SystemTime,
        now: SystemTime,
    ) -> Result<(), NotTaken> {
        while self.seen.first().is_some_and(|&(until, _)| until < now) {
            self.seen.pop_first();
        }
        if self.seen.contains(&(fresh_until, request)) {
            return Err(NotTaken::Again);
        }
        if self.seen.len() >= self.max {
            return Err(NotTaken::Full);
        }
        self.seen.insert((fresh_until, request));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_request_is_taken_once_while_it_is_fresh() {
        let now = SystemTime::UNIX_EPOCH;
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut replays = Replays::new(2);
        assert_eq!(replays.take([1; 32], after(9), now), Ok(()));
        assert_eq!(replays.take([1; 32], after(9), after(9)), Err(NotTaken::Again));
        assert_eq!(replays.take([2; 32], after(9), now), Ok(()));
        assert_eq!(replays.take([3; 32], after(20), now), Err(NotTaken::Full));
        assert_eq!(replays.take([1; 32], after(9), now), Err(NotTaken::Again), "full or not");
        // Who is stale makes place; whoever brings it again is too late for other reasons.
        assert_eq!(replays.take([3; 32], after(20), after(10)), Ok(()));
        assert_eq!(replays.seen.len(), 1);
    }
}
