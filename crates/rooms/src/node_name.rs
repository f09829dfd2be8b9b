//! The name of a node, which no other process may have: people are sent to a node by its name.

use std::{future, time::Duration};

use bus::{Bus, Subscription};
use protocol::{Message as _, NodeName, Subject, atoll_bus::TransportAnnouncement};
use tokio::time::{Instant, timeout_at};

/// What a node hears under its own name, on a bus that it shares.
pub(crate) struct NodeNameGuard {
    node: NodeName,
    /// Where the node is. Whoever is there, too, stands behind the same address, or was there before.
    public_url: String,
    announcements: Subscription,
}

/// A room node has the name of another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another process announces the room node {node}, at {url:?}: give each process a rooms.node of its own"
)]
pub struct NameTaken {
    /// The name.
    pub node: NodeName,
    /// Where the other one is, as it says; no more of that than tells it from others.
    pub url: String,
}

/// What another process says.
struct ForeignAnnouncement {
    url: String,
    draining: bool,
}

/// Announcements under one name that may wait; above it the newest is dropped. They are repeated.
const QUEUE_CAPACITY: usize = 64;
/// For how long nobody may be heard before a name counts as free: longer than the interval of
/// announcements.
const QUIET_PERIOD: Duration = Duration::from_millis(1_500);
/// Others that were heard once; of more no note is taken, so that listening ends.
const MAX_FOREIGN_URLS: usize = 8;
/// How often it is logged that somebody else has the name.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How much of another's URL is logged.
const MAX_URL_CHARS: usize = 256;

impl NodeNameGuard {
    /// Listens from now on.
    pub(crate) fn new(bus: &Bus, node: NodeName, public_url: String) -> Self {
        let subject = Subject::TransportAnnounce(node.clone()).to_string();
        let announcements = bus.subscribe("rooms_names", &[&subject], QUEUE_CAPACITY);
        Self { node, public_url, announcements }
    }

    /// Waits until it is clear whether the name is free. One announcement alone may be the last word
    /// of a process that has ended; whoever drains is about to.
    pub(crate) async fn ensure_unique(&mut self) -> Result<(), NameTaken> {
        let mut heard = Vec::new();
        let mut until = Instant::now() + QUIET_PERIOD;
        while let Ok(Some(other)) = timeout_at(until, self.next_foreign()).await {
            let known = heard.iter().position(|url| *url == other.url);
            match (known, other.draining) {
                (Some(_), false) => return Err(NameTaken { node: self.node.clone(), url: other.url }),
                (Some(index), true) => drop(heard.swap_remove(index)),
                (None, false) if heard.len() < MAX_FOREIGN_URLS => {
                    heard.push(other.url);
                    until = Instant::now() + QUIET_PERIOD;
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Says and counts when another process has the name, too: it began at the same moment, or was
    /// out of reach. Does not return.
    pub(crate) async fn watch_conflicts(&mut self) {
        let mut logged: Option<Instant> = None;
        while let Some(ForeignAnnouncement { url, draining }) = self.next_foreign().await {
            metrics::counter!("atoll_rooms_name_taken_total").increment(1);
            if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                logged = Some(Instant::now());
                tracing::error!(
                    node = %self.node,
                    url,
                    draining,
                    "another process announces a room node of this name: people are sent to either of them; \
                     give each process a rooms.node of its own"
                );
            }
        }
        future::pending().await
    }

    /// What another process says next under this name; `None` when the bus is gone.
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
