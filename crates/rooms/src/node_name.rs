//! Detection of two processes with the same node name. The director assigns islands to a node by its name, so
//! a name must be unique.

use std::{future, time::Duration};

use bus::{Bus, Subscription};
use protocol::{
    Message as _, NodeName, Subject, atoll_bus::TransportAnnouncement, timing::NODE_NAME_QUIET_PERIOD,
};
use tokio::time::{Instant, timeout_at};

use crate::metrics;

/// Receives the announcements under the node's own name, on a shared bus.
pub(crate) struct NodeNameGuard {
    node: NodeName,
    /// The URL of the node. An announcement with the same URL is no conflict: it comes from this node, from a
    /// process behind the same address, or from an earlier process there.
    public_url: String,
    announcements: Subscription,
}

/// Another process announces a room node of the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another process announces the room node {node}, at {url:?}: give each process a rooms.node of its own"
)]
pub struct NameTaken {
    /// The name of both nodes.
    pub node: NodeName,
    /// The public URL that the other node announces, cut to 256 characters.
    pub url: String,
}

/// An announcement of another process under this name.
struct ForeignAnnouncement {
    url: String,
    draining: bool,
}

/// Announcements under the name that may be queued. On overflow the newest is dropped; announcements are
/// repeated.
const QUEUE_CAPACITY: usize = 64;
/// Foreign URLs that are remembered after one announcement. Announcements with further URLs are ignored, so
/// that the check ends.
const MAX_FOREIGN_URLS: usize = 8;
/// The interval at which a conflict is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Characters of a foreign URL that are logged.
const MAX_URL_CHARS: usize = 256;

impl NodeNameGuard {
    /// Subscribes to the announcements under `node`.
    pub(crate) fn new(bus: &Bus, node: NodeName, public_url: String) -> Self {
        let subject = Subject::TransportAnnounce(node.clone()).to_string();
        let announcements = bus.subscribe("rooms_names", &[&subject], QUEUE_CAPACITY);
        Self { node, public_url, announcements }
    }

    /// Waits until the name is known to be free or taken.
    ///
    /// # Errors
    ///
    /// [`NameTaken`] when a foreign URL is announced twice without draining. A single announcement may be the
    /// last one of a process that has ended, and a draining process is about to end.
    pub(crate) async fn ensure_unique(&mut self) -> Result<(), NameTaken> {
        let mut seen = Vec::new();
        let mut until = Instant::now() + NODE_NAME_QUIET_PERIOD;
        while let Ok(Some(other)) = timeout_at(until, self.next_foreign()).await {
            let known = seen.iter().position(|url| *url == other.url);
            match (known, other.draining) {
                (Some(_), false) => return Err(NameTaken { node: self.node.clone(), url: other.url }),
                (Some(index), true) => drop(seen.swap_remove(index)),
                (None, false) if seen.len() < MAX_FOREIGN_URLS => {
                    seen.push(other.url);
                    until = Instant::now() + NODE_NAME_QUIET_PERIOD;
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Logs and counts conflicts that arise after the check: the other process started at the same moment, or
    /// was unreachable. Does not return.
    pub(crate) async fn watch_conflicts(&mut self) {
        let mut logged: Option<Instant> = None;
        while let Some(ForeignAnnouncement { url, draining }) = self.next_foreign().await {
            metrics::name_taken().increment(1);
            if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                logged = Some(Instant::now());
                tracing::error!(
                    node = %self.node,
                    url,
                    draining,
                    "another process announces a room node of this name: islands are assigned to either of them; \
                     give each process a rooms.node of its own"
                );
            }
        }
        future::pending().await
    }

    /// The next announcement of another process under this name; `None` when the bus is closed.
    async fn next_foreign(&mut self) -> Option<ForeignAnnouncement> {
        loop {
            let payload = self.announcements.next().await?.payload;
            let Ok(announcement) = TransportAnnouncement::decode(payload) else { continue };
            if announcement.public_url != self.public_url {
                let url = announcement.public_url.chars().take(MAX_URL_CHARS).collect();
                return Some(ForeignAnnouncement { url, draining: announcement.draining });
            }
        }
    }
}

#[cfg(test)]
mod tests;
