//! The settings of the stats role.

use std::time::Duration;

use protocol::PositionPrecision;

use crate::access::Access;

/// The settings of the role.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A peer without a heartbeat for this long is removed.
    pub peer_timeout: Duration,
    /// All islands are removed if no report and no other message about islands arrives for this long.
    pub report_timeout: Duration,
    /// Access to the endpoints that name peers.
    pub access: Access,
    /// The precision of positions in every response and every event.
    pub positions: PositionPrecision,
    /// The realm's name in `/hot-scenes`.
    pub realm_name: String,
    /// The realm's address in `/hot-scenes`.
    pub public_url: String,
    /// The capacity of the realm in peers, in `/hot-scenes`.
    pub max_users: usize,
    /// The `maxPeers` of an island until the director has reported it.
    pub max_island_size: u32,
    /// The content service, which knows the names of scenes: `http://…` or `https://…`. `None`: scenes have
    /// no names.
    pub content_url: Option<String>,
    /// The timeout of a request to the content service.
    pub content_timeout: Duration,
    /// The time for which the scene of a parcel is not requested again.
    pub scene_ttl: Duration,
    /// The number of parcels in the cache of scenes, at least 1. The parcels that have been unoccupied for
    /// longest are removed first.
    pub max_scene_parcels: usize,
    /// The number of events by which a reader of the feed may be behind without missing any.
    pub feed_events: usize,
    /// The limit of readers of the feed at a time.
    pub max_feed_readers: usize,
    /// The limit of readers of the feed from one client network at a time.
    pub max_feed_readers_per_network: usize,
    /// The interval in which a reader of the feed receives a comment while there are no events.
    pub feed_keep_alive: Duration,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings of the role for tests.
    pub(crate) fn settings() -> Settings {
        Settings {
            peer_timeout: Duration::from_secs(20),
            report_timeout: Duration::from_secs(10),
            access: Access::Public,
            positions: PositionPrecision::Exact,
            realm_name: String::new(),
            public_url: String::new(),
            max_users: 1,
            max_island_size: 1,
            content_url: None,
            content_timeout: Duration::from_secs(2),
            scene_ttl: Duration::from_secs(300),
            max_scene_parcels: 1,
            feed_events: 1,
            max_feed_readers: 1,
            max_feed_readers_per_network: 1,
            feed_keep_alive: Duration::from_secs(15),
        }
    }
}
