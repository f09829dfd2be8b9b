use std::{collections::BTreeSet, time::SystemTime};

use identity::SignedFetch;

/// Signed requests that were taken, for as long as the same request would be fresh.
#[derive(Debug)]
pub(crate) struct Replays {
    max: usize,
    /// Of requests that were signed before this nobody knows whether they were taken.
    since: SystemTime,
    /// Until when, and what tells the request from others. The time follows from the request, so
    /// that one request is always one entry.
    seen: BTreeSet<(SystemTime, [u8; 32])>,
}

/// What matters here of a signed request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    fingerprint: [u8; 32],
    signed_at: SystemTime,
    fresh_until: SystemTime,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It was taken before.
    Again,
    /// It is not fresh any more: it may have been taken, and forgotten since.
    Stale,
    /// It was signed before anything was remembered.
    Before,
    /// So many are remembered that this one could not be.
    Full,
}

impl Replays {
    /// Remembers at most `max` requests, beginning now.
    pub(crate) fn new(max: usize, now: SystemTime) -> Self {
        Self { max, since: now, seen: BTreeSet::new() }
    }

    /// Whether a request could be taken.
    pub(crate) fn check(&mut self, request: Request, now: SystemTime) -> Result<(), NotTaken> {
        if request.fresh_until < now {
            return Err(NotTaken::Stale);
        }
        if request.signed_at < self.since {
            return Err(NotTaken::Before);
        }
        if self.seen.contains(&request.key()) {
            return Err(NotTaken::Again);
        }
        if self.is_full(now) { Err(NotTaken::Full) } else { Ok(()) }
    }

    /// Takes a request, once.
    pub(crate) fn take(&mut self, request: Request, now: SystemTime) -> Result<(), NotTaken> {
        self.check(request, now)?;
        self.seen.insert(request.key());
        Ok(())
    }

    /// Whether no request could be taken. Those that are stale make place.
    pub(crate) fn is_full(&mut self, now: SystemTime) -> bool {
        while self.seen.first().is_some_and(|&(until, _)| until < now) {
            self.seen.pop_first();
        }
        self.seen.len() >= self.max
    }
}

impl Request {
    fn key(&self) -> (SystemTime, [u8; 32]) {
        (self.fresh_until, self.fingerprint)
    }
}

impl From<&SignedFetch> for Request {
    fn from(fetch: &SignedFetch) -> Self {
        let SignedFetch { signed_at, fresh_until, .. } = *fetch;
        Self { fingerprint: fetch.fingerprint(), signed_at, fresh_until }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A request that is fresh for nine seconds.
    fn request(fingerprint: u8, signed_at: u64) -> Request {
        Request { fingerprint: [fingerprint; 32], signed_at: at(signed_at), fresh_until: at(signed_at + 9) }
    }

    #[test]
    fn each_request_is_taken_once_while_it_is_fresh() {
        let mut replays = Replays::new(2, at(0));
        assert_eq!(replays.take(request(1, 0), at(0)), Ok(()));
        assert_eq!(replays.take(request(1, 0), at(9)), Err(NotTaken::Again));
        assert_eq!(replays.check(request(2, 0), at(0)), Ok(()));
        assert_eq!(replays.take(request(2, 0), at(0)), Ok(()), "it was only looked at");
        assert_eq!(replays.take(request(3, 11), at(0)), Err(NotTaken::Full));
        assert_eq!(replays.take(request(1, 0), at(0)), Err(NotTaken::Again), "full or not");
        assert!(replays.is_full(at(9)));
        // Who is stale makes place.
        assert_eq!(replays.take(request(3, 11), at(10)), Ok(()));
        assert_eq!(replays.seen.len(), 1);
    }

    #[test]
    fn what_became_stale_on_its_way_is_not_taken_again() {
        let mut replays = Replays::new(2, at(0));
        assert_eq!(replays.take(request(1, 0), at(9)), Ok(()));
        assert_eq!(replays.take(request(1, 0), at(10)), Err(NotTaken::Stale));
    }

    #[test]
    fn what_was_signed_before_anything_was_remembered_is_not_taken() {
        let mut replays = Replays::new(2, at(5));
        assert_eq!(replays.take(request(1, 4), at(6)), Err(NotTaken::Before));
        assert_eq!(replays.take(request(1, 5), at(6)), Ok(()));
    }
}
