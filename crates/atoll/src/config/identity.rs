//! `[identity]`: the limits for auth chains.

use admission::ContractSettings;
use gateway::RealmCheck;

use super::{
    problems::Problems,
    section::section,
    urls::is_url,
    values::{Choice, HIDDEN, Millis, OneOf, Seconds, Secret},
};

section! {
    /// `[identity]`: limits for auth chains
    pub(crate) struct Identity {
        /// Tolerated difference between the clocks of client and server.
        clock_skew_s: Seconds = Seconds(60),
        /// How far in the future an ephemeral key may expire, in days.
        longest_ephemeral_days: u64 = 36_600,
        /// Whether a signed request is accepted if its payload was signed all in lower case, metadata
        /// included, as clients did before August 2026 (ADR-44). A request signed byte for byte is always
        /// accepted.
        accept_lowercased_fetch: bool = true,
        /// Treatment of a signed login with metadata that names another realm: `refuse`, or `log` and accept.
        /// `realm.serverName` is compared with `realm.name`, and `realm.hostname` with the hosts of
        /// `server.public_url` and `realm.public_url`; `realm.aliases` applies to both. Letter case is
        /// ignored, and all loopback names count as one host. An absent or empty field passes, as does any
        /// `serverName` if the realm has no name.
        realm_check: OneOf<RealmCheck> = OneOf(RealmCheck::Refuse),
        /// JSON-RPC API of an Ethereum node, which verifies contract wallets: `http://host:port` or
        /// `https://host`, with or without a path. It counts as a secret, because it often contains a key.
        /// Empty: contract wallets are refused.
        ethereum_rpc_url: Secret = Secret::default(),
        /// Time limit for all questions of one auth chain together, including the wait for a slot. Must be
        /// below `gateway.handshake_timeout_s` and `rooms.handshake_timeout_s`.
        #[at_least(1)]
        ethereum_timeout_ms: Millis = Millis(2_000),
        /// Number of auth chains that are verified by questions at a time. Others wait within
        /// `ethereum_timeout_ms` and are then rejected for the moment.
        #[at_least(1)]
        ethereum_max_questions: usize = 32,
        /// Number of cached results. On overflow the one that expires first is evicted. 0: no cache.
        ethereum_cache_entries: usize = 10_000,
        /// Time for which a valid signature is cached. It is bounded because the owners of a wallet may
        /// change.
        ethereum_valid_s: Seconds = Seconds(300),
        /// Time for which an invalid signature is cached.
        ethereum_refused_s: Seconds = Seconds(10),
        /// Number of consecutive failures that open the circuit breaker: the node gets no further requests,
        /// and contract wallets are rejected at once. An answer of HTTP 429 is no failure; it pauses the
        /// questions.
        #[at_least(1)]
        ethereum_failures: u32 = 5,
        /// Time for which the circuit breaker stays open. Then one question is tried: an answer closes the
        /// breaker, a failure opens it again.
        ethereum_cool_down_s: Seconds = Seconds(10),
        /// Number of questions for the clients of one network in an hour; all of them may come at once. Above
        /// it, a contract wallet is rejected for the moment. 0: no limit.
        ethereum_questions_per_network_per_hour: u32 = 120,
        /// Number of questions of this process in a day. The default is at most 80,000 requests; free plans
        /// of providers include about 100,000. A 24th of the number may be used at once, and the budget
        /// refills evenly, so that a flood does not use up the rest of the day. If several gateways share one
        /// plan, give each its part. 0: no limit.
        ethereum_questions_per_day: u32 = 40_000,
    }
}

impl Choice for RealmCheck {
    const CHOICES: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("log", Self::Log)];
}

impl Identity {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let url = &self.ethereum_rpc_url;
        let rule = "must be http://host:port or https://host, with or without a path";
        let usable = url.is_empty() || is_url(url, &["http", "https"]);
        problems.check(usable, "identity.ethereum_rpc_url", HIDDEN, rule);
    }

    /// The limits for auth chains.
    pub(crate) fn limits(&self) -> identity::Limits {
        identity::Limits {
            clock_skew: self.clock_skew_s.duration(),
            longest_ephemeral: Seconds(self.longest_ephemeral_days.saturating_mul(24 * 60 * 60)).duration(),
            lowercased_fetch: self.accept_lowercased_fetch,
        }
    }

    /// How contract wallets are verified; `None`: they are refused.
    pub(crate) fn contracts(&self) -> Option<ContractSettings> {
        (!self.ethereum_rpc_url.is_empty()).then(|| ContractSettings {
            rpc_url: self.ethereum_rpc_url.to_string(),
            deadline: self.ethereum_timeout_ms.duration(),
            // A semaphore has a maximum of permits; so many are practically unlimited.
            max_concurrent_checks: self.ethereum_max_questions.min(100_000),
            cache_entries: self.ethereum_cache_entries,
            valid_ttl: self.ethereum_valid_s.duration(),
            invalid_ttl: self.ethereum_refused_s.duration(),
            failures_to_open: self.ethereum_failures,
            cool_down: self.ethereum_cool_down_s.duration(),
            per_network_per_hour: self.ethereum_questions_per_network_per_hour,
            per_day: self.ethereum_questions_per_day,
        })
    }
}
