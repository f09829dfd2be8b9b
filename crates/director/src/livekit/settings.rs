//! The configuration of a LiveKit server.

use std::time::Duration;

use protocol::{IslandId, NodeName};
use serde_json::json;
use transports::livekit::{Keys, RoomOptions};

/// How clients and the director reach a LiveKit server, and how the director administers it.
#[derive(Debug, Clone)]
pub struct LiveKitSettings {
    /// The URL for clients: `ws://host:port` or `wss://host`.
    pub url: String,
    /// The URL of its API: `http://host:port` or `https://host`.
    pub api_url: String,
    /// The API key and secret that the server accepts.
    pub keys: Keys,
    /// The lifetime of a token.
    pub token_ttl: Duration,
    /// Whether the director uses its API: it probes the server, creates and deletes rooms, and removes
    /// participants. If not, the server counts as healthy, and only tokens are minted.
    pub probed: bool,
    /// A server that replies to no probe for this long is dead.
    pub hang_timeout: Duration,
    /// Whether the server creates a room for the first token that names it. If not, an island takes its next
    /// transport while the director cannot create its room.
    pub auto_create: bool,
    /// The time for which a former member may remain in the room.
    pub grace: Duration,
}

/// The shortest time after which the server may close an empty room of an island by itself.
const MIN_EMPTY_TIMEOUT: Duration = Duration::from_secs(60);

impl LiveKitSettings {
    /// The options of the room of an island on this server. The largest islands there have `max_island_size`
    /// members.
    ///
    /// The limit of participants does not depend on the rules, because a room keeps the limit that it was created
    /// with: a rule that allows larger islands later must not lock their members out. All members may be
    /// exchanged, and former members stay for the grace, so twice as many participants are admitted.
    ///
    /// The director deletes the room when the island ends. The timeouts are for rooms that no director knows.
    pub(crate) fn room_options(
        &self,
        node: &NodeName,
        max_island_size: u32,
        island: &IslandId,
        rule: Option<&str>,
    ) -> RoomOptions {
        let timeout = self.token_ttl.max(MIN_EMPTY_TIMEOUT);
        let timeout_s = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        RoomOptions {
            max_participants: max_island_size.saturating_mul(2),
            empty_timeout_s: timeout_s,
            departure_timeout_s: timeout_s,
            metadata: json!({ "island": island.as_str(), "node": node.as_str(), "rule": rule }).to_string(),
        }
    }
}
