//! `[gateway]`: sign-ins, sessions and topics.

use admission::{ConnectionLimits, Rate};
use gateway::{CandidatePolicy, KeepSession};

use protocol::timing;

use super::{
    identity::Identity,
    islands::Islands,
    problems::Problems,
    realm::Realm,
    section::section,
    values::{Choice, OneOf, Seconds, limit, rate},
};

section! {
    /// `[gateway]`: sign-in, sessions and topics
    pub(crate) struct Gateway {
        /// Maximum number of concurrent handshakes. When all are in use, the gateway evicts one that waits
        /// for its client: the oldest one of the network that holds most of these. It is closed with code
        /// 1013.
        #[at_least(1)]
        max_handshakes: usize = 512,
        /// Maximum number of concurrent handshakes of one network: an IPv4 address or an IPv6 prefix
        /// (`server.ipv6_prefix`). Further ones are answered with 503.
        #[at_least(1)]
        max_handshakes_per_ip: usize = 32,
        /// Sign-ins that one network may start per second, in the long run. Further ones are answered with
        /// 503. 0: no limit.
        sign_ins_per_second_per_network: u32 = 500,
        /// Burst of this rate.
        #[at_least(1)]
        sign_in_burst_per_network: u32 = 5_000,
        /// Signed logins per second from one network, in the long run. Further ones are answered with 503.
        #[at_least(1)]
        logins_per_second_per_ip: u32 = 20,
        /// Burst of this rate.
        #[at_least(1)]
        login_burst_per_ip: u32 = 100,
        /// Maximum number of sessions. Further ones are closed with code 1013. A session that replaces one of
        /// the same wallet needs no free slot.
        #[at_least(1)]
        max_sessions: usize = 10_000,
        /// Maximum number of sessions of one network; further ones are closed with code 1013. 0: no limit,
        /// because many peers may share the address of one provider.
        max_sessions_per_network: usize = 0,
        /// Which session is kept when a wallet signs in twice: `newest`, or `oldest` while it lives. If the
        /// two sessions are on different gateways, it is always the newest.
        keep_session: OneOf<KeepSession> = OneOf(KeepSession::Newest),
        /// Whether the gateway sends the members of an island a message when a peer joins or leaves it.
        tell_members: bool = true,
        /// Whether a challenge, of the gateway or of a room, reports in `already_connected` that its address
        /// is connected. Any client can request a challenge for any address. With `false`, the field is
        /// always `false`.
        tell_connected: bool = true,
        /// Memory in use (RSS), in MiB, from which on `/about` reports `acceptingUsers: false` and signed
        /// logins are answered with 503, until the value is 10 % below the limit. Sign-ins on the archipelago
        /// socket are still accepted. 0: no limit.
        max_memory_mb: u64 = 0,
        /// The same for CPU time, averaged over five seconds, in percent of all cores. 0: no limit.
        max_cpu_percent: u32 = 0,
        /// Time limit for the whole sign-in.
        #[at_least(1)]
        handshake_timeout_s: Seconds = Seconds(10),
        /// A client that sent nothing for this time is pinged; after three such intervals its socket is
        /// closed with code 4004.
        #[at_least(1)]
        ping_interval_s: Seconds = Seconds::of(timing::PING_INTERVAL),
        /// Interval at which the gateway repeats the last position of a quiet client on the bus. At most half
        /// of `islands.silence_s`, because otherwise the director removes quiet clients.
        #[at_least(1)]
        vouch_interval_s: Seconds = Seconds::of(timing::REPUBLISH_INTERVAL),
        /// Time for which the gateway does so after the client's last heartbeat.
        vouch_for_s: Seconds = Seconds::of(timing::REPUBLISH_FOR),
        /// Time for which a session may last without a first heartbeat. After the first one, the session ends
        /// when the last heartbeat is older than both this and `vouch_for_s`. Either way it is closed with
        /// code 4005. The limit does not apply if `islands.clustering` is `given`, which must be set for
        /// gateways too: a session then lives as long as its socket answers pings, and is reported every
        /// `vouch_interval_s`.
        #[at_least(1)]
        idle_timeout_s: Seconds = Seconds::of(timing::IDLE_TIMEOUT),
        /// Time limit for one write to a socket, after which it is closed with code 4006.
        #[at_least(1)]
        write_timeout_s: Seconds = Seconds(10),
        /// Messages that one client may send per second; above this rate the gateway reads from it more
        /// slowly.
        #[at_least(1)]
        messages_per_second: u32 = 20,
        /// Bytes that one session may publish under topics over RPC per second (topic and payload), at least
        /// 16384. Above this rate the gateway reads from the session more slowly, and no message is lost.
        /// Each message is sent to all subscribers of its topic. The default is the largest message once a
        /// second, or 3 KiB in each of 20 messages: far more than positions, chat and peer-to-peer signalling
        /// need.
        topic_bytes_per_second: u32 = 64 * 1024,
        /// Maximum number of topic subscriptions of one session.
        #[at_least(1)]
        max_subscriptions: usize = 64,
        /// Queue of one subscription, in messages. On overflow the newest message is dropped and counted.
        #[at_least(1)]
        subscription_buffer: usize = 50,
    }
}

impl Choice for KeepSession {
    const CHOICES: &'static [(&'static str, Self)] = &[("newest", Self::Newest), ("oldest", Self::Oldest)];
}

/// At this rate the largest message, 64 KiB, takes 4 s; the gateway does not read its sender meanwhile.
const MIN_TOPIC_BYTES_PER_SECOND: u32 = 16 * 1024;

impl Gateway {
    pub(super) fn validate(&self, problems: &mut Problems) {
        // A longer pause after the largest message would look like a client that does not answer pings.
        let rate = self.topic_bytes_per_second;
        let rule = "must be at least 16384, so that no message delays its session for more than 4 s";
        let paced = rate >= MIN_TOPIC_BYTES_PER_SECOND;
        problems.check(paced, "gateway.topic_bytes_per_second", rate, rule);
    }

    /// The settings of the gateway of a process at these URLs.
    pub(crate) fn settings(
        &self,
        realm: &Realm,
        identity: &Identity,
        islands: &Islands,
        http_url: &str,
        ws_url: &str,
    ) -> gateway::Settings {
        gateway::Settings {
            public_url: ws_url.to_owned(),
            realm: realm.settings(identity.realm_check.0, http_url),
            handshakes: ConnectionLimits {
                total: self.max_handshakes,
                per_network: Some(self.max_handshakes_per_ip),
                rate: rate(self.sign_ins_per_second_per_network, self.sign_in_burst_per_network),
            },
            logins_per_network: Rate::per_second(self.logins_per_second_per_ip, self.login_burst_per_ip),
            max_sessions: self.max_sessions,
            max_sessions_per_network: limit(self.max_sessions_per_network),
            keep_session: self.keep_session.0,
            send_member_changes: self.tell_members,
            report_connected: self.tell_connected,
            load_limits: gateway::LoadLimits {
                memory_bytes: (self.max_memory_mb > 0)
                    .then(|| self.max_memory_mb.saturating_mul(1024 * 1024)),
                cpu_percent: (self.max_cpu_percent > 0).then(|| self.max_cpu_percent.into()),
            },
            handshake_timeout: self.handshake_timeout_s.duration(),
            ping_interval: self.ping_interval_s.duration(),
            republish_interval: self.vouch_interval_s.duration(),
            republish_for: self.vouch_for_s.duration(),
            external_clustering: islands.has_external_clustering(),
            idle_timeout: self.idle_timeout_s.duration(),
            write_timeout: self.write_timeout_s.duration(),
            position_bound_m: islands.world_bound_m,
            messages_per_second: self.messages_per_second,
            topic_bytes_per_second: self.topic_bytes_per_second,
            max_subscriptions: self.max_subscriptions,
            subscription_buffer: self.subscription_buffer,
            proxied_livekit: Vec::new(),
            mesh_candidates: CandidatePolicy::default(),
        }
    }
}
