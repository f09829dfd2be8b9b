//! The replay cache of signed logins: each signed request is accepted once.

use std::{collections::BTreeSet, time::SystemTime};

use identity::SignedFetch;

/// The signed requests that were accepted, each until it expires.
#[derive(Debug)]
pub(crate) struct ReplayCache {
    capacity: usize,
    /// Time at which the cache started. Requests signed before are rejected, because an earlier process may
    /// have accepted them.
    started_at: SystemTime,
    /// Expiry and fingerprint of each accepted request. The expiry follows from the request, so that one
    /// request is always the same entry.
    accepted: BTreeSet<(SystemTime, [u8; 32])>,
}

/// The properties of a signed request that the cache needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedRequest {
    fingerprint: [u8; 32],
    signed_at: SystemTime,
    fresh_until: SystemTime,
}

/// The reason for which a request is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayError {
    /// It was accepted before.
    AlreadyUsed,
    /// It has expired: it may have been accepted, and its entry removed since.
    Expired,
    /// It was signed before the cache started.
    SignedBeforeStart,
    /// The cache is full, so that the request could not be remembered.
    Full,
}

impl ReplayCache {
    /// A cache of at most `capacity` requests that starts at `now`.
    pub(crate) fn new(capacity: usize, now: SystemTime) -> Self {
        Self { capacity, started_at: now, accepted: BTreeSet::new() }
    }

    /// Checks whether a request would be accepted, without accepting it.
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

    /// Accepts a request once.
    pub(crate) fn accept(&mut self, request: SignedRequest, now: SystemTime) -> Result<(), ReplayError> {
        self.check(request, now)?;
        self.accepted.insert(request.key());
        Ok(())
    }

    /// Whether the cache is full after the removal of expired entries, so that it accepts no request.
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

    /// A request that expires nine seconds after it was signed.
    fn request(fingerprint: u8, signed_at: u64) -> SignedRequest {
        SignedRequest {
            fingerprint: [fingerprint; 32],
            signed_at: at(signed_at),
            fresh_until: at(signed_at + 9),
        }
    }

    #[test]
    fn request_is_accepted_once_while_fresh() {
        let mut cache = ReplayCache::new(2, at(0));
        assert_eq!(cache.accept(request(1, 0), at(0)), Ok(()));
        assert_eq!(cache.accept(request(1, 0), at(9)), Err(ReplayError::AlreadyUsed));
        assert_eq!(cache.check(request(2, 0), at(0)), Ok(()));
        assert_eq!(cache.accept(request(2, 0), at(0)), Ok(()), "it was only checked before");
        assert_eq!(cache.accept(request(3, 11), at(0)), Err(ReplayError::Full));
        assert_eq!(
            cache.accept(request(1, 0), at(0)),
            Err(ReplayError::AlreadyUsed),
            "whether or not the cache is full"
        );
        assert!(cache.is_full(at(9)));
        // Expired entries are removed first.
        assert_eq!(cache.accept(request(3, 11), at(10)), Ok(()));
        assert_eq!(cache.accepted.len(), 1);
    }

    #[test]
    fn request_that_expires_after_use_stays_rejected() {
        let mut cache = ReplayCache::new(2, at(0));
        assert_eq!(cache.accept(request(1, 0), at(9)), Ok(()));
        assert_eq!(cache.accept(request(1, 0), at(10)), Err(ReplayError::Expired));
    }

    #[test]
    fn request_signed_before_start_is_rejected() {
        let mut cache = ReplayCache::new(2, at(5));
        assert_eq!(cache.accept(request(1, 4), at(6)), Err(ReplayError::SignedBeforeStart));
        assert_eq!(cache.accept(request(1, 5), at(6)), Ok(()));
    }
}
