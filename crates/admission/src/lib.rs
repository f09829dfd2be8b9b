//! Sockets before they are trusted: how many there may be, what they must sign, who they are, and
//! how fast they may talk.
//!
//! Gateways and room nodes both sign people in, and both from the open internet: what they do
//! before they know a wallet stands here, once.

mod contracts;
mod http_client;
mod limiter;
mod network;
mod rate;
mod throttle;
mod verifier;

pub use contracts::{ContractError, ContractSettings, ContractVerifier};
pub use http_client::HttpClient;
pub use limiter::{AcquireError, ConnectionLimiter, ConnectionLimits, Permit};
pub use network::Network;
pub use rate::{Rate, RateLimited, RateLimiter};
pub use throttle::Throttle;
pub use verifier::{AuthError, RandomnessError, Verifier, random};
