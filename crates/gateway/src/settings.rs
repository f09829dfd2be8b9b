use std::time::Duration;

use admission::{ConnectionLimits, Rate};
use protocol::ConnectionString;

use crate::{LoadLimits, RealmCheck, RealmNames};

/// What a gateway is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients reach it over WebSocket: `ws://host:port` or `wss://host`.
    pub public_url: String,
    /// What `/about` says of the realm.
    pub realm: Realm,
    /// How many sockets may be signing in, and how often one network may begin to.
    pub handshakes: ConnectionLimits,
    /// How often one network may send a signed login.
    pub logins_per_network: Rate,
    /// The most sessions at a time.
    pub max_sessions: usize,
    /// The most sessions of one network at a time; `None` for no limit.
    pub max_sessions_per_network: Option<usize>,
    /// Which of two sessions of one wallet is kept.
    pub keep_session: KeepSession,
    /// Whether members of an island are told who joins it and who leaves it.
    pub send_member_changes: bool,
    /// Whether a challenge reports that its address is signed in already; if not, it always reports that
    /// it is not. Any client can ask for any address.
    pub report_connected: bool,
    /// How much of the machine may be in use while more people are asked in.
    pub load_limits: LoadLimits,
    /// How long the whole sign-in may take.
    pub handshake_timeout: Duration,
    /// A client from which nothing arrived for so long is pinged; after three such intervals it is closed.
    pub ping_interval: Duration,
    /// How often the last position of a quiet client is repeated on the bus.
    pub republish_interval: Duration,
    /// For how long after its last heartbeat that is done.
    pub republish_for: Duration,
    /// Whether another service decides the islands (`islands.clustering = given`): clients need send no
    /// heartbeats then. A session lives as long as its socket answers pings, and is reported all the time.
    pub external_clustering: bool,
    /// How long a signed-in socket may stay without its first heartbeat.
    pub idle_timeout: Duration,
    /// How long one write may take before the client counts as too slow.
    pub write_timeout: Duration,
    /// How far from the origin the world reaches on each axis, in metres.
    pub position_bound_m: f32,
    /// Messages that one client may send in a second; above, it is read more slowly.
    pub messages_per_second: u32,
    /// Bytes that one session may publish under topics in a second; above, it is read more slowly.
    pub topic_bytes_per_second: u32,
    /// Subscriptions that one session may have, over RPC.
    pub max_subscriptions: usize,
    /// Messages that may wait for one subscription; at the bound the newest is dropped and counted.
    pub subscription_buffer: usize,
}

impl Settings {
    /// The path of the public URL, without a trailing `/`: `/realms/one`, or nothing.
    pub(crate) fn path(&self) -> &str {
        let below_host =
            self.public_url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        below_host.unwrap_or_default().trim_end_matches('/')
    }
}

/// Which of two sessions of one wallet is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepSession {
    /// The newer one; the older one is told so, and closed.
    #[default]
    Newest,
    /// The older one, while it lives; the newer one is turned away.
    Oldest,
}

/// What `/about` says of the realm beside its health.
#[derive(Debug, Clone, Default)]
pub struct Realm {
    /// The Ethereum network: 1 is the main net.
    pub network_id: u64,
    /// URNs of scenes that run everywhere.
    pub global_scenes: Vec<String>,
    /// URNs of the scenes of this realm.
    pub scenes: Vec<String>,
    /// Where the content service is; empty without one.
    pub content_url: String,
    /// Where the lambdas service is; empty without one.
    pub lambdas_url: String,
    /// Where all clients are sent instead of the archipelago socket.
    pub fixed_adapter: Option<ConnectionString>,
    /// Whether those who say that they are guests may log in.
    pub guests: bool,
    /// Its name, if it has one, and the other names that a signed login may give to the realm it is meant
    /// for.
    pub names: RealmNames,
    /// The treatment of a signed login that is meant for another realm.
    pub check: RealmCheck,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The defaults of the binary, for tests.
    pub(crate) fn settings() -> Settings {
        Settings {
            public_url: "ws://127.0.0.1:5000".to_owned(),
            realm: Realm::default(),
            handshakes: ConnectionLimits { total: 512, per_network: Some(32), rate: None },
            logins_per_network: Rate::per_second(20, 100),
            max_sessions: 10_000,
            max_sessions_per_network: None,
            keep_session: KeepSession::Newest,
            send_member_changes: true,
            report_connected: true,
            load_limits: LoadLimits::default(),
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            republish_interval: Duration::from_secs(5),
            republish_for: Duration::from_secs(120),
            external_clustering: false,
            idle_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(10),
            position_bound_m: 100_000.0,
            messages_per_second: 20,
            topic_bytes_per_second: 64 * 1024,
            max_subscriptions: 64,
            subscription_buffer: 50,
        }
    }
}
