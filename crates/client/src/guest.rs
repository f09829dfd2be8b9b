use std::time::{Duration, SystemTime};

use identity::{Identity, Wallet};

/// The system gave no randomness for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no randomness: {0}")]
pub struct GuestError(#[from] getrandom::Error);

/// How long the short-lived key is vouched for.
const GUEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A guest: a wallet and a short-lived key, both made a moment ago, and good for a day.
pub fn guest() -> Result<Identity, GuestError> {
    Ok(Identity::new(&random_wallet()?, random_wallet()?, SystemTime::now() + GUEST_LIFETIME))
}

fn random_wallet() -> Result<Wallet, GuestError> {
    loop {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        // One in 2^128 is no key.
        if let Ok(wallet) = Wallet::from_secret(secret) {
            return Ok(wallet);
        }
    }
}
