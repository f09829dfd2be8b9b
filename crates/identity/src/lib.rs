//! Wallet identity: verifies and signs auth chains and HTTP requests, and creates challenges.
//!
//! An auth chain is a JSON array of links `{type, payload, signature}`: a wallet authorizes an
//! ephemeral key, and that key signs a challenge (ADR-44 of the Decentraland protocol).
//!
//! The crate is pure: no sockets and no clock; the time and all randomness are arguments. Only an Ethereum
//! node can check a link of a contract wallet (EIP-1654). [`verify_offline`] returns such links as
//! [`ContractSignature`]s, the caller sends their [`ContractSignature::call_data`] to a node, and
//! [`parse_contract_response`] interprets the response. [`verify`] refuses contract wallets; its
//! documentation has an example.

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
