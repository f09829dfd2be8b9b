//! The client side: wallets and ephemeral keys that sign challenges and requests.

use std::{fmt, time::SystemTime};

use jiff::Timestamp;
use protocol::{Address, unix_ms};
use secp256k1::{PublicKey, SecretKey, ecdsa::RecoverableSignature};

use crate::{
    Link, LinkKind,
    crypto::{address_of_key, personal_message},
    fetch::{Headers, fetch_headers, fetch_payload},
};

/// A key pair that signs as Ethereum wallets do (`personal_sign`).
#[derive(Clone)]
pub struct Wallet {
    secret: SecretKey,
    address: Address,
}

/// The bytes are not a secret key: zero, or not below the order of the curve. One of 2^128 random values is
/// not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secret key of secp256k1")]
pub struct WalletError;

impl Wallet {
    /// Makes the wallet of a secret key.
    pub fn from_secret(secret: [u8; 32]) -> Result<Self, WalletError> {
        let secret = SecretKey::from_secret_bytes(secret).map_err(|_| WalletError)?;
        let address = address_of_key(&PublicKey::from_secret_key(&secret));
        Ok(Self { secret, address })
    }

    /// The address of the wallet.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a text (`personal_sign`). The result is `0x`, then `r`, `s` and `v` (27 or 28) in hex.
    pub fn sign(&self, text: &str) -> String {
        let message = personal_message(text.as_bytes());
        let (recovery, rs) =
            RecoverableSignature::sign_ecdsa_recoverable(message, &self.secret).serialize_compact();
        format!("0x{}{:02x}", hex::encode(rs), recovery.to_u8() + 27)
    }

    /// Signs a challenge without an ephemeral key. Returns the chain of two links as JSON.
    pub fn sign_challenge(&self, challenge: &str) -> String {
        to_json(&self.chain(challenge))
    }

    /// Signs a request without an ephemeral key. Returns its headers: see [`fetch_headers`].
    pub fn sign_fetch(&self, method: &str, path: &str, metadata: &str, now: SystemTime) -> Headers {
        let timestamp = unix_ms(now);
        fetch_headers(&self.chain(&fetch_payload(method, path, timestamp, metadata)), timestamp, metadata)
    }

    fn chain(&self, text: &str) -> [Link; 2] {
        [signer_link(self.address), entity_link(self, text)]
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A wallet with an ephemeral key that it authorized to sign in its name.
#[derive(Debug, Clone)]
pub struct Identity {
    owner: Address,
    delegation: Link,
    ephemeral: Wallet,
}

impl Identity {
    /// Lets `wallet` authorize `ephemeral` until `expiration`.
    pub fn new(wallet: &Wallet, ephemeral: Wallet, expiration: SystemTime) -> Self {
        let expiration = Timestamp::try_from(expiration).unwrap_or(Timestamp::MAX);
        let payload = format!(
            "Decentraland Login\nEphemeral address: {}\nExpiration: {expiration:.3}",
            ephemeral.address()
        );
        let signature = wallet.sign(&payload);
        let delegation = Link { kind: LinkKind::EcdsaEphemeral, payload, signature };
        Self { owner: wallet.address(), delegation, ephemeral }
    }

    /// The address of the wallet, which owns the chains.
    pub fn address(&self) -> Address {
        self.owner
    }

    /// Signs a challenge with the ephemeral key. Returns the chain of three links as JSON.
    pub fn sign_challenge(&self, challenge: &str) -> String {
        to_json(&self.chain(challenge))
    }

    /// Signs a request with the ephemeral key. Returns its headers: see [`fetch_headers`].
    pub fn sign_fetch(&self, method: &str, path: &str, metadata: &str, now: SystemTime) -> Headers {
        let timestamp = unix_ms(now);
        fetch_headers(&self.chain(&fetch_payload(method, path, timestamp, metadata)), timestamp, metadata)
    }

    fn chain(&self, text: &str) -> [Link; 3] {
        [signer_link(self.owner), self.delegation.clone(), entity_link(&self.ephemeral, text)]
    }
}

fn signer_link(owner: Address) -> Link {
    Link { kind: LinkKind::Signer, payload: owner.to_string(), signature: String::new() }
}

fn entity_link(wallet: &Wallet, challenge: &str) -> Link {
    let signature = wallet.sign(challenge);
    Link { kind: LinkKind::EcdsaSignedEntity, payload: challenge.to_owned(), signature }
}

fn to_json(links: &[Link]) -> String {
    serde_json::to_string(links).unwrap_or_default()
}
