use std::{fmt, time::SystemTime};

use jiff::Timestamp;
use protocol::{Address, unix_ms};
use secp256k1::{PublicKey, SecretKey, ecdsa::RecoverableSignature};

use crate::{
    Link, LinkKind,
    crypto::{address_of_key, personal_message},
    fetch::{Headers, fetch_headers, fetch_payload},
};

/// A key pair that signs as Ethereum wallets do.
#[derive(Clone)]
pub struct Wallet {
    secret: SecretKey,
    address: Address,
}

/// The bytes are no secret key: zero, or not below the order of the curve. One in 2^128 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secret key of secp256k1")]
pub struct WalletError;

impl Wallet {
    /// The wallet of a secret key.
    pub fn from_secret(secret: [u8; 32]) -> Result<Self, WalletError> {
        let secret = SecretKey::from_secret_bytes(secret).map_err(|_| WalletError)?;
        let address = address_of_key(&PublicKey::from_secret_key(&secret));
        Ok(Self { secret, address })
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a text (`personal_sign`): `0x`, then `r`, `s` and `v` (27 or 28) in hex.
    pub fn sign(&self, text: &str) -> String {
        let message = personal_message(text.as_bytes());
        let (recovery, rs) =
            RecoverableSignature::sign_ecdsa_recoverable(message, &self.secret).serialize_compact();
        format!("0x{}{:02x}", hex::encode(rs), recovery.to_u8() + 27)
    }

    /// The chain of two links in which the wallet signs the challenge itself, as JSON.
    pub fn sign_challenge(&self, challenge: &str) -> String {
        to_json(&self.chain(challenge))
    }

    /// The headers of a request that the wallet signs itself: see [`fetch_headers`].
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

/// A wallet's delegation to a short-lived key, which signs challenges in its name.
#[derive(Debug, Clone)]
pub struct Identity {
    owner: Address,
    delegation: Link,
    ephemeral: Wallet,
}

impl Identity {
    /// Has `wallet` vouch for `ephemeral` until `expiration`.
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

    /// Whose identity it is.
    pub fn address(&self) -> Address {
        self.owner
    }

    /// The chain of three links in which the short-lived key signs the challenge, as JSON.
    pub fn sign_challenge(&self, challenge: &str) -> String {
        to_json(&self.chain(challenge))
    }

    /// The headers of a request that the short-lived key signs: see [`fetch_headers`].
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
