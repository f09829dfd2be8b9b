//! The messages that wait for a reconnect.

use std::{collections::VecDeque, time::Duration};

use super::publication::{DropReason, Publication};

/// How long messages that survive a disconnect are buffered while the connection is down.
const MAX_BUFFER_AGE: Duration = Duration::from_secs(60);
/// How many messages are buffered; when the buffer is full the newest is dropped and counted.
const MAX_BUFFERED: usize = 16_384;

/// The messages to send after the reconnect, in order.
#[derive(Default)]
pub(super) struct DisconnectBuffer(VecDeque<Publication>);

impl DisconnectBuffer {
    /// Buffers a message that survives a disconnect; drops any other.
    pub(super) fn add(&mut self, publication: Publication) {
        if !publication.survives_disconnect {
            DropReason::Stale.count();
        } else if self.0.len() < MAX_BUFFERED {
            self.0.push_back(publication);
        } else {
            DropReason::Expired.count();
        }
    }

    /// Takes all messages, without those that were buffered for too long.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Publication> + use<> {
        std::mem::take(&mut self.0).into_iter().filter(|publication| {
            let fresh = publication.queued_at.elapsed() <= MAX_BUFFER_AGE;
            if !fresh {
                DropReason::Expired.count();
            }
            fresh
        })
    }

    /// The number of buffered messages.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
