//! The settings of nodes that do not announce themselves, as `atoll.toml` has them.

use serde::{Deserialize, Serialize};

/// `[livekit.<node>]`: a LiveKit server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LiveKit {
    /// The URL that clients connect to: `wss://host` or `ws://host:port`.
    pub(crate) url: String,
    /// The URL of its API: `https://host` or `http://host:port`. Empty: derived from `url`.
    pub(crate) api_url: String,
    /// The name of the key with which Atoll authenticates.
    pub(crate) api_key: String,
    /// The secret that signs tokens.
    pub(crate) api_secret: String,
    /// The maximum of members of an island on this node.
    pub(crate) max_island_size: u32,
    /// The maximum of peers on this node; 0: no limit.
    pub(crate) max_users: u32,
    /// How long a token is valid, in seconds.
    pub(crate) token_ttl_s: u64,
    /// Whether it is probed every second, and used only while it is healthy.
    pub(crate) probe: bool,
    /// Whether the node drains: it gets no new islands, and its islands move to other nodes.
    pub(crate) draining: bool,
}

/// `[p2p]`: a mesh of connections between the peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct P2p {
    /// The name of the node.
    pub(crate) node: String,
    /// The maximum of members of a mesh.
    pub(crate) max_island_size: u32,
    /// STUN servers, separated by commas: `stun:host[:port]`.
    pub(crate) stun: String,
    /// TURN servers that share a secret, separated by commas: `turn:host[:port]`.
    pub(crate) turn: String,
    /// The secret that the TURN servers share with Atoll.
    pub(crate) turn_secret: String,
    /// How long a generated TURN user may start to use the servers, in seconds.
    pub(crate) turn_ttl_s: u64,
}

/// `[external.<node>]`: a transport that Atoll only hands out connection strings for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct External {
    /// Its connection string, with the placeholders `{island}` and `{address}`.
    pub(crate) template: String,
    /// The maximum of members of an island on this node.
    pub(crate) max_island_size: u32,
    /// The maximum of peers on this node; 0: no limit.
    pub(crate) max_users: u32,
    /// Whether the node drains: it gets no new islands, and its islands move to other nodes.
    pub(crate) draining: bool,
}

impl Default for LiveKit {
    fn default() -> Self {
        Self {
            url: String::new(),
            api_url: String::new(),
            api_key: String::new(),
            api_secret: String::new(),
            max_island_size: 100,
            max_users: 0,
            token_ttl_s: 300,
            probe: true,
            draining: false,
        }
    }
}

impl Default for P2p {
    fn default() -> Self {
        Self {
            node: "p2p".to_owned(),
            max_island_size: 12,
            stun: String::new(),
            turn: String::new(),
            turn_secret: String::new(),
            turn_ttl_s: 3_600,
        }
    }
}

impl Default for External {
    fn default() -> Self {
        Self { template: String::new(), max_island_size: 100, max_users: 0, draining: false }
    }
}
