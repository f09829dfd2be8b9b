//! Wallets of test clients.

use std::sync::atomic::{AtomicU64, Ordering};

use identity::Wallet;

/// A wallet that no other test has.
pub fn wallet() -> Wallet {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Wallet::from_secret(secret).unwrap()
}
