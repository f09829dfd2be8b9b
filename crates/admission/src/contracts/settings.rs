//! The settings for the calls to contract wallets.

use std::time::Duration;

/// Settings for the calls to contract wallets.
#[derive(Clone)]
pub struct ContractSettings {
    /// The URL of an Ethereum node's JSON-RPC API, with its API key if it needs one.
    pub rpc_url: String,
    /// Time limit for all calls for one auth chain, including the wait for a slot.
    pub deadline: Duration,
    /// Signatures that are checked at a time; further ones wait within their deadline.
    pub max_concurrent_checks: usize,
    /// Answers that are cached. At the bound, the one that expires first is evicted.
    pub cache_entries: usize,
    /// How long a valid answer is cached.
    pub valid_ttl: Duration,
    /// How long an invalid answer is cached.
    pub invalid_ttl: Duration,
    /// Consecutive failures after which the circuit breaker opens and no calls are made.
    pub failures_to_open: u32,
    /// How long the circuit breaker stays open; then one trial call is made.
    pub cool_down: Duration,
    /// Checks allowed for the wallets of one network per hour; 0: no limit. A check is at most two requests;
    /// one with a cached answer does not count.
    pub per_network_per_hour: u32,
    /// Checks allowed per day in total, of which a 24th at once; 0: no limit.
    pub per_day: u32,
}
