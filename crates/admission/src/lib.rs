//! Admission of sockets that are not authenticated yet: limits of connections and handshakes, challenges,
//! verification of auth chains and contract wallets, and rate limits.
//!
//! Gateways and room nodes both sign wallets in, and both accept connections from the open internet. This
//! crate holds everything that they do before a wallet is known.

mod contracts;
mod http_client;
mod limiter;
mod metrics;
mod network;
mod rate;
mod throttle;
mod verifier;

pub use contracts::{ContractError, ContractSettings, ContractVerifier};
pub use http_client::HttpClient;
pub use limiter::{AcquireError, ConnectionLimiter, ConnectionLimits, Permit};
pub use metrics::describe_metrics;
pub use network::Network;
pub use rate::{Rate, RateLimited, RateLimiter};
pub use throttle::Throttle;
pub use verifier::{AuthError, RandomnessError, Verifier, random};
