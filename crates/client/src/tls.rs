//! The TLS provider of the process.

use rustls::crypto::{CryptoProvider, ring};

/// Installs a default TLS provider if the program has not chosen one. Without a provider, TLS connections
/// panic.
pub(crate) fn install_default_provider() {
    if CryptoProvider::get_default().is_none() {
        // Fails only if another thread has installed one at the same time.
        let _ = ring::default_provider().install_default();
    }
}
