//! Wallet identity: auth chains, verified and signed; challenges; signed HTTP requests.
//!
//! An auth chain is a JSON array of links `{type, payload, signature}` by which a wallet vouches
//! for a short-lived key, and that key for a challenge (ADR-44 of the Decentraland protocol).
//!
//! Pure: no sockets and no clock; the time and all randomness come in as arguments. Links of
//! contract wallets (EIP-1654) need an Ethereum node to be checked: [`verify_offline`] hands them out as
//! [`ContractSignature`]s for a provider to ask about, [`parse_contract_response`] reads what it says, and
//! [`verify`] refuses them.

mod chain;
mod challenge;
mod crypto;
mod eip1654;
mod fetch;
mod resume;
mod sign;
mod verify;

#[cfg(test)]
mod tests;

pub use chain::{ChainError, Link, LinkKind, MAX_CHAIN_BYTES, MAX_LINKS};
pub use challenge::Challenge;
pub use eip1654::{ContractResponseError, MAX_CONTRACT_RESPONSE_BYTES, parse_contract_response};
pub use fetch::{FetchError, Headers, SignedFetch, fetch_headers, fetch_payload, verify_fetch_offline};
pub use resume::ResumeSecret;
pub use sign::{Identity, Wallet, WalletError};
pub use verify::{ContractSignature, Limits, OfflineVerification, verify, verify_offline};
