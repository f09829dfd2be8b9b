//! The settings of a gateway, which the binary derives from its configuration.

use std::time::Duration;

use admission::{ConnectionLimits, Rate};
use protocol::ConnectionString;

use crate::{
    livekit_proxy::ProxiedServer,
    load_monitor::LoadLimits,
    login::realm_check::{RealmCheck, RealmNames},
    mesh::candidates::CandidatePolicy,
};

/// The settings of a gateway. Names in parentheses are keys of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// URL under which clients reach the gateway over WebSocket: `ws://host:port` or `wss://host`.
    pub public_url: String,
    /// The realm as `/about` describes it.
    pub realm: Realm,
    /// Limits of concurrent handshakes, and the rate of handshakes of one client network.
    pub handshakes: ConnectionLimits,
    /// Rate limit of signed logins of one client network.
    pub logins_per_network: Rate,
    /// Upper bound of concurrent sessions.
    pub max_sessions: usize,
    /// Upper bound of concurrent sessions of one client network; `None`: no limit.
    pub max_sessions_per_network: Option<usize>,
    /// Which of two sessions of one wallet is kept.
    pub keep_session: KeepSession,
    /// Whether members of an island are sent messages when others join or leave it (`gateway.tell_members`).
    pub send_member_changes: bool,
    /// Whether a challenge reports that its address is signed in already (`gateway.tell_connected`). If not,
    /// it always reports `false`, because any client can request a challenge for any address.
    pub report_connected: bool,
    /// Resource limits above which new users are turned away.
    pub load_limits: LoadLimits,
    /// Timeout of the whole sign-in.
    pub handshake_timeout: Duration,
    /// Time without data from a client after which it is pinged. After three such intervals it is closed.
    pub ping_interval: Duration,
    /// Interval at which the last position of a quiet client is republished on the bus
    /// (`gateway.vouch_interval_s`).
    pub republish_interval: Duration,
    /// Time after its last heartbeat for which that is done (`gateway.vouch_for_s`).
    pub republish_for: Duration,
    /// Whether another service decides the islands (`islands.clustering = given`). Clients need not send
    /// heartbeats then: a session lives as long as its socket answers pings, and is republished all the time.
    pub external_clustering: bool,
    /// Time without a heartbeat after which a session ends, counted from the sign-in or the last heartbeat.
    /// It does not end while its position is still republished.
    pub idle_timeout: Duration,
    /// Timeout of one write, after which the client counts as too slow.
    pub write_timeout: Duration,
    /// Largest absolute value of a coordinate on each axis, in metres.
    pub position_bound_m: f32,
    /// Frames that one client may send in a second. Above the limit reads are delayed.
    pub messages_per_second: u32,
    /// Bytes that one session may publish under topics in a second. Above the limit reads are delayed.
    pub topic_bytes_per_second: u32,
    /// Upper bound of topic subscriptions of one session, over RPC.
    pub max_subscriptions: usize,
    /// Bound of the message queue of one subscription. When it is full, the newest message is dropped and
    /// counted.
    pub subscription_buffer: usize,
    /// The LiveKit servers that clients reach through the signalling proxy.
    pub proxied_livekit: Vec<ProxiedServer>,
    /// The ICE candidates that members of a mesh may send each other.
    pub mesh_candidates: CandidatePolicy,
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
    /// The newer one. The older one is closed with [`Close::NewSession`](protocol::Close::NewSession).
    #[default]
    Newest,
    /// The older one while it lives. The newer one is rejected.
    Oldest,
}

/// The realm as `/about` describes it, beside its health, and the rules of signed logins.
#[derive(Debug, Clone, Default)]
pub struct Realm {
    /// Id of the Ethereum network; 1 is the main net.
    pub network_id: u64,
    /// URNs of scenes that run everywhere.
    pub global_scenes: Vec<String>,
    /// URNs of the scenes of this realm.
    pub scenes: Vec<String>,
    /// URL of the content service; empty if the realm has none.
    pub content_url: String,
    /// URL of the lambdas service; empty if the realm has none.
    pub lambdas_url: String,
    /// Connection string that all clients use instead of the archipelago socket.
    pub fixed_adapter: Option<ConnectionString>,
    /// Whether a signed login that names itself a guest is accepted.
    pub guests: bool,
    /// The name of the realm, if it has one, and the other names by which a signed login may refer to it.
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
            proxied_livekit: Vec::new(),
            mesh_candidates: CandidatePolicy::default(),
        }
    }
}
