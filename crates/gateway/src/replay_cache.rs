use std::{collections::BTreeSet, time::SystemTime};

use identity::SignedFetch;

/// Signed requests that were taken, for as long as the same request would be fresh.
#[derive(Debug)]
pub(crate) struct ReplayCache {
    capacity: usize,
    /// Of requests that were signed before this nobody knows whether they were taken.
    started_at: SystemTime,
    /// Until when, and what tells the request from others. The time follows from the request, so
    /// that one request is always one entry.
    accepted: BTreeSet<(SystemTime, [u8; 32])>,
}

/// What matters here of a signed request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedRequest {
    fingerprint: [u8; 32],
    signed_at: SystemTime,
    fresh_until: SystemTime,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayError {
    /// It was taken before.
    AlreadyUsed,
    /// It is not fresh any more: it may have been taken, and forgotten since.
    Expired,
    /// It was signed before anything was remembered.
    SignedBeforeStart,
    /// So many are remembered that this one could not be.
    Full,
}

impl ReplayCache {
    /// Remembers at most `max` requests, beginning now.
    pub(crate) fn new(max: usize, now: SystemTime) -> Self {
        Self { capacity: max, started_at: now, accepted: BTreeSet::new() }
    }

    /// Whether a request could be taken.
    pub(crate) fn check(&mut self, request: SignedRequest, now: SystemTime) -> Result<(), ReplayError> {
        if request.fresh_until < now {
            return Err(ReplayError::Expired);
        }
        if request.signed_at < self.started_at {
            return Err(ReplayError::SignedBeforeStart);
        }
        if self.accepted.contains(&request.key()) {
            return Err(ReplayError::AlreadyUsed);
        }
        if self.is_full(now) { Err(ReplayError::Full) } else { Ok(()) }
    }

    /// Takes a request, once.
    pub(crate) fn accept(&mut self, request: SignedRequest, now: SystemTime) -> Result<(), ReplayError> {
        self.check(request, now)?;
        self.accepted.insert(request.key());
        Ok(())
    }

    /// Whether no request could be taken. Those that are stale make place.
    pub(crate) fn is_full(&mut self, now: SystemTime) -> bool {
        while self.accepted.first().is_some_and(|&(until, _)| until < now) {
            self.accepted.pop_first();
        }
        self.accepted.len() >= self.capacity
    }
}

impl SignedRequest {
    fn key(&self) -> (SystemTime, [u8; 32]) {
        (self.fresh_until, self.fingerprint)
    }
}

impl From<&SignedFetch> for SignedRequest {
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
    fn request(fingerprint: u8, signed_at: u64) -> SignedRequest {
        SignedRequest {
            fingerprint: [fingerprint; 32],
            signed_at: at(signed_at),
            fresh_until: at(signed_at + 9),
        }
    }

    #[test]
    fn request_is_accepted_once_while_fresh() {
        let mut replays = ReplayCache::new(2, at(0));
        assert_eq!(replays.accept(request(1, 0), at(0)), Ok(()));
        assert_eq!(replays.accept(request(1, 0), at(9)), Err(ReplayError::AlreadyUsed));
        assert_eq!(replays.check(request(2, 0), at(0)), Ok(()));
        assert_eq!(replays.accept(request(2, 0), at(0)), Ok(()), "it was only looked at");
        assert_eq!(replays.accept(request(3, 11), at(0)), Err(ReplayError::Full));
        assert_eq!(replays.accept(request(1, 0), at(0)), Err(ReplayError::AlreadyUsed), "full or not");
        assert!(replays.is_full(at(9)));
        // Who is stale makes place.
        assert_eq!(replays.accept(request(3, 11), at(10)), Ok(()));
        assert_eq!(replays.accepted.len(), 1);
    }

    #[test]
    fn request_that_expires_after_use_stays_rejected() {
        let mut replays = ReplayCache::new(2, at(0));
        assert_eq!(replays.accept(request(1, 0), at(9)), Ok(()));
        assert_eq!(replays.accept(request(1, 0), at(10)), Err(ReplayError::Expired));
    }

    #[test]
    fn request_signed_before_start_is_rejected() {
        let mut replays = ReplayCache::new(2, at(5));
        assert_eq!(replays.accept(request(1, 4), at(6)), Err(ReplayError::SignedBeforeStart));
        assert_eq!(replays.accept(request(1, 5), at(6)), Ok(()));
    }
}
