//! Sockets before they are trusted: how many there may be, what they must sign, who they are, and
//! how fast they may talk.
//!
//! Gateways and room nodes both sign people in, and both from the open internet: what they do
//! before they know a wallet stands here, once.

mod contracts;
mod http_client;
mod limiter;
mod network;
mod pace;
mod rate;
mod verifier;

pub use contracts::{ContractSettings, Contracts, NotAsked};
pub use http_client::HttpClient;
pub use limiter::{Full, Limiter, Limits, Permit};
pub use network::Network;
pub use pace::Pace;
pub use rate::{Rate, RateLimiter, TooOften};
pub use verifier::{Randomness, Refusal, Verifier, random};
