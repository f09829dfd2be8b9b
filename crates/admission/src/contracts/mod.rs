//! Signatures of contract wallets (EIP-1654), which only the contract itself can verify.
//!
//! The client chooses which contract is called, and how often. So calls to the provider are limited in
//! number, time and gas, and a circuit breaker stops them when the provider does not answer. A provider that
//! hangs delays contract wallets alone.

mod backoff;
mod breaker;
mod budget;
mod cache;
mod error;
mod provider;
mod settings;
mod verifier;

pub use error::ContractError;
pub use settings::ContractSettings;
pub use verifier::ContractVerifier;
