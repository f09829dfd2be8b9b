//! A message on its way to the connection, and the reasons for which it is dropped.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{envelope::Headers, metrics};

/// The age at which a queued message is dropped as stale, if its publisher repeats it anyway.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// A message to publish.
pub(super) struct Publication {
    pub(super) subject: String,
    pub(super) survives_disconnect: bool,
    /// `None` if the subject scheme has no headers for the subject.
    pub(super) headers: Option<Headers>,
    pub(super) payload: Bytes,
    pub(super) queued_at: Instant,
}

impl Publication {
    /// Whether it would arrive late, and its publisher repeats it anyway.
    pub(super) fn is_stale(&self) -> bool {
        !self.survives_disconnect && self.queued_at.elapsed() > STALE_AFTER
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum DropReason {
    /// The publish queue is full.
    Full,
    /// It would arrive late, and its publisher repeats it anyway.
    Stale,
    /// It was buffered for the longest time, or the buffer is full.
    Expired,
    /// It is too large even for the largest number of parts.
    TooLarge,
    /// The client library refuses its subject.
    Refused,
}

impl DropReason {
    /// Counts a message that is dropped for this reason.
    pub(super) fn count(self) {
        let reason = match self {
            Self::Full => "full",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
        };
        metrics::unsent(reason).increment(1);
    }
}
