//! The settings of nodes that do not announce themselves, as they stand in `atoll.toml`.

use serde::{Deserialize, Serialize};

/// `[livekit.<node>]`: a LiveKit server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LiveKit {
    /// Where clients reach it: `wss://host` or `ws://host:port`.
    pub(crate) url: String,
    /// Where its API is: `https://host` or `http://host:port`. Empty: from `url`.
    pub(crate) api_url: String,
    /// What it knows us by.
    pub(crate) api_key: String,
    /// Signs tokens.
    pub(crate) api_secret: String,
    /// The most members that an island is given there.
    pub(crate) max_island_size: u32,
    /// The most people on it; 0: no limit.
    pub(crate) max_users: u32,
    /// How long a token admits.
    pub(crate) token_ttl_s: u64,
    /// Whether it is asked every second how it is, and used only while it is well.
    pub(crate) probe: bool,
    /// Takes nobody any more, and its islands go elsewhere.
    pub(crate) draining: bool,
}

/// `[p2p]`: the mesh among the peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct P2p {
    /// The name under which it is offered.
    pub(crate) node: String,
    /// The most members of a mesh.
    pub(crate) max_island_size: u32,
    /// STUN servers, separated by commas: `stun:host[:port]`.
    pub(crate) stun: String,
    /// TURN servers that share a secret, separated by commas: `turn:host[:port]`.
    pub(crate) turn: String,
    /// The secret.
    pub(crate) turn_secret: String,
    /// How long a user may begin to use the TURN servers.
    pub(crate) turn_ttl_s: u64,
}

/// `[external.<node>]`: a transport that this project knows nothing of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct External {
    /// Its connection string, with `{island}` and `{address}` in it.
    pub(crate) template: String,
    /// The most members that an island is given there.
    pub(crate) max_island_size: u32,
    /// The most people on it; 0: no limit.
    pub(crate) max_users: u32,
    /// Takes nobody any more, and its islands go elsewhere.
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
