//! Guests: identities that are created for one sign-in.

use std::time::{Duration, SystemTime};

use identity::{Identity, Wallet};

/// The system provided no randomness for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system provides no randomness: {0}")]
pub struct GuestError(#[from] getrandom::Error);

/// The validity of the ephemeral key.
const GUEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Creates a guest: a new wallet and a new ephemeral key, which is valid for a day.
pub fn guest() -> Result<Identity, GuestError> {
    Ok(Identity::new(&random_wallet()?, random_wallet()?, SystemTime::now() + GUEST_LIFETIME))
}

fn random_wallet() -> Result<Wallet, GuestError> {
    loop {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        // One in 2^128 random numbers is not a valid key.
        if let Ok(wallet) = Wallet::from_secret(secret) {
            return Ok(wallet);
        }
    }
}
